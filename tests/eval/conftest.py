"""Toy environments, toy policies, a policy server in a thread, and a run of next to no training."""

import asyncio
import contextlib
import dataclasses
import threading
import time
from pathlib import Path

import numpy as np
import pytest


class DotPolicy:
    """Finds the goal in the picture and goes there, with noise from its keys; K = 6 actions a chunk."""

    horizon, n_action_steps, n_obs_steps, obs_stride = 6, 4, 2, 1
    tasks = ("fake/near", "fake/far")
    can_imagine, future_offsets = True, (2, 4)

    def __init__(self, embodiment, noise=0.3):
        self.embodiment, self.noise = embodiment, noise
        self.calls = []  # (task instructions, keys, batch shape, state shape)

    def act(self, observations, instructions, keys, batch_shape=None):
        shapes = [o["state"].shape for o in observations]
        self.calls.append((list(instructions), list(keys), batch_shape, shapes))
        return np.stack([self._chunk(o, key) for o, key in zip(observations, keys, strict=True)])

    def _chunk(self, observation, key):
        picture = observation["images"]["main"][-1]
        goal = (np.argwhere(picture[..., 1])[0] + 0.5) / picture.shape[0] * 2 - 1
        noise = np.random.default_rng(key).normal(0, self.noise, (self.horizon, 2))
        drift = observation["state"][-1] - observation["state"][0]  # uses the history
        towards = 3 * (goal - observation["state"][-1]) - 0.1 * drift
        return (towards + noise).astype(np.float32)

    def imagine(self, observations, instructions, keys, actions=None):
        now = np.stack([o["images"]["main"][-1] for o in observations])
        return {"main": np.stack([255 - now, now], axis=1)}


class ContinuingPolicy:
    """Goes to the goal in the picture with one offset a chunk, and goes on from committed actions."""

    horizon, n_action_steps, n_obs_steps = 6, 3, 1
    tasks = ("fake/near", "fake/far")
    can_continue = True

    def __init__(self, embodiment, noise=0.1, think=0.0):
        self.embodiment, self.noise, self.think = embodiment, noise, think
        self.committed = []

    def act(self, observations, instructions, keys, batch_shape=None, *, committed=None):
        if self.think:
            time.sleep(self.think)
        firsts = committed or [None] * len(keys)
        self.committed += zip(keys, firsts, strict=True)
        return np.stack([self._chunk(*row) for row in zip(observations, keys, firsts, strict=True)])

    def _chunk(self, observation, key, first):
        picture = observation["images"]["main"][-1]
        goal = (np.argwhere(picture[..., 1])[0] + 0.5) / picture.shape[0] * 2 - 1
        offset = np.random.default_rng(key).normal(0, self.noise, 2)
        aim = np.clip(1.5 * (goal - observation["state"][-1]), -0.5, 0.5)
        chunk = np.tile(aim + offset, (self.horizon, 1)).astype(np.float32)
        if first is not None:
            n = len(first)
            fade = np.linspace(0, 1, self.horizon - n + 1)[:-1, None]  # goes on from the last committed action
            chunk[:n], chunk[n:] = first, (1 - fade) * first[-1] + fade * chunk[n:]
        return chunk


@pytest.fixture
def worlds(monkeypatch):
    """The module of toy environments, importable here and in worker processes."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import fake_worlds

    return fake_worlds


@pytest.fixture
def dot_policy(worlds):
    """Makes toy policies."""

    def build(**options):
        return DotPolicy(worlds.EMBODIMENT, **options)

    return build


@pytest.fixture
def continuing(worlds):
    """Makes toy policies that can continue a chunk."""

    def build(**options):
        return ContinuingPolicy(worlds.EMBODIMENT, **options)

    return build


@pytest.fixture(scope="session")
def metaworld_run(tmp_path_factory):
    """A run of two updates on random episodes of two Metaworld tasks at 32 pixels: fast, and good for nothing."""
    pytest.importorskip("torch")
    import yaml
    from foreact import envs
    from foreact.configs import __path__ as folders
    from foreact.data.schema import fake_episode
    from foreact.data.store import Store
    from foreact.policy import ModelConfig, TrainConfig, train
    from foreact.policy.settings import build

    tmp, tasks = tmp_path_factory.mktemp("run"), ("metaworld/button-press-v3", "metaworld/reach-v3")
    robot = dataclasses.replace(envs.embodiment(tasks[0]), cameras=tuple(envs.views(tasks[0], ["main"], 32)))
    with Store.create(tmp / "data", robot, privileged=False) as store:
        for i in range(4):
            episode = fake_episode(robot, steps=20, seed=i, task=tasks[i % 2])
            store.append(dataclasses.replace(episode, instruction=envs.task(tasks[i % 2]).instruction))
    text = (Path(next(iter(folders))) / "model/joint/tiny.yaml").read_text(encoding="utf-8")
    preset = build(ModelConfig, yaml.safe_load(text) | {"pixels": 32, "instruction": "table"})
    short = TrainConfig(steps=2, batch_size=4, warmup=1, held_out=0.5, align=0.0, precision="fp32", device="cpu")
    return train(tmp / "data", preset, short, tmp / "run", command=f"foreact train data={tmp}/data", progress=False)


@contextlib.contextmanager
def _serving(actor, *, load=None, **settings):
    from foreact.eval.serving.server import Server, ServeSettings

    server, ready = Server(actor, ServeSettings(port=0, **settings), load), threading.Event()
    loop = asyncio.new_event_loop()
    task = loop.create_task(server.run(lambda _: ready.set()))

    def run():
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(60)
        server.loop = loop
        yield server
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        loop.close()
        assert not thread.is_alive()


@pytest.fixture
def serving():
    """Serves an actor from a thread: `with serving(actor, **settings) as server`, which then listens."""
    return _serving
