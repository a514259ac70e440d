"""How fast pictures are drawn: Metaworld's own renderer against ours, in one run, on one core."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from ... import envs
from ...envs.errors import UserError
from ...envs.metaworld import bare
from ...envs.metaworld_tasks import CAMERA

_SLICE = 0.5  # seconds at a time for each renderer in turn, so that a busy machine slows all alike
_SEED = 1000


@dataclass(kw_only=True)
class Rate:
    """Frames drawn and seconds spent by one renderer."""

    name: str
    draw: Callable[[], object]
    begin: Callable[[], object] = lambda: None  # before each slice
    frames: int = 0
    seconds: float = 0.0

    @property
    def fps(self) -> float:
        """Frames a second so far."""
        return self.frames / self.seconds

    def run(self, seconds: float) -> None:
        """Draw for that long, one frame at least."""
        self.begin()
        start = time.perf_counter()
        while not self.frames or time.perf_counter() - start < seconds:
            self.draw()
            self.frames += 1
        self.seconds += time.perf_counter() - start


def bench_render(task: str = "button-press-v3", seconds: float = 5.0, size: int = 96) -> None:
    """Print frames/s of Metaworld's own renderer and of our two looks, and the ratio fast / Metaworld's own.

    The same view of the same scene at `size` x `size`, for `seconds` each.
    """
    with one_core(), ExitStack() as stack:
        rates = [
            _own(task, size, stack),
            _ours(task, size, "reference", stack),
            _ours(task, size, "fast", stack),
        ]
        for _ in range(max(1, round(seconds / _SLICE))):
            for rate in rates:
                rate.run(min(seconds, _SLICE))
    print(f"{envs.resolve(task)}, {size} x {size} pixels, one core, {os.environ.get('MUJOCO_GL')}")
    print(f"{'renderer':<18} {'frames/s':>9} {'ms/frame':>9} {'frames':>7}")
    for rate in rates:
        print(f"{rate.name:<18} {rate.fps:>9.1f} {1000 / rate.fps:>9.2f} {rate.frames:>7d}")
    print(f"ratio {rates[-1].fps / rates[0].fps:.1f}x")


def _own(task: str, size: int, stack: ExitStack) -> Rate:
    """Metaworld's renderer as its users get it, with the camera moved as ours is."""
    found = envs.task(task)
    if not found.id.startswith("metaworld/"):
        raise UserError(f"bench render compares with Metaworld's own renderer; {found.id} is not its task")
    sim = bare(found.name, render_mode="rgb_array", camera_name=CAMERA.mount, width=size, height=size)
    stack.callback(sim.close)
    sim.model.camera(CAMERA.mount).pos = CAMERA.pos
    sim.seed(_SEED)
    sim.reset()
    sim.render()  # builds the drawing context, as the reset of our environments does
    viewer = sim.mujoco_renderer.viewer  # draws into whatever context is current: make it its own
    return Rate(name="Metaworld's own", draw=sim.render, begin=viewer.make_context_current)


def _ours(task: str, size: int, look: envs.Look, stack: ExitStack) -> Rate:
    env = envs.make(task, cameras=[replace(CAMERA, height=size, width=size, look=look)])
    stack.callback(env.close)
    env.reset(seed=_SEED)
    return Rate(name=f"foreact {look}", draw=env.render)


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process and the threads that it starts from now on to one core, where the system can."""
    os.environ["LP_NUM_THREADS"] = "1"  # Mesa's software renderer
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
