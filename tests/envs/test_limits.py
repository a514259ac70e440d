import json

import pytest
from foreact import envs
from foreact.envs.errors import UserError
from foreact.envs.limits import Limit
from foreact.envs.spec import Embodiment, Field


def robot(*limits, low=-1.0):
    return Embodiment(
        name="arm",
        cameras=(),
        state=(Field(name="joint", unit="rad", low=(-3, -3), high=(3, 3)),),
        action=(Field(name="move", unit="rad", low=(low, low), high=(1, 1)),),
        control_hz=20,
        limits=limits,
    )


ROW = Limit(field="move", kind="delta", drives="joint", scale=0.1, low=(-2, -1), high=(2, 1), velocity=1.5)


def test_a_table_survives_json():
    made = robot(ROW)
    assert Embodiment.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_a_robot_from_before_there_were_limits_has_none_and_is_written_as_it_was():
    before = robot().to_dict()
    assert "limits" not in before
    assert Embodiment.from_dict(before).limits == ()


def test_limits_are_no_difference_between_a_policy_and_a_robot():
    assert robot().differences(robot(ROW)) == []


@pytest.mark.parametrize("suite", sorted(envs.SUITES))
def test_a_robot_with_limits_has_a_row_for_each_action(suite):
    embodiment = envs.SUITES[suite].embodiment
    assert {limit.field for limit in embodiment.limits} == {field.name for field in embodiment.action}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "jump"}, "unknown kind of limit for field 'move': 'jump'; choose one of: delta, effort, target"),
        ({"velocity": 0.0}, "velocity must be above 0, got 0.0"),
        ({"acceleration": float("nan")}, "acceleration must be above 0"),
        ({"scale": -1.0}, "scale must be above 0, got -1.0"),
        ({"low": (1, 1), "high": (0, 2)}, "is no box"),
        ({"low": (1,)}, "is no box"),
        ({"drives": ""}, "a workspace is of a field of the state"),
        ({"drives": "", "kind": "target", "low": (), "high": ()}, "a target is of a field of the state"),
        ({"force": 1.0}, "a delta has no force"),
        ({"kind": "effort"}, "an effort has a force, and no place"),
    ],
)
def test_a_row_that_makes_no_sense_says_so(settings, message):
    with pytest.raises(UserError, match=message):
        Limit(**{**vars(ROW), **settings})


@pytest.mark.parametrize(
    ("rows", "low", "message"),
    [
        ((Limit(field="turn", kind="effort"),), -1.0, "unknown action field in the limits of 'arm': 'turn'"),
        ((ROW, ROW), -1.0, "two limits are of one field"),
        ((Limit(field="move", kind="delta", drives="hand"),), -1.0, "unknown state field"),
        (
            (Limit(field="move", kind="target", drives="joint", low=(0,), high=(1,)),),
            -1.0,
            "a box of 1 for 2 components",
        ),
        ((ROW,), 0.5, "leave no delta of 0"),
    ],
)
def test_a_table_that_does_not_fit_its_robot_says_so(rows, low, message):
    with pytest.raises(UserError, match=message):
        robot(*rows, low=low)
