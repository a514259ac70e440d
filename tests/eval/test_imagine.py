import json
from importlib.resources import files

import numpy as np
import pytest
import torch
import yaml
from foreact.data.schema import fake_episode
from foreact.data.store import Store
from foreact.data.video import read_video
from foreact.envs.errors import UserError
from foreact.eval.bench.model import fake_policy
from foreact.eval.imagine import imagine
from foreact.eval.recording import Driver, PoseDriver
from foreact.eval.reports.pictures import Score, moving, psnr, r_squared, ssim
from foreact.eval.reports.storyboard import Look, write_storyboard
from foreact.policy import ModelConfig, TrainConfig, load_policy, train
from foreact.policy.settings import build

ROBOT_SIDE = 32


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(policy, store) of a tiny policy that knows all five queries, hardly trained."""
    from foreact.envs.spec import Camera, Embodiment, Field

    def axis(name: str, n: int) -> Field:
        return Field(name=name, unit="m", low=(-1.0,) * n, high=(1.0,) * n)

    robot = Embodiment(
        name="toy",
        cameras=(Camera(name="front", mount="f", height=ROBOT_SIDE, width=ROBOT_SIDE),),
        state=(axis("hand", 3),), action=(axis("velocity", 3), axis("gripper", 1)), privileged=(), control_hz=20,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("imagine")
    with Store.create(folder / "store", robot, privileged=False) as store:
        for i in range(4):
            store.append(fake_episode(robot, steps=14, seed=i, task="toy/a"))
    model = build(
        ModelConfig,
        {
            "name": "joint/test",
            "backbone": {"width": 32, "depth": 2, "heads": 2, "gate_init": 0.2},
            "image": {"channels": [8, 8, 8]},
            "pixels": ROBOT_SIDE, "horizon": 4, "n_action_steps": 2, "future": [2, 4], "instruction": "table",
            "draws": {"policy": 1, "joint": 1, "video": 1, "forward_dynamics": 1, "inverse_dynamics": 1, "predict": 1},
            "solver": {"steps": 2},
        },
    )  # fmt: skip
    short = TrainConfig(steps=2, batch_size=4, warmup=1, held_out=0.3, val_every=0, precision="fp32", device="cpu")
    run = train(folder / "store", model, short, folder / "run", progress=False)
    return load_policy(run, "cpu"), Store.open(folder / "store")


def test_every_trained_query_gets_numbers_and_a_film(trained, tmp_path):
    policy, store = trained
    found = imagine(policy, store, episodes=[2, 3], every=5, out=tmp_path, progress=False)
    queries = ["joint", "video", "forward_dynamics", "inverse_dynamics", "predict"]
    assert list(found["queries"]) == queries
    assert json.loads((tmp_path / "imagine.json").read_text(encoding="utf-8")) == found
    for query in queries:
        row = found["queries"][query]
        assert ("psnr" in row) == (query != "inverse_dynamics")
        assert ("r2" in row) == (query in ("joint", "inverse_dynamics"))
        assert (tmp_path / f"{query}.mp4").exists() == (query != "inverse_dynamics")
    assert found["queries"]["inverse_dynamics"]["r2"].keys() == {"velocity", "gripper"}
    film = read_video(tmp_path / "joint.mp4")
    assert len(film) > 2
    assert found["episodes"] == [2, 3]
    # looks are those whose last foreseen frame came: steps 0 and 5 of 14
    assert found["queries"]["video"]["looks"] == 2 * 2


def test_without_films_there_are_numbers_all_the_same(trained, tmp_path):
    policy, store = trained
    found = imagine(policy, store, queries=["joint"], episodes=[2], out=tmp_path, shown=0, progress=False)
    assert "psnr" in found["queries"]["joint"]
    assert not (tmp_path / "joint.mp4").exists()


def test_episodes_that_were_learned_from_are_not_scored_unasked(trained, tmp_path, caplog):
    policy, store = trained
    assert sum(len(one.of(store)) for one in policy.learned) == 3  # of 4, one is held out
    found = imagine(policy, store, queries=["joint"], out=tmp_path, progress=False)
    (unseen,) = found["episodes"]
    assert found["learned_from"] == []
    assert not caplog.records
    found = imagine(policy, store, queries=["joint"], episodes=range(4), out=tmp_path, progress=False)
    assert found["learned_from"] == [i for i in range(4) if i != unseen]
    assert "3 of the 4 episodes were learned from" in caplog.text


def test_the_mean_of_several_draws_is_nearer_than_one(trained, tmp_path):
    policy, store = trained
    one, many = (
        imagine(policy, store, queries=["inverse_dynamics"], samples=n, out=tmp_path / str(n), progress=False)[
            "queries"
        ]
        for n in (1, 12)
    )
    assert many["inverse_dynamics"]["r2"]["velocity"] > one["inverse_dynamics"]["r2"]["velocity"]


def test_the_same_numbers_again(trained, tmp_path):
    policy, store = trained
    a, b = (imagine(policy, store, queries=["joint"], out=tmp_path / x, progress=False) for x in "ab")
    assert a["queries"] == b["queries"]


def test_a_query_that_was_not_trained_is_refused(trained, tmp_path):
    policy, store = trained
    with pytest.raises(UserError, match=r"trained on policy, joint, .* and not on 'complete'"):
        imagine(policy, store, queries=["complete"], out=tmp_path, progress=False)


def test_too_short_episodes(trained, tmp_path):
    policy, store = trained
    robot = store.embodiment
    with Store.create(tmp_path / "short", robot, privileged=False) as short:
        short.append(fake_episode(robot, steps=4, task="toy/a"))
        with pytest.raises(UserError, match="is longer than 4 steps"):
            imagine(policy, short, out=tmp_path, progress=False)


def test_a_driver_looks_when_its_chunk_is_spent(trained):
    policy, store = trained
    episode = store.episode(0)
    driver = Driver(policy, episode.instruction, 7)
    seen = [{"images": {"front": episode.images["front"][i]}, "state": episode.state[i]} for i in range(4)]
    actions = [driver(o) for o in seen]
    chunks = [
        policy.act(
            [{"images": {"front": o["images"]["front"][None]}, "state": o["state"][None]}],
            [episode.instruction], [(7, step)],
        )[0]
        for step, o in ((0, seen[0]), (2, seen[2]))
    ]  # fmt: skip
    np.testing.assert_array_equal(np.stack(actions), np.concatenate([c[:2] for c in chunks]))


class TestNumbers:
    def test_psnr(self):
        assert psnr(0.01) == pytest.approx(20)
        assert psnr(0) == pytest.approx(100)
        assert psnr(0, 0) is None

    def test_ssim_of_equal_and_of_opposite_pictures(self):
        a = torch.rand(3, 16, 16, 3)
        assert ssim(a, a).tolist() == pytest.approx([1, 1, 1])
        assert ssim(a, 1 - a).max() < 0

    def test_ssim_against_the_formula_on_one_window(self):
        a, b = torch.rand(1, 7, 7, 1).double(), torch.rand(1, 7, 7, 1).double()
        x, y = a.flatten(), b.flatten()
        covariance = torch.cov(torch.stack([x, y]))
        c1, c2 = 1e-4, 9e-4
        expected = ((2 * x.mean() * y.mean() + c1) * (2 * covariance[0, 1] + c2)) / (
            (x.mean() ** 2 + y.mean() ** 2 + c1) * (covariance[0, 0] + covariance[1, 1] + c2)
        )
        assert ssim(a, b).item() == pytest.approx(expected.item())

    def test_moving_pixels(self):
        now = torch.zeros(1, 4, 4, 3)
        real = now.clone()
        real[0, 1, 2, 1] = 0.2
        assert moving(real, now).nonzero().tolist() == [[0, 1, 2]]

    def test_r_squared(self):
        wanted = torch.randn(50, 2)
        assert r_squared(wanted, wanted) == 1
        assert r_squared(wanted.mean(0).expand(50, 2), wanted) == pytest.approx(0, abs=1e-6)
        assert r_squared(wanted, torch.ones(50, 2)) is None

    def test_scores_pool_over_pixels_and_leave_out_what_was_given(self):
        score = Score()
        now, real = torch.zeros(1, 1, 1, 8, 8, 3), torch.zeros(1, 1, 1, 8, 8, 3)
        real[..., :4, :, :] = 0.5
        foreseen = real + 0.1
        hidden = torch.ones(1, 1, 1, 8, 8, dtype=torch.bool)
        hidden[..., :2, :] = False
        score.add_pictures(foreseen, real, now, hidden)
        row = score.summary([])
        assert row["psnr"] == pytest.approx(20, abs=1e-3)
        assert row["psnr_moving"] == pytest.approx(20, abs=1e-3)
        assert row["psnr_copy"] == pytest.approx(psnr(0.25 * 16 / 48))
        assert row["psnr_moving_copy"] == pytest.approx(psnr(0.25))
        assert row["moving_share"] == pytest.approx(16 / 64)

    def test_nothing_hidden_and_nothing_moving_has_no_number(self):
        score = Score()
        still = torch.zeros(1, 1, 1, 8, 8, 3)
        score.add_pictures(still + 0.1, still, still, torch.ones(1, 1, 1, 8, 8, dtype=torch.bool))
        score.add_pictures(still, still, still, torch.zeros(1, 1, 1, 8, 8, dtype=torch.bool))
        row = score.summary([])
        assert row["psnr"] == pytest.approx(20, abs=1e-3)
        assert row["psnr_moving"] is None
        assert row["looks"] == 2

    def test_actions_beyond_the_end_do_not_count(self):
        score, wanted = Score(), torch.randn(2, 4, 3)
        found, padded = wanted.clone(), torch.zeros(2, 4, dtype=torch.bool)
        found[:, 2:] += 5
        padded[:, 2:] = True
        score.add_actions(found.numpy(), wanted, padded)
        assert score.summary([("hand", np.arange(3))])["r2"] == {"hand": 1.0}


def test_storyboard_runs_all_episodes_side_by_side(tmp_path):
    look = {"c": np.full((8, 8, 3), 100, np.uint8)}
    boards = [[Look(look, look, look)] * n for n in (2, 5)]
    film = read_video(write_storyboard(tmp_path / "x.mp4", boards, title="joint"))
    assert len(film) == 5 + 8
    assert (tmp_path / "x.png").exists()


def test_poses_are_driven_to_by_a_planner(monkeypatch):
    asked = []

    def act(observations, instructions, keys):
        asked.append((keys[0], observations[0]["state"][0, :3]))
        return np.array([[[0.1, 0.6, 0.2, 1.0], [0.12, 0.6, 0.2, 1.0], [9, 9, 9, 1.0]]], np.float32)

    tiny = yaml.safe_load(files("foreact.configs").joinpath("model/joint/tiny.yaml").read_text(encoding="utf-8"))
    policy = fake_policy(build(ModelConfig, {**tiny, "n_action_steps": 2}))
    monkeypatch.setattr(policy, "act", act)
    driver = PoseDriver(policy, "go", 7)
    state = np.array([0.0, 0.6, 0.2, 1.0], np.float32)
    for _ in range(40):
        action = driver({"state": state, "images": {}})
        assert np.abs(action).max() <= 1
        state = state + 0.01 * np.concatenate([action[:3], [0]]).astype(np.float32)
    assert asked[0][0] == (7, 0)
    (seed, step), where = asked[1]
    assert seed == 7
    assert step > 10
    assert np.allclose(where, [0.12, 0.6, 0.2], atol=0.006)
