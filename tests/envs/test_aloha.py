"""ALOHA's inverse kinematics and plan, and its joint limits against the scene's."""

import mujoco
import numpy as np
import pytest
from foreact import envs
from foreact.envs import aloha_expert as expert
from foreact.envs.aloha_tasks import HIGH, LOW

pytestmark = [pytest.mark.sim, pytest.mark.slow]  # the scene takes seconds to load


@pytest.fixture(scope="module")
def env():
    made = envs.make("transfer-cube", cameras=())
    made.reset(seed=0)
    return made


def test_the_limits_are_the_scenes(env):
    for side in expert._SIDES.values():
        joints = [j for j in range(env._model.njnt) if side.start <= env._model.jnt_qposadr[j] < side.stop]
        assert np.allclose(env._model.jnt_range[joints].T, [LOW, HIGH])


@pytest.mark.parametrize("side", ["left", "right"])
def test_joints_for_a_pose_that_joints_have_made_make_it(env, side):
    model, data = env._model, mujoco.MjData(env._model)
    link, joints = model.body(f"vx300s_{side}/gripper_link").id, expert._SIDES[side]
    rng = np.random.default_rng(0)
    home = env._data.qpos[joints]
    for _ in range(20):
        data.qpos[joints] = home + rng.uniform(-0.4, 0.4, 6)
        mujoco.mj_kinematics(model, data)
        position, turn = expert._tip(model, data, side), data.xquat[link].copy()
        data.qpos[joints] = home
        data.qpos[joints] = expert.reach(mujoco, model, data, side, position, turn)
        mujoco.mj_kinematics(model, data)
        assert np.allclose(expert._tip(model, data, side), position, atol=1e-3)
        assert abs(float(data.xquat[link] @ turn)) == pytest.approx(1, abs=1e-5)


def test_every_waypoint_is_within_reach_and_the_plan_within_bounds(env):
    for seed in range(20):
        env.reset(seed=seed)
        actions = expert.plan(mujoco, env._model, env._data, env.privileged().astype(float))
        assert actions.shape == (sum(stage.steps for stage in expert.STAGES), 14)
        assert len(actions) <= env.task.max_steps
        assert (actions >= env.embodiment.action_low - 1e-6).all()
        assert (actions <= env.embodiment.action_high + 1e-6).all()
        assert np.abs(np.diff(actions[:, expert._SIDES["left"]], axis=0)).max() < 0.1
    cubes = np.array([(x, y, 0.05) for x in (0.0, 0.2) for y in (0.4, 0.6)])  # the corners of where it may lie
    for cube in cubes:
        data = mujoco.MjData(env._model)
        data.qpos[:] = env._data.qpos
        turn = np.array(expert._SLANTED)
        data.qpos[expert._SIDES["right"]] = expert.reach(mujoco, env._model, data, "right", cube, turn)
        mujoco.mj_kinematics(env._model, data)
        assert np.allclose(expert._tip(env._model, data, "right"), cube, atol=1e-3)
