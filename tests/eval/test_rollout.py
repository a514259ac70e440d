"""Rollouts: what is counted and kept, and that nothing but the policy and the seeds decides it."""

import json

import numpy as np
import pytest
from foreact.data.video import read_video
from foreact.envs.errors import UserError
from foreact.eval import evaluate
from foreact.eval.actors import PolicyActor
from foreact.eval.chunks import Chunks

QUIET = {"progress": False, "registry": "fake_worlds"}


def records(results):
    return {task: row["episodes"] for task, row in results["per_task"].items()}


def test_a_policy_infers_on_half_of_the_threads_and_gives_them_back(dot_policy, monkeypatch):
    torch = pytest.importorskip("torch")
    policy, seen = dot_policy(), set()
    act, before = policy.act, torch.get_num_threads()
    monkeypatch.setattr(policy, "act", lambda *a, **k: seen.add(torch.get_num_threads()) or act(*a, **k), raising=False)
    torch.set_num_threads(4)
    try:
        evaluate(policy, episodes=1, workers=1, **QUIET)
        assert (seen, torch.get_num_threads()) == ({2}, 4)
    finally:
        torch.set_num_threads(before)


def test_results_have_the_promised_keys(dot_policy, tmp_path):
    policy = dot_policy()
    results = evaluate(policy, episodes=3, out=tmp_path, workers=2, **QUIET)
    assert {
        "per_task",
        "task_mean",
        "groups",
        "group_mean",
        "latency_ms",
        "versions",
        "command",
    } <= results.keys()
    assert list(results["per_task"]) == ["far", "near"]  # the policy's own tasks, by bare name
    near = results["per_task"]["near"]
    assert near["success"] == 1.0
    assert near["n"] == 3
    assert near["ci95"][1] == 1.0
    assert [e["seed"] for e in near["episodes"]] == [1000, 1001, 1002]
    assert all(0 < e["length"] < 60 for e in near["episodes"])
    assert results["groups"]["easy"]["success"] == 1.0
    assert results["latency_ms"]["p50"] > 0
    assert results["latency_ms"]["looks"] == len(
        {k for call in policy.calls for k in zip(call[0], call[1], strict=True)}
    )
    assert results["policy"]["batch_shape"] == 4
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == results
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("options", [{"n_action_steps": 3}, {"ensemble": 0.1}, {"ensemble": 0.0, "n_action_steps": 2}])
def test_records_do_not_depend_on_workers_environments_or_batch(dot_policy, options):
    runs = [
        evaluate(dot_policy(), ["near", "slow", "far"], episodes=3, max_steps=25, **setting, **options, **QUIET)
        for setting in (
            {"workers": 1, "n_envs": 1, "batch_size": 1},
            {"workers": 2, "n_envs": 5, "batch_size": 3},
        )
    ]
    assert records(runs[0]) == records(runs[1])
    digests = {e["actions"] for rows in records(runs[0]).values() for e in rows}
    assert len(digests) == 6  # the records do see the actions; near and slow are the same world


def test_another_seed_gives_other_actions(dot_policy):
    one = evaluate(dot_policy(), ["near"], episodes=2, workers=1, **QUIET)
    two = evaluate(dot_policy(), ["near"], episodes=2, workers=1, seed=2000, **QUIET)
    assert records(one) != records(two)


def test_inference_is_batched_across_tasks_at_one_shape(dot_policy):
    policy = dot_policy()
    evaluate(policy, ["near", "far"], episodes=4, workers=2, n_envs=8, batch_size=8, **QUIET)
    assert {call[2] for call in policy.calls} == {8}
    assert max(len(call[1]) for call in policy.calls) <= 8
    assert any(len(set(call[0])) == 2 for call in policy.calls)
    assert all(shape == (2, 2) for call in policy.calls for shape in call[3])


def test_history_is_the_windows_of_training(dot_policy, worlds):
    from foreact.data.windows import Windows
    from foreact.eval.stage import Stage, Start, begin, run

    env = worlds.make("far")
    actions = np.random.default_rng(0).uniform(-0.1, 0.1, (24, 2)).astype(np.float32)
    first, _ = env.reset(seed=3)
    states = [first["state"]]
    for action in actions:
        env.advance(action)
        states.append(env.observe()["state"])
    for n, stride, every in [(1, 1, 4), (2, 1, 4), (3, 2, 4), (2, 10, 4), (4, 5, 3), (3, 1, 1)]:
        stage = Stage("fake_worlds")
        sight = {"n_obs_steps": n, "obs_stride": stride, "look_every": every}
        look = begin(stage, Start(task="fake/far", seed=3, max_steps=60, **sight))
        windows = Windows(n_obs_steps=n, obs_stride=stride)
        for step in range(0, 24, every):
            [rows] = windows.at(np.array([25]), np.array([step])).obs
            assert np.array_equal(look.observation["state"], np.stack(states)[rows]), (n, stride, every, step)
            look = run(stage, actions[step : step + every])
        stage.close()


def test_pictures_are_drawn_only_for_looks(worlds):
    from foreact.eval.stage import Stage, Start, begin, play, run

    stage = Stage("fake_worlds")
    play(stage, Start(task="fake/far", seed=0, max_steps=60), "random", (0, 0))
    assert stage.env.drawn == 1  # the reset's own
    begin(stage, Start(task="fake/far", seed=0, max_steps=60, look_every=8, n_obs_steps=2))
    run(stage, np.zeros((8, 2), np.float32))
    assert stage.env.drawn == 2 + 2


def test_expert_succeeds_and_random_fails(worlds):
    assert evaluate("expert", ["near", "far"], episodes=3, workers=1, **QUIET)["task_mean"] == 1.0
    random = [evaluate("random", ["far"], episodes=4, workers=w, **QUIET) for w in (1, 2)]
    assert random[0]["task_mean"] == 0.0
    assert records(random[0]) == records(random[1])
    assert random[0]["latency_ms"]["p50"] is None


def test_step_limit(dot_policy, worlds):
    results = evaluate("expert", ["far"], episodes=2, max_steps=3, workers=1, **QUIET)
    assert [(e["length"], e["success"]) for e in records(results)["far"]] == [(3, False)] * 2
    results = evaluate(dot_policy(noise=50.0), ["far"], episodes=2, max_steps=500, workers=1, **QUIET)
    assert {e["length"] for e in records(results)["far"]} == {60}  # the task's own limit


def test_resume_continues_and_another_config_is_an_error(dot_policy, tmp_path):
    whole = evaluate(dot_policy(), ["near"], episodes=5, out=tmp_path, workers=1, **QUIET)
    journal = tmp_path / "episodes.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    journal.write_text("".join(lines[:2]) + lines[2][:20], encoding="utf-8")  # killed while a line was written
    policy = dot_policy()
    resumed = evaluate(policy, ["near"], episodes=5, out=tmp_path, workers=2, n_envs=3, **QUIET)
    assert records(resumed) == records(whole)
    kept = {json.loads(line)["episode"] for line in lines[:2]}
    assert {key[1] for call in policy.calls for key in call[1]} == set(range(5)) - kept
    with pytest.raises(UserError, match=r"seed: 1000 there, 7 here"):
        evaluate(dot_policy(), ["near"], episodes=5, seed=7, out=tmp_path, **QUIET)
    fresh = evaluate(dot_policy(), ["near"], episodes=2, seed=7, out=tmp_path, resume=False, workers=1, **QUIET)
    assert fresh["per_task"]["near"]["n"] == 2
    assert len(journal.read_text(encoding="utf-8").splitlines()) == 2


def test_two_writers_get_a_clear_error(dot_policy, tmp_path):
    from foreact.eval.journal import Journal

    with Journal(tmp_path, {}), pytest.raises(UserError, match="another evaluation is writing"):
        evaluate(dot_policy(), ["near"], out=tmp_path, **QUIET)


def test_videos_show_what_was_foreseen_and_change_nothing(dot_policy, tmp_path):
    plain = evaluate(dot_policy(), ["near"], episodes=3, workers=2, **QUIET)
    filmed = evaluate(dot_policy(), ["near"], episodes=3, workers=2, out=tmp_path, video=2, **QUIET)
    assert records(plain) == records(filmed)
    videos = sorted((tmp_path / "videos").iterdir())
    assert [v.name for v in videos] == ["near_1000_success.mp4", "near_1001_success.mp4"]
    width = read_video(videos[0]).shape[2]
    assert width >= 3 * 3 * 12  # three panels, three times as large
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "near_1000_success.mp4" in page


def test_a_checkpoint_runs_at_its_own_picture_size(dot_policy):
    policy = dot_policy()
    spec = policy.embodiment.to_dict()
    spec["cameras"][0] |= {"height": 20, "width": 20}
    policy.embodiment = type(policy.embodiment).from_dict(spec)
    assert evaluate(policy, ["near"], episodes=2, workers=1, **QUIET)["task_mean"] == 1.0


def test_temporal_ensemble_is_the_papers_formula():
    chunks, k = Chunks(ensemble=0.5), np.arange(4, dtype=np.float32)[:, None]
    for step in range(3):
        chunks.add(step, 10 * step + k)
    # At step 2: the oldest chunk says 2, the next 11, the newest 20, weighted 1, e^-0.5, e^-1.
    weights = np.exp([0, -0.5, -1.0])
    assert chunks.actions(2, 1)[0, 0] == pytest.approx(weights @ [2, 11, 20] / weights.sum())
    chunks.add(4, 40 + k)  # the chunk of step 0 has ended
    assert [step for step, _ in chunks.held] == [1, 2, 4]
    plain = Chunks(ensemble=None)
    plain.add(0, k)
    plain.add(2, 5 + k)
    assert plain.actions(2, 3)[:, 0].tolist() == [5, 6, 7]


def test_actor_knows_its_weights(dot_policy):
    torch = pytest.importorskip("torch")
    one, two = dot_policy(), dot_policy()
    one.model, two.model = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    a, b = (PolicyActor(policy=p).identity()["fingerprint"] for p in (one, two))
    assert a != b
    two.model.load_state_dict(one.model.state_dict())
    assert PolicyActor(policy=two).identity()["fingerprint"] == a
