"""The policy server over real sockets of this machine."""

import dataclasses
import threading
import time
import urllib.error
import urllib.request

import msgpack
import numpy as np
import pytest
from foreact.envs.errors import UserError
from foreact.eval.actors import PolicyActor
from foreact.eval.serving.client import Client, ServerError, pack, unpack
from foreact.eval.serving.server import ServeSettings
from websockets.sync.client import connect


def uri(server):
    return f"ws://127.0.0.1:{server.port}"


def look(worlds, seed=0):
    env = worlds.make("near")
    observation, _ = env.reset(seed=seed)
    return {**observation, "instruction": "go to the near goal"}


def get(server, path, **headers):
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    return urllib.request.urlopen(request, timeout=10).read().decode()


def test_an_answer_is_what_the_policy_says(serving, actor, worlds):
    with serving(actor) as server, Client(uri(server)) as client:
        assert client.metadata["horizon"] == 6
        observation = look(worlds)
        answer = client.infer({**observation, "key": [7, 0, 3], "seq": 12})
        stacked = {"images": {"main": observation["images"]["main"][None]}, "state": observation["state"][None]}
        np.testing.assert_array_equal(answer["actions"], actor.policy.act([stacked], ["go"], [(7, 0, 3)])[0])
        assert answer["seq"] == 12
        assert answer["server_timing"]["rows"] == 1
        assert "prompt" not in observation
        named = {**observation, "prompt": observation["instruction"]}
        del named["instruction"]
        assert client.infer(named)["actions"].shape == (6, 2)


@pytest.mark.parametrize(("runtime", "rows"), [("torch", 1), ("onnx", 1), ("compiled", 4)])
def test_a_client_alone_does_not_wait_for_rows_of_nobody(serving, continuing, worlds, monkeypatch, runtime, rows):
    actor, padded = PolicyActor(policy=continuing(), batch_shape=4), []
    act = actor.policy.act
    monkeypatch.setattr(actor.policy, "runtime", runtime, raising=False)
    monkeypatch.setattr(actor.policy, "act", lambda *a, batch_shape: padded.append(batch_shape) or act(*a))
    with serving(actor) as server, Client(uri(server)) as client:
        client.infer(look(worlds))
    assert padded == [rows]


def test_clients_are_answered_in_batches(serving, continuing, worlds):
    actor = PolicyActor(policy=continuing(think=0.1), batch_shape=4)
    found = []
    with serving(actor) as server:
        clients = [Client(uri(server)) for _ in range(5)]

        def ask(i):
            found.append((i, clients[i].infer({**look(worlds, i), "key": [i]})))

        threads = [threading.Thread(target=ask, args=[i]) for i in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        for client in clients:
            client.close()
    assert max(answer["server_timing"]["rows"] for _, answer in found) >= 3
    for i, answer in found:
        observation = look(worlds, i)
        stacked = {"images": {"main": observation["images"]["main"][None]}, "state": observation["state"][None]}
        np.testing.assert_array_equal(answer["actions"], actor.policy.act([stacked], ["go"], [(i,)])[0])


def test_the_newest_observation_of_a_client_wins(serving, continuing, worlds):
    actor = PolicyActor(policy=continuing(think=0.15), batch_shape=1)
    with serving(actor) as server, connect(uri(server), compression=None) as socket:
        unpack(socket.recv())
        for seq in range(4):
            socket.send(pack({**look(worlds), "seq": seq}))
            time.sleep(0.02)
        replies = [unpack(socket.recv(timeout=10)) for _ in range(4)]
        assert server.counts["overtaken"] == 2
    assert {r["seq"] for r in replies if r.get("overtaken")} == {1, 2}
    assert {r["seq"] for r in replies if "actions" in r} == {0, 3}


def bad_messages(worlds):
    good = look(worlds)
    yield good | {"state": np.array([np.nan, 0], np.float32)}, "state has NaN"
    yield good | {"state": np.zeros(3, np.float32)}, r"state has shape \(3,\)|state has shape \(1, 3\)"
    yield good | {"images": {}}, "images must have camera 'main'"
    yield good | {"images": {"main": np.zeros((5, 5, 3), np.uint8)}}, "the policy needs"
    yield good | {"images": {"main": np.zeros((12, 12, 3), np.float32)}}, "pictures are uint8"
    yield good | {"images": 3}, "images must have camera"
    yield good | {"instruction": ""}, "instruction"
    yield good | {"instruction": "x" * 2000}, "instruction"
    yield good | {"key": [-1]}, "key must be"
    yield good | {"key": [True]}, "key must be"
    yield good | {"committed": np.zeros((6, 2), np.float32)}, "committed must be"
    yield good | {"committed": np.full((1, 2), np.inf, np.float32)}, "committed has NaN"
    yield good | {"state": ["a", "b"]}, "something other than numbers"
    yield good | {"weights": 1}, "unknown 'weights' in the message; it may have images"


def test_bad_messages_are_told_what_is_wrong_and_cost_nobody_else(serving, actor, worlds):
    with serving(actor) as server, Client(uri(server)) as client, Client(uri(server)) as other:
        for message, said in bad_messages(worlds):
            with pytest.raises(ServerError, match=said):
                client.infer(message)
            assert client.infer(look(worlds))["actions"].shape == (6, 2)
        assert other.infer(look(worlds))["actions"].shape == (6, 2)
        assert server.counts["errors"] == 0
        assert server.counts["bad_messages"] == len(list(bad_messages(worlds)))


def garbage(rng, good):
    """Bytes that are no message: noise, a good message with bits turned, cut or doubled, maps of nonsense."""
    kind = rng.integers(5)
    if kind == 0:
        return rng.bytes(int(rng.integers(0, 300)))
    data = bytearray(good)
    if kind == 1:
        for at in rng.integers(0, len(data), int(rng.integers(1, 20))):
            data[at] ^= int(rng.integers(1, 256))
        return bytes(data)
    if kind == 2:
        return bytes(data[: rng.integers(len(data))])
    if kind == 3:
        return bytes(data + data)
    head = {b"__ndarray__": True, b"data": rng.bytes(8), b"dtype": str(rng.choice(["<f4", "|O", "V8", "<U2", ""]))}
    return msgpack.packb({"images": {"main": head | {b"shape": rng.integers(-3, 5, 2).tolist()}}, "state": 2**63})


@pytest.mark.parametrize("n", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_malformed_messages_never_harm_the_server(serving, actor, worlds, n):
    rng, good = np.random.default_rng(0), pack(look(worlds))
    with serving(actor) as server:
        with connect(uri(server), compression=None, max_size=None) as socket:
            socket.recv()
            for _ in range(n):
                socket.send(garbage(rng, good))
                reply = socket.recv(timeout=10)
                assert isinstance(reply, str) or "actions" in unpack(reply)  # a turned bit may still be a picture
        with Client(uri(server)) as client:
            assert client.infer(look(worlds))["actions"].shape == (6, 2)
        assert server.counts["errors"] == 0
        assert server.counts["bad_messages"] > 0.7 * n


def test_a_policy_that_fails_is_said_so_without_its_secrets(serving, actor, worlds, monkeypatch):
    def act(*arguments, **options):
        raise RuntimeError("/home/someone/secret")

    monkeypatch.setattr(actor.policy, "act", act)
    with serving(actor) as server, Client(uri(server)) as client:
        with pytest.raises(ServerError, match=r"the policy failed: RuntimeError$"):
            client.infer(look(worlds))
        assert server.counts["errors"] == 1


def test_tokens_sizes_and_rates_are_limits(serving, actor, worlds):
    with serving(actor, token="secret", max_mb=0.01, rate=3.0) as server:
        for token in (None, "Secret", ""):
            with pytest.raises(ServerError, match="401"):
                Client(uri(server), token=token)
        assert get(server, "/healthz") == "OK\n"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(server, "/metrics")
        assert "foreact_refused_total 4" in get(server, "/metrics", Authorization="Bearer secret")
        with Client(uri(server), token="secret") as client:
            said = []
            for _ in range(5):
                try:
                    client.infer(look(worlds))
                except ServerError as error:
                    said.append(str(error))
            assert len(said) == 2
            assert "more than 3 messages a second" in said[0]
        with Client(uri(server), token="secret") as client, pytest.raises(ServerError, match="1009"):
            client.infer({"instruction": "x" * 20_000})
        wait_for(lambda: server.counts["too_large"] == 1)


def test_browsers_and_too_many_clients_are_turned_away(serving, actor):
    with serving(actor, clients=1) as server, Client(uri(server)):
        with pytest.raises(ServerError, match="503"):
            Client(uri(server))
        with pytest.raises(Exception, match="403"), connect(uri(server), origin="http://evil.example"):
            pass


def test_metrics_count(serving, actor, worlds):
    with serving(actor) as server, Client(uri(server)) as client:
        client.infer(look(worlds))
        text = get(server, "/metrics")
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines())
    assert lines["foreact_answers_total"] == "1"
    assert lines["foreact_clients"] == "1"
    assert float(lines['foreact_latency_seconds{quantile="0.95"}']) > 0


def wait_for(condition):
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def test_a_checkpoint_is_loaded_again_while_clients_stay(serving, actor, continuing, worlds):
    fresh = [PolicyActor(policy=continuing(noise=2.0), batch_shape=4)]
    with serving(actor, load=lambda: fresh[0]) as server, Client(uri(server)) as client:
        before = client.infer({**look(worlds), "key": [1]})["actions"]
        server.loop.call_soon_threadsafe(server.reload)
        wait_for(lambda: server.counts["reloads"] == 1)
        after = client.infer({**look(worlds), "key": [1]})["actions"]
        assert np.abs(after - before).max() > 0.1
        fresh[0] = PolicyActor(policy=continuing(), n_action_steps=2, batch_shape=4)
        server.loop.call_soon_threadsafe(server.reload)
        wait_for(lambda: server.counts["failed_reloads"] == 1)
        np.testing.assert_array_equal(client.infer({**look(worlds), "key": [1]})["actions"], after)


@pytest.mark.parametrize(("name", "value"), [("port", 70000), ("max_mb", 0.0), ("rate", -1.0), ("clients", 0)])
def test_settings_that_make_no_sense_say_so(name, value):
    with pytest.raises(UserError, match=name):
        dataclasses.replace(ServeSettings(), **{name: value})
