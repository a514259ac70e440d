"""The adapter against the simulator: seeds, first frames, goals and experts."""

import warnings

import numpy as np
import pytest
from foreact import envs
from foreact.envs.metaworld import bare
from foreact.envs.metaworld_tasks import CAMERA

from .conftest import succeeds

pytestmark = pytest.mark.sim

# Tasks whose goal is drawn as a marker, and those of them that are not marked slow here.
MARKED = (
    *("box-close", "coffee-pull", "coffee-push", "door-close", "door-open", "drawer-open", "hand-insert"),
    *("lever-pull", "peg-unplug-side", "pick-out-of-hole", "pick-place", "pick-place-wall", "plate-slide"),
    *("plate-slide-back", "plate-slide-back-side", "plate-slide-side", "push", "push-back", "push-wall"),
    *("reach", "reach-wall", "soccer", "stick-pull", "stick-push", "sweep", "sweep-into"),
)
QUICK_MARKED = ("reach", "coffee-pull")


def metaworld(*quick: str):
    """All Metaworld tasks as a parameter `name`, those but `quick` marked slow."""
    ids = {task_id: envs.task(task_id).name for task_id in envs.tasks("metaworld")}
    marks = {task_id: () if name in quick else pytest.mark.slow for task_id, name in ids.items()}
    return pytest.mark.parametrize("name", [pytest.param(i, id=n, marks=marks[i]) for i, n in ids.items()])


@metaworld("window-close-v3", "peg-insert-side-v3", "sweep-v3")
def test_frame_and_observation_0_agree_with_the_physics(name, make):
    """Even where the simulator's own reset leaves them behind: another forward pass changes nothing."""
    import mujoco

    env = make(name, privileged=True)
    for seed in (0, 1):
        before, _ = env.reset(seed=seed)
        mujoco.mj_forward(env._sim.model, env._sim.data)
        env._obs = np.hstack([env._sim._get_curr_obs_combined_no_goal()] * 2 + [env._sim._get_pos_goal()])
        after = env.observe()
        assert np.array_equal(before["images"]["main"], after["images"]["main"])
        assert np.array_equal(before["state"], after["state"])
        assert np.array_equal(before["privileged"], after["privileged"])


@metaworld("drawer-open-v3")
def test_starts_agree_with_metaworld_seeded_by_its_users(name, make):
    """Same draw for the same seed as Metaworld's own environment, seeded as others seed it."""
    import metaworld
    import mujoco

    env = make(name, cameras=())
    found = env.task.name
    benchmark = metaworld.MT1(found, seed=42)
    own = benchmark.train_classes[found]()
    own.set_task(benchmark.train_tasks[0])
    own._freeze_rand_vec, own.seeded_rand_vec = False, True
    own.seed(1000)
    own.reset()
    mujoco.mj_forward(own.model, own.data)
    env.reset(seed=1000)
    theirs = np.concatenate([own._get_curr_obs_combined_no_goal()[4:7], own._get_pos_goal()])
    np.testing.assert_allclose(env.privileged()[[0, 1, 2, 6, 7, 8]], theirs, atol=2e-3)
    own.close()


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK_MARKED else pytest.mark.slow) for n in MARKED])
def test_a_goal_drawn_as_a_marker_can_be_seen(name, make):
    """Pixels that change when the marker at the goal is made transparent: two at least, in 10 draws."""
    env = make(f"{name}-v3")
    model, data = env._sim.model, env._sim.data
    for seed in range(10):
        shown = env.reset(seed=seed)[0]["images"]["main"].astype(int)
        at_goal = np.linalg.norm(data.site_xpos - env.privileged()[6:9], axis=1) < 5e-3
        colours = model.site_rgba.copy()
        model.site_rgba[at_goal, 3] = 0
        without = env.observe()["images"]["main"].astype(int)
        model.site_rgba[:] = colours
        assert (np.abs(shown - without).max(-1) > 20).sum() >= 2, f"seed {seed}"


@metaworld("basketball-v3")
def test_the_expert_does_what_metaworlds_own_does(name, make):
    """Clipped and through the adapter, on the same draws, its success is the same."""
    from metaworld.policies import ENV_POLICY_MAP

    env = make(name, cameras=())
    policy = ENV_POLICY_MAP[env.task.name]()
    for seed in (1000, 1001):
        assert succeeds(env, seed, type(env).expert_action) == _own_succeeds(env, policy, seed)


def _own_succeeds(env, policy, seed: int) -> bool:
    """Metaworld's own loop: its policy's raw actions into its own step."""
    sim = bare(env.task.name)
    sim.seed(seed)
    obs, _ = sim.reset()
    for _ in range(500):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            action = policy.get_action(obs)
        obs, _, _, _, info = sim.step(action)
        if info["success"]:
            return True
    return False


def test_the_view_is_lerobots():
    assert (CAMERA.mount, CAMERA.pos, CAMERA.flip) == ("corner2", (0.75, 0.075, 0.7), "rot180")
    assert (CAMERA.height, CAMERA.width, CAMERA.look) == (96, 96, "fast")


def test_gymnasiums_own_checker_is_content(make):
    from gymnasium.utils.env_checker import check_env

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*", module="gymnasium")  # advice: spaces, spec
        check_env(make("button-press-v3"), skip_render_check=True)
