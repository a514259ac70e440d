"""No sequence of actions gets past a limit: the limiter against an independent referee, on robots of every kind."""

import numpy as np
import pytest
from foreact.envs.errors import UserError
from foreact.envs.limits import Limit
from foreact.envs.spec import Embodiment, Field
from foreact.eval.robot.limiter import LIMITS, Limiter, longest
from foreact.eval.robot.referee import Referee
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

HZ = 20


def field(name, size, low, high):
    return Field(name=name, unit="m", low=(low,) * size, high=(high,) * size)


def robot(kind, *, scale=1.0, box=True, velocity=None, acceleration=None, force=0.5):
    walls = {"low": (-0.8, -0.5), "high": (0.6, 0.9)} if box else {}
    move = Limit(
        field="move", kind=kind, drives="place", scale=scale, velocity=velocity, acceleration=acceleration, **walls
    )
    return Embodiment(
        name="arm",
        cameras=(),
        state=(field("opening", 1, 0, 1), field("place", 2, -1, 1)),
        action=(field("move", 2, -1, 1), field("grip", 1, -1, 1)),
        control_hz=HZ,
        limits=(move, Limit(field="grip", kind="effort", force=force)),
    )


rates = st.one_of(st.none(), st.floats(0.05, 100))
robots = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["delta", "target"]),
        "scale": st.floats(0.02, 10),
        "box": st.booleans(),
        "velocity": rates,
        "acceleration": st.one_of(st.none(), st.floats(0.05, 1000)),
    }
)
actions = hn.arrays(
    np.float64,
    st.tuples(st.integers(1, 40), st.just(3)),
    elements=st.one_of(st.floats(-2, 2), st.floats(-1e300, 1e300), st.sampled_from([np.inf, -np.inf])),
)


def drive(robot, actions, start, follows=1.0, without=()):
    """What the robot is sent, and the referee's count; the robot goes the share `follows` of what it is told."""
    limiter, referee = Limiter(robot, HZ, without), Referee(robot, HZ)
    kind, scale = robot.limits[0].kind, robot.limits[0].scale
    state = np.concatenate([[0.5], start])
    limiter.begin(state)
    sent = []
    for action in actions:
        allowed, _ = limiter.limit(action, state)
        referee.see(allowed, state)
        sent.append(allowed)
        goal = scale * allowed[:2].astype(float)
        state = state + follows * np.concatenate([[0], goal if kind == "delta" else goal - state[1:]])
    return np.stack(sent), {rule: n for rule, n in referee.violations.items() if n}


@pytest.mark.parametrize("examples", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_sequence_of_actions_gets_past_a_limit(examples):
    settings(max_examples=examples)(given(robots, actions, st.floats(-0.5, 0.5), st.floats(0, 1))(holds))()


def holds(made, actions, start, follows):
    if made["kind"] == "target":
        start *= min(1.0, made["scale"])  # within what a target can name
    sent, violations = drive(robot(**made), actions, np.array([start, start]), follows)
    assert violations == {}
    assert sent.dtype == np.float32
    assert np.isfinite(sent).all()


@settings(max_examples=40)
@given(robots, actions, hn.arrays(np.float64, (40, 3), elements=st.floats(-3, 3)))
def test_wherever_the_robot_is_pushed_bounds_workspace_and_force_hold(made, actions, states):
    arm = robot(**made)
    limiter, referee = Limiter(arm, HZ), Referee(arm, HZ)
    limiter.begin(np.zeros(3))
    for action, state in zip(actions, states, strict=False):
        referee.see(limiter.limit(action, state)[0], state)
    assert {rule for rule, n in referee.violations.items() if n} <= {"velocity", "acceleration"}


@given(st.floats(0, 1e3), st.floats(1e-3, 1e3))
def test_the_longest_move_can_just_be_braked(room, brake):
    move = float(longest(np.array([room]), np.array([brake]))[0])
    stops = np.maximum(move - brake * np.arange(int(move / brake) + 2), 0).sum()
    assert stops == pytest.approx(room, rel=1e-6, abs=1e-9)


def test_what_is_allowed_already_is_not_touched():
    wanted = np.array([[0.1, 0.0, 0.2], [0.1, -0.1, 0.2], [0.0, -0.1, -0.2]], np.float32)
    for kind in ("delta", "target"):
        sent, _ = drive(robot(kind, velocity=100.0, acceleration=1e5), wanted, np.zeros(2))
        np.testing.assert_array_equal(sent, wanted)


def test_the_names_of_what_was_changed_are_told():
    limiter = Limiter(robot("delta", scale=0.5, velocity=2.0, acceleration=8.0), HZ)
    limiter.begin(np.zeros(3))
    _, changes = limiter.limit(np.array([1.0, 0.0, 0.9]), np.zeros(3))
    assert [(rule, where) for rule, where, _, _ in changes] == [("acceleration", "move"), ("force", "grip")]
    (_, _, asked, allowed), (_, _, effort, held) = changes
    assert (asked, allowed) == pytest.approx((1.0, 8.0 / HZ**2 / 0.5))
    assert (effort, held) == (0.9, 0.5)


ONLY = {
    "acceleration": {"acceleration": 1.0, "box": False},
    "velocity": {"velocity": 0.2, "box": False},
    "bounds": {"box": False},
    "workspace": {},
    "force": {"box": False},
}


@pytest.mark.parametrize("rule", LIMITS)
def test_each_limit_is_turned_off_by_its_name_and_no_other_with_it(rule):
    wild = np.array([[1.0, 1.0, 1.0]] * 5 + [[-9.0, -9.0, -9.0]] * 5)
    arm = robot("delta", scale=0.5, **ONLY[rule])
    assert drive(arm, wild, np.zeros(2))[1] == {}
    assert set(drive(arm, wild, np.zeros(2), without=[rule])[1]) == {rule}


def test_a_rest_holds_targets_and_efforts_and_brakes_deltas():
    for kind, rest in (("delta", [0, 0]), ("target", [0.3, -0.2])):
        limiter = Limiter(robot(kind), HZ)
        limiter.begin(np.zeros(3))
        limiter.limit(np.array([0.3, -0.2, 0.4]), np.zeros(3))
        np.testing.assert_allclose(limiter.rest(), [*rest, 0.4], atol=1e-12)


def test_a_robot_outside_its_workspace_does_not_begin():
    with pytest.raises(UserError, match=r"move begins outside its workspace: 0.95 is not in -0.5 to 0.9"):
        Limiter(robot("delta"), HZ).begin(np.array([0, 0, 0.95]))
    Limiter(robot("delta"), HZ, without=["workspace"]).begin(np.array([0, 0, 0.95]))


def test_a_robot_without_a_table_is_not_moved():
    bare = Embodiment(
        name="arm", cameras=(), state=(field("place", 2, -1, 1),), action=(field("move", 2, -1, 1),), control_hz=HZ
    )
    with pytest.raises(UserError, match="robot 'arm' has no limits for its action move: give limits=FILE"):
        Limiter(bare, HZ)
