"""Pictures: looks, poses, flips, depth, and renderers that leave nothing behind."""

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from foreact import envs
from foreact.envs import render
from foreact.envs.metaworld import bare
from foreact.envs.metaworld_tasks import CAMERA

pytestmark = pytest.mark.sim


def picture(make, camera: envs.Camera, name: str = "button-press-v3") -> np.ndarray:
    return make(name, cameras=[camera]).reset(seed=1000)[0]["images"][camera.name]


@pytest.fixture(scope="module")
def own():
    """Metaworld's own environment with lerobot's camera, at the start of an episode."""
    sim = bare("button-press-v3", render_mode="rgb_array", camera_name="corner2", width=96, height=96)
    sim.model.camera("corner2").pos = CAMERA.pos
    sim.seed(1000)
    sim.reset()
    yield sim
    sim.close()


def test_reference_is_the_simulators_own_picture_turned_upright(make, own):
    import mujoco

    ours = picture(make, replace(CAMERA, look="reference"))
    mujoco.mj_forward(own.model, own.data)
    own.render()
    own.mujoco_renderer.viewer.make_context_current()
    theirs = own.render()[::-1, ::-1]
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_fast_shows_the_same_scene(make):
    fast = picture(make, CAMERA).astype(int)
    difference = np.abs(fast - picture(make, replace(CAMERA, look="reference"))).mean()
    assert 1 < difference < 25  # shadows, reflections and edges, out of 255


def test_upright_means_the_table_is_below_and_the_robot_left(make):
    image = picture(make, CAMERA)
    assert image[:20, 60:].std() < 3  # the plain wall
    red = (image[..., 0].astype(int) - image[..., 1] > 60).astype(float)
    assert red[:, :48].sum() > 5 * red[:, 72:].sum()


def test_flip_none_is_the_raw_picture(make):
    turned = picture(make, CAMERA)
    raw = picture(make, replace(CAMERA, flip="none"))
    assert np.array_equal(raw[::-1, ::-1], turned)


def test_cameras_of_one_environment_share_a_mount_and_mix_looks_and_sizes(make):
    cameras = (
        CAMERA,
        replace(CAMERA, name="plain", look="reference", height=48, width=64),
        replace(CAMERA, name="stock", pos=None),
        replace(CAMERA, name="near", fovy=20.0),
        envs.Camera(name="wrist", mount="gripperPOV", width=32, height=32),
    )
    together = make("button-press-v3", cameras=cameras).reset(seed=1000)[0]["images"]
    assert {name: image.shape for name, image in together.items()} == {c.name: (c.height, c.width, 3) for c in cameras}
    assert np.array_equal(together["main"], picture(make, CAMERA))
    assert np.array_equal(together["near"], picture(make, cameras[3]))
    assert len({together[name].tobytes() for name in ("main", "stock", "near")}) == 3


@pytest.mark.parametrize(("look", "flip"), [("fast", "rot180"), ("reference", "none")])
def test_depth_is_metres_and_flips_with_the_picture(make, look, flip):
    """Against MuJoCo's own ray casting, at pixels spread over the picture."""
    import mujoco

    camera = replace(CAMERA, look=look, flip=flip, depth=True)
    env = make("button-press-v3", cameras=[camera])
    obs, _ = env.reset(seed=1000)
    assert env.observation_space.contains(obs)
    depth = obs["depth"]["main"]
    model, data = env._sim.model, env._sim.data
    if flip == "rot180":
        depth = depth[::-1, ::-1]
    axes = data.camera("corner2").xmat.reshape(3, 3)
    half = np.tan(np.radians(model.camera("corner2").fovy[0]) / 2)
    errors = []
    for row, column in np.ndindex(12, 12):
        x, y = ((column * 8 + 4.5) / 48 - 1) * half, (1 - (row * 8 + 4.5) / 48) * half
        ray = axes @ (x, y, -1.0)
        groups = np.array([1, 1, 1, 0, 0, 0], np.uint8)
        hit = mujoco.mj_ray(model, data, np.array(CAMERA.pos), ray, groups, 1, -1, np.zeros(1, np.int32))
        if hit > 0:  # distance in units of the ray's length, whose part along the axis is 1 m
            errors.append(abs(hit - depth[row * 8 + 4, column * 8 + 4]))
    assert len(errors) > 60
    # With several samples a pixel the depth is that of one of them, a quarter of a pixel off its centre.
    assert np.median(errors) < (1e-3 if look == "fast" else 6e-3)


def test_an_unknown_mount_lists_the_scenes_cameras(make):
    with pytest.raises(envs.UserError, match=r"mount \(camera 'main'\) 'ceiling'; choose one of: .*corner2"):
        make("reach-v3", cameras=[replace(CAMERA, mount="ceiling")])


def test_two_environments_draw_in_turn(make):
    first, second = make("button-press-v3"), make("reach-v3")
    alone = first.reset(seed=1)[0]["images"]["main"]
    second.reset(seed=1)
    assert np.array_equal(first.observe()["images"]["main"], alone)
    second.close()
    assert np.array_equal(first.observe()["images"]["main"], alone)


def test_draw_after_close_begins_anew(make):
    env = make("button-press-v3")
    before = env.reset(seed=1)[0]["images"]["main"]
    env.close()
    assert np.array_equal(env.observe()["images"]["main"], before)


@pytest.mark.slow
def test_no_leak_over_200_resets(make):
    env = make("button-press-v3")
    for seed in range(20):
        env.reset(seed=seed)
    files, memory = _open_files(), _memory()
    for seed in range(200):
        env.reset(seed=seed)
    assert _open_files() == files
    assert _memory() - memory < 8_000_000  # bytes; one leaked picture a reset would be 5.5 MB, one scene 100


@pytest.mark.slow
def test_no_leak_over_30_environments(make):
    def cycle():
        env = envs.make("button-press-v3")
        env.reset(seed=0)
        env.close()

    for _ in range(5):
        cycle()
    files, memory = _open_files(), _memory()
    for _ in range(30):
        cycle()
    assert _open_files() <= files + 1
    assert _memory() - memory < 60_000_000


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _memory() -> int:
    """Resident bytes now (Linux)."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * resource.getpagesize()


ENDINGS = {"": 0, "raise SystemExit(3)": 3, "raise KeyError('mine')": 1}


@pytest.mark.parametrize("ending", [pytest.param(e, marks=pytest.mark.slow if e else ()) for e in ENDINGS])
def test_leaving_the_interpreter_without_close_is_silent(ending):
    code = f"""
from foreact import envs
kept = [envs.make(name) for name in ("button-press-v3", "reach-v3")]
for env in kept:
    env.reset(seed=0)
kept.append(kept)
{ending}
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert "Exception ignored" not in done.stderr
    assert "GL" not in done.stderr
    assert done.returncode == ENDINGS[ending]
    assert ("KeyError" in done.stderr) == ("KeyError" in ending)


def test_a_missing_gl_library_says_what_to_install(monkeypatch, make):
    import mujoco.egl

    def fail(self, *size):
        raise ImportError("Cannot initialize a EGL device display")

    monkeypatch.setattr(mujoco.egl.GLContext, "__init__", fail)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(envs.UserError, match=r"MUJOCO_GL=egl gives ImportError.*apt-get install -y libegl1"):
        make("reach-v3").reset(seed=0)


def test_a_gl_library_that_cannot_be_loaded_says_what_to_install():
    code = """
from foreact import envs
try:
    envs.make("reach-v3")
except envs.UserError as error:
    print(error)
"""
    env = {**os.environ, "MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "glx"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert "sudo apt-get install -y libegl1" in done.stdout, done.stderr


def test_physics_without_pictures(make, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    env = make("reach-v3", cameras=())
    assert env.reset(seed=0)[0]["images"] == {}
    with pytest.raises(envs.UserError, match="MUJOCO_GL=disabled switches rendering off"):
        make("reach-v3").reset(seed=0)


def test_egl_is_the_default_on_linux(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert render.gl_backend() == "egl"
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert render.gl_backend() == "osmesa"
