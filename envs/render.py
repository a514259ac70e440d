"""Offscreen MuJoCo rendering in two looks: `fast` to collect and act, `reference` (and `stock`) as the simulator draws.

On a software rasteriser a Metaworld frame spends almost all of its time on what a policy does not need: a
4096-pixel shadow map, a mirrored copy of the scene for each of five reflecting surfaces, and four samples a
pixel. `fast` leaves these out.
"""

import atexit
import contextlib
import os
import sys
import weakref
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from .errors import UserError, choose
from .spec import Camera

_INSTALL = {
    "egl": "sudo apt-get install -y libegl1 libgl1",
    "osmesa": "sudo apt-get install -y libosmesa6",
    "glfw": "sudo apt-get install -y libgl1 libglfw3, and a display; or set MUJOCO_GL=egl",
}
_INSTALL_MUJOCO = 'pip install "foreact[sim]" (Metaworld) or "foreact[robots]" (the others)'
_OFF = {"disable", "disabled", "off", "false", "0"}
_MAX_GEOMS = 1000


def gl_backend() -> str:
    """The GL library that MuJoCo draws with: on Linux EGL, needing no display, unless MUJOCO_GL is set."""
    if sys.platform.startswith("linux"):
        os.environ.setdefault("MUJOCO_GL", "egl")
    return os.environ.get("MUJOCO_GL", "").lower().strip()


def import_mujoco() -> Any:
    """Import `mujoco` with the GL library chosen first. Raises `UserError` with the install command."""
    backend = gl_backend()
    try:
        import mujoco
    except ModuleNotFoundError as error:
        if error.name != "mujoco":
            raise _gl_error(backend, error) from error
        raise UserError(f"MuJoCo is not installed; mend: {_INSTALL_MUJOCO}") from error
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise _gl_error(backend, error) from error
    return mujoco


def mend_drawing(backend: str, error: str) -> str:
    """How to mend that MuJoCo cannot draw with a GL library, from what it said."""
    if "No module named 'mujoco'" in error:
        return _INSTALL_MUJOCO
    if "MUJOCO_EGL_DEVICE_ID" in error:
        return "unset MUJOCO_EGL_DEVICE_ID, or set it to a device that there is"
    if backend in _OFF:
        return "export MUJOCO_GL=egl"
    return _INSTALL.get(backend, f"export MUJOCO_GL=egl; {_INSTALL['egl']}")


def _gl_error(backend: str, error: Exception) -> UserError:
    return UserError(
        f"no GL library to draw with: MUJOCO_GL={backend or 'unset'} gives {type(error).__name__}: {error}. "
        f"Mend: {mend_drawing(backend, str(error))} (or set MUJOCO_GL=disabled, for physics without pictures)"
    )


def _gl_context(width: int, height: int) -> Any:
    backend = gl_backend()
    if backend in _OFF:
        raise UserError(f"cannot draw: MUJOCO_GL={backend} switches rendering off; mend: export MUJOCO_GL=egl")
    try:
        if backend == "egl":  # also where mujoco was imported earlier with another library chosen
            from mujoco.egl import GLContext
        elif backend == "osmesa":
            from mujoco.osmesa import GLContext
        else:
            from mujoco.gl_context import GLContext
        context = GLContext.__new__(GLContext)
        context._context = None  # else a context that cannot be had complains once more when it is collected
        context.__init__(width, height)
        context.make_current()
    except Exception as error:  # PyOpenGL's own error classes cannot be imported where the library is missing
        raise _gl_error(backend, error) from error
    return context


class Renderer:
    """Draws the cameras of one MuJoCo model: one GL context, and one drawing context for each look in use.

    For one thread at a time. `close` frees everything, may be called twice, and is called at exit.
    """

    def __init__(self, model: Any, cameras: Sequence[Camera]):
        self._mujoco = import_mujoco()
        self._model = model
        self._mounts = {camera.name: mount(model, camera) for camera in cameras}
        self._looks: dict[str, _Look] = {}
        self._gl = _gl_context(max(c.drawn[1] for c in cameras), max(c.drawn[0] for c in cameras))
        _open.add(self)
        _close_at_exit()
        by_look = {camera.look: [c for c in cameras if c.look == camera.look] for camera in cameras}
        for look, group in by_look.items():
            self._looks[look] = _Look(self._mujoco, model, look, group)
        self._view = self._mujoco.MjvCamera()
        self._view.type = self._mujoco.mjtCamera.mjCAMERA_FIXED
        self._option = self._mujoco.MjvOption()
        self._perturb = self._mujoco.MjvPerturb()

    def render(self, data: Any, camera: Camera) -> tuple[np.ndarray, np.ndarray | None]:
        """One camera's picture (H, W, 3) uint8, upright, and its depth (H, W) float32 [m] if it has any.

        Depth is that of the pixel's centre in the fast look, of one of its samples in the reference look.
        """
        if self._gl is None:
            raise RuntimeError("Renderer.render called after close")
        self._gl.make_current()  # another renderer of this process may have been current
        look, index = self._looks[camera.look], self._mounts[camera.name]
        self._view.fixedcamid = index
        everything = self._mujoco.mjtCatBit.mjCAT_ALL
        with _placed(self._model, data, index, camera):
            self._mujoco.mjv_updateScene(
                self._model, data, self._option, self._perturb, self._view, everything, look.scene
            )
        rgb, depth = look.draw(camera)
        return upright(rgb, camera), None if depth is None else upright(self._metres(depth), camera)

    def _metres(self, depth: np.ndarray) -> np.ndarray:
        """Depth buffer (1 near, 0 far) to metres along the camera's axis; the sky is at the far plane."""
        extent = self._model.stat.extent
        near, far = self._model.vis.map.znear * extent, self._model.vis.map.zfar * extent
        return (near * far / (near + depth.astype(np.float64) * (far - near))).astype(np.float32)

    def close(self) -> None:
        """Free the drawing contexts while their GL context is current, then the GL context itself."""
        if self._gl is None:
            return
        self._gl.make_current()
        for look in self._looks.values():
            look.free()
        self._gl.free()
        self._gl = None
        _open.discard(self)


class _Look:
    """One look's drawing context and scene, and the flags that make the look."""

    def __init__(self, mujoco: Any, model: Any, look: str, cameras: Sequence[Camera]):
        self._mujoco = mujoco
        with _settings(model, look, max(c.drawn[1] for c in cameras), max(c.drawn[0] for c in cameras)):
            self.context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        self.context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self.scene = mujoco.MjvScene(model, _MAX_GEOMS)
        if look == "fast":
            self.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
            self.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False

    def draw(self, camera: Camera) -> tuple[np.ndarray, np.ndarray | None]:
        """The raw picture as GL gives it, lowest row first, and the raw depth buffer."""
        height, width = camera.drawn
        rect = self._mujoco.MjrRect(0, 0, width, height)
        rgb = np.empty((height, width, 3), np.uint8)
        depth = np.empty((height, width), np.float32) if camera.depth else None
        self._mujoco.mjr_setBuffer(self._mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self.context)
        self._mujoco.mjr_render(rect, self.scene, self.context)
        self._mujoco.mjr_readPixels(rgb, depth, rect, self.context)
        if camera.source is not None:
            rgb = np.asarray(Image.fromarray(rgb).resize((camera.width, camera.height), Image.Resampling.BOX))
        return rgb, depth

    def free(self) -> None:
        self.context.free()


@contextlib.contextmanager
def _settings(model: Any, look: str, width: int, height: int) -> Iterator[None]:
    """The model's visual settings as a drawing context of this look reads them, put back afterwards."""
    size, quality = model.vis.global_, model.vis.quality
    kept = size.offwidth, size.offheight, quality.offsamples, quality.shadowsize
    size.offwidth, size.offheight = width, height
    if look == "fast":
        quality.offsamples = quality.shadowsize = 0
    yield
    size.offwidth, size.offheight, quality.offsamples, quality.shadowsize = kept


@contextlib.contextmanager
def _placed(model: Any, data: Any, index: int, camera: Camera) -> Iterator[None]:
    """The mount with the camera's pose and field of view, put back afterwards: cameras may share one."""
    position, fovy = data.cam_xpos[index].copy(), model.cam_fovy[index]
    if camera.pos is not None:
        data.cam_xpos[index] = camera.pos
    if camera.fovy is not None:
        model.cam_fovy[index] = camera.fovy
    yield
    data.cam_xpos[index], model.cam_fovy[index] = position, fovy


def mount(model: Any, camera: Camera) -> int:
    """The index of the scene's camera that `camera` names. Raises `UserError` that lists them."""
    names = [model.camera(i).name for i in range(model.ncam)]
    return names.index(choose(camera.mount, names, f"mount (camera {camera.name!r})"))


def upright(raw: np.ndarray, camera: Camera) -> np.ndarray:
    """A raw GL picture (lowest row first) as a person sees it."""
    return np.ascontiguousarray(raw[::-1] if camera.flip == "none" else raw[:, ::-1])


_open: weakref.WeakSet[Renderer] = weakref.WeakSet()


@cache
def _close_at_exit() -> None:
    """Once, after the first context: handlers run last first, so ours before MuJoCo ends the display."""
    atexit.register(_close_all)


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()
