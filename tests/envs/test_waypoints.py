import dataclasses

import numpy as np
import pytest
from foreact.envs import embodiment, make
from foreact.envs.errors import UserError
from foreact.envs.waypoints import GRIP_STEPS, MOST, NEAR, Planner


def drive(start: np.ndarray, pose: np.ndarray, planner: Planner, scale: float = 0.01) -> tuple[np.ndarray, int, float]:
    """A hand that moves as it is told, 1 cm a step; returns the state, the steps and the last effort."""
    state, steps, done, effort = start.astype(np.float32).copy(), 0, False, 0.0
    planner.aim()
    while not done:
        action, done = planner.step(state, pose)
        assert np.abs(action).max() <= 1
        state[:3] += scale * action[:3]
        effort = float(action[3])
        state[3] = np.clip(state[3] - 0.05 * effort, 0.35, 1)  # there is something in the gripper
        steps += 1
    return state, steps, effort


@pytest.fixture
def planner() -> Planner:
    return Planner(embodiment("metaworld/reach-v3"))


def test_it_goes_straight_there_and_stops(planner):
    start, pose = np.array([0, 0.6, 0.2, 1.0]), np.array([0.05, 0.65, 0.15, 1.0])
    state, steps, _ = drive(start, pose, planner)
    assert np.linalg.norm(state[:3] - pose[:3]) <= NEAR
    assert steps < MOST


def test_a_far_pose_is_given_up(planner):
    state, steps, _ = drive(np.array([0, 0.6, 0.2, 1.0]), np.array([9, 0.6, 0.2, 1.0]), planner)
    assert steps == MOST
    assert state[0] > 0.2


def test_the_gripper_gets_time_and_then_keeps_its_grip(planner):
    at = np.array([0, 0.6, 0.2, 1.0])
    _, steps, effort = drive(at, np.array([0, 0.6, 0.2, 0.3]), planner)
    assert steps == GRIP_STEPS
    assert effort == 1
    held = np.array([0, 0.6, 0.2, 0.35])
    _, _, effort = drive(held, np.array([0.03, 0.6, 0.25, 0.3]), planner)
    assert effort == 1


def test_another_robot_is_refused():
    arm = embodiment("metaworld/reach-v3")
    robot = dataclasses.replace(arm, action=arm.action[:1], limits=())
    with pytest.raises(UserError, match="train it on raw actions"):
        Planner(robot)


@pytest.mark.sim
@pytest.mark.slow
def test_poses_of_an_expert_reach_the_goal():
    """The expert's own future poses, executed by the planner, press the button as its actions do."""
    env = make("metaworld/button-press-v3")
    successes = 0
    for seed in range(1000, 1005):
        env.reset(seed=seed)
        path, done = [env.state()], False
        while not done and len(path) < 200:
            _, done, _ = env.advance(env.expert_action())
            path.append(env.state())
        env.reset(seed=seed)
        planner, success = Planner(env.embodiment), False
        for pose in [*path[4::4], path[-1], path[-1]]:
            planner.aim()
            reached = False
            while not (reached or success):
                action, reached = planner.step(env.state(), pose)
                _, success, cut = env.advance(action)
                if cut:
                    break
        successes += success
    env.close()
    assert successes >= 4
