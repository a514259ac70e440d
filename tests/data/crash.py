"""Run by test_store_faults.py: writers that are killed -9, by chance in time and at every single file operation.

Each writer is a fork of this process, so that a round takes milliseconds and not an import of zarr.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import numpy.ma  # likewise
from foreact.data.schema import fake_episode
from foreact.data.store import Store
from foreact.envs.spec import Camera, Embodiment, Field

ROBOT = Embodiment(
    name="fake",
    cameras=(Camera(name="main", mount="front", height=96, width=96),),  # 256 steps a file
    state=(Field(name="hand", unit="m", low=(-1,) * 3, high=(1,) * 3),),
    action=(Field(name="push", unit="normalised", low=(-1,), high=(1,)),),
    control_hz=20,
)


def episode(i: int):
    return fake_episode(ROBOT, steps=20 + 17 * (i % 3), seed=i, task=f"fake/{i % 2}")


def forked(work, *args) -> int:
    """Process id of a child that does work(*args) and nothing else."""
    child = os.fork()
    if child:
        return child
    try:
        work(*args)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def write_on(path: Path, seen: int, ready: int) -> None:
    """Check what the last writer left, say so, and append until killed."""
    with Store.open(path, mode="a") as store:
        check(store, seen)
        os.write(ready, b"!")
        while True:
            store.append(episode(len(store)))


def append_one(path: Path, seen: int, kill_at: int) -> None:
    """Append an episode; die just before the rename number `kill_at` of a finished file to its place."""
    renames, rename = 0, Path.replace

    def replace(self, target):
        nonlocal renames
        if renames == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        renames += 1
        return rename(self, target)

    with Store.open(path, mode="a") as store:
        check(store, seen)
        Path.replace = replace
        store.append(episode(len(store)))


def check(store: Store, seen: int) -> None:
    """Nothing that was once visible has gone, and what is new is whole."""
    assert len(store) >= seen, (len(store), seen)
    for i in {0, *range(max(0, seen - 1), len(store))} if len(store) else ():
        same(store.episode(i), episode(i))


def same(a, b) -> None:
    for name in ("state", "action", "action_executed"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_array_equal(a.images["main"], b.images["main"])
    assert (a.task, a.instruction, a.seed, a.success) == (b.task, b.instruction, b.seed, b.success)


def length(path: Path) -> int:
    """Episodes by the commit record, without a zarr event loop in this process."""
    root = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    return root["consolidated_metadata"]["metadata"]["meta/seed"]["shape"][0]


def main(path: Path, rounds: int) -> None:
    random.seed(0)
    episode(0)  # loads numpy's generators, which each fork would do again
    assert status(forked(lambda: Store.create(path, ROBOT, privileged=False).close())) == 0
    seen = 0
    for _ in range(rounds):
        listen, ready = os.pipe()
        writer = forked(write_on, path, seen, ready)
        os.close(ready)
        assert os.read(listen, 1) == b"!"  # else it failed: its traceback is on stderr
        os.close(listen)
        time.sleep(random.uniform(0, 0.06))
        os.kill(writer, signal.SIGKILL)
        assert status(writer) == -signal.SIGKILL
        seen = length(path)
    kill_at, died = 0, -signal.SIGKILL
    while died == -signal.SIGKILL:
        died = status(forked(append_one, path, seen, kill_at))
        seen, kill_at = length(path), kill_at + 1
    assert died == 0
    assert status(forked(lambda: check(Store.open(path), 0))) == 0  # every episode once more
    left = [p.name for p in path.rglob("*.partial")]
    assert left == [], left
    print(f"{seen} episodes, {rounds} kills by chance, {kill_at - 1} at file operations")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
