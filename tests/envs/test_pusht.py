"""PushT's own parts: the T's shape, its picture, and the geometry that its pusher plans with."""

from dataclasses import replace

import numpy as np
import pytest
from foreact import envs
from foreact.envs import pusht_expert as pusher
from foreact.envs.pusht_tasks import CAMERA
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.sim

coordinate = st.floats(-200, 250)


@pytest.fixture(scope="module")
def env():
    return envs.make("pusht")


def test_the_outline_is_the_simulators(env):
    env.reset(seed=0)
    vertices = {(round(v.x), round(v.y)) for shape in env._sim.block.shapes for v in shape.get_vertices()}
    assert {(int(x), int(y)) for x, y in pusher.OUTLINE} == vertices | {(15, 30), (-15, 30)}
    centre = env._sim.block.center_of_gravity
    assert np.allclose(pusher.CENTRE, [centre.x, centre.y])
    assert {s.radius for s in env._sim.agent.shapes} == {pusher.RADIUS}


@given(coordinate, coordinate)
def test_the_distance_to_the_outline_is_shapelys(x, y):
    shapely = pytest.importorskip("shapely")
    ring = shapely.LinearRing(pusher.OUTLINE)
    assert pusher.distance(np.array([[x, y]]))[0] == pytest.approx(ring.distance(shapely.Point(x, y)), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_picture_is_the_simulators(env, seed):
    """At its own size but for the edges of things, which it draws without smoothing."""
    env.reset(seed=seed)
    ours = env._draw(replace(CAMERA, height=512, width=512))[0].astype(int)
    theirs = env._draw(replace(CAMERA, height=512, width=512, look="reference"))[0].astype(int)
    assert (np.abs(ours - theirs).max(-1) > 40).mean() < 0.02
    small = env._draw(replace(CAMERA, height=48, width=64))[0]
    assert small.shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": True}, "it has no depth"),
        ({"fovy": 45.0}, "fovy=45.0"),
        ({"flip": "rot180"}, "flip='rot180'"),
        ({"mount": "wrist"}, "choose one of: board"),
    ],
)
def test_what_a_flat_picture_cannot_be_is_refused(change, message):
    with pytest.raises(envs.UserError, match=message):
        envs.make("pusht", cameras=[replace(CAMERA, **change)])


@pytest.mark.parametrize("angle", [0.0, 1.0, -2.5])
def test_a_push_moves_the_t_as_the_planner_thinks(env, angle):
    """The pusher against each edge: the T's twist has the direction that its inertia and the contact say."""
    for contact in pusher._CONTACTS[:: max(1, len(pusher._CONTACTS) // 8)]:
        env.reset(seed=0)
        sim = env._sim
        sim.block.angle = angle
        sim.block.position = (256.0, 256.0)
        turn = pusher._rotation(angle)
        normal = pusher._NORMALS[contact.edge]
        point = pusher.OUTLINE[contact.edge] + contact.along * pusher._DIRECTIONS[contact.edge]
        sim.agent.position = tuple(sim.block.position + turn @ (point + (pusher.RADIUS + 0.5) * normal))
        sim.agent.velocity = (0.0, 0.0)
        before, centre = sim.block.angle, np.array(sim.block.local_to_world(sim.block.center_of_gravity))
        env.advance(np.array(sim.agent.position) - turn @ normal * 8)
        moved = turn.T @ (np.array(sim.block.local_to_world(sim.block.center_of_gravity)) - centre)
        lever = point - pusher.CENTRE
        torque = -(lever[0] * normal[1] - lever[1] * normal[0])
        along = float(moved @ -normal)
        assert along > 0.5
        expected = along * torque / (sim.block.moment / sim.block.mass)
        assert sim.block.angle - before == pytest.approx(expected, abs=0.012)
