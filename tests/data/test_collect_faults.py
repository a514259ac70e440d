"""Collecting that is killed, interrupted or shared: what is then in the store, and who still runs."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from foreact import envs
from foreact.data.collect import collect
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.envs.spec import Camera

from .toys import content, run

SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # in a background job it is ignored
sys.path.insert(0, {folder!r})
import toys
toys.Toy.seconds_a_step = 0.002
toys.use_toys(setattr)
toys.run({path!r}, ["toy/odd", "toy/go"], 3)
"""


def test_killed_at_any_moment_the_same_command_continues(toys, tmp_path):
    script = SCRIPT.format(folder=str(Path(__file__).parent), path=str(tmp_path / "killed"))
    held = 0
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script])
        while process.poll() is None and _episodes(tmp_path / "killed") <= held:
            time.sleep(0.003)
        process.kill()
        process.wait()
        assert _episodes(tmp_path / "killed") >= held  # nothing whole is lost
        held = _episodes(tmp_path / "killed")
    resumed = run(tmp_path / "killed", ["toy/odd", "toy/go"], 3)
    assert content(resumed) == content(run(tmp_path / "whole", ["toy/odd", "toy/go"], 3))


def test_ctrl_c_leaves_a_valid_store(toys, tmp_path):
    script = SCRIPT.format(folder=str(Path(__file__).parent), path=str(tmp_path / "s"))
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script], stderr=subprocess.PIPE, text=True)
    while _episodes(tmp_path / "s") < 1:
        assert process.poll() is None
        time.sleep(0.003)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate()[1]
    with Store.open(tmp_path / "s", "a") as store:
        assert len(store) >= 1


def _episodes(path):
    with contextlib.suppress(UserError):
        return len(Store.open(path))
    return 0


SMALL = [Camera(name="main", mount="corner2", height=24, width=24, flip="rot180")]


@pytest.mark.slow
@pytest.mark.sim
def test_the_number_of_workers_changes_nothing(tmp_path):
    one = collect(["reach-v3", "push-v3"], 1, tmp_path / "a", workers=1, cameras=SMALL, progress=False)
    two = collect(["reach-v3", "push-v3"], 1, tmp_path / "b", workers=2, cameras=SMALL, progress=False)
    assert content(one) == content(two)
    assert two.instructions["metaworld/push-v3"] == envs.task("push-v3").instruction
    assert two.embodiment.cameras == tuple(SMALL)


@pytest.mark.sim
@pytest.mark.slow
def test_workers_end_with_a_killed_parent(tmp_path):
    script = f"""
from foreact.data.collect import collect
from foreact.envs.spec import Camera
if __name__ == "__main__":
    cameras = [Camera(name="main", mount="corner2", height=24, width=24, flip="rot180")]
    collect(["reach-v3"], 500, {str(tmp_path / "s")!r}, workers=2, cameras=cameras, progress=False)
"""
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    process = subprocess.Popen([sys.executable, str(tmp_path / "script.py")], start_new_session=True)
    while _episodes(tmp_path / "s") < 1:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while _alive_in_session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive_in_session(process.pid)
    whole = _episodes(tmp_path / "s")
    with Store.open(tmp_path / "s", "a") as store:
        assert len(store) == whole


def _alive_in_session(session):
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if entry.name.isdigit() and os.getsid(int(entry.name)) == session:
                state = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
                found += [entry.name] if state != "Z" else []
    return found
