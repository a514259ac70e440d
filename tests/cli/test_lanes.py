"""Work side by side."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from foreact.cli.lanes import THREADS, side_by_side
from foreact.common.machine import usable_threads
from foreact.envs.errors import UserError


def test_all_is_done_with_a_log_each(tmp_path):
    work = {tmp_path / str(i) / "log.txt": partial(print, f"hello {i}") for i in range(3)}
    assert sorted(side_by_side(work, jobs=2)) == sorted(work)
    assert [log.read_text(encoding="utf-8") for log in work] == ["hello 0\n", "hello 1\n", "hello 2\n"]


def test_they_run_at_the_same_time(tmp_path):
    """Each waits until the other has begun, which would never be with one after the other."""
    meet = "import pathlib, sys, time\nmine, other = map(pathlib.Path, sys.argv[1:])\nmine.touch()\n"
    meet += "while not other.exists(): time.sleep(0.01)"
    pair = (tmp_path / "a", tmp_path / "b")
    work = {
        tmp_path / f"{i}.log": partial(subprocess.run, [sys.executable, "-c", meet, *map(str, ends)], timeout=60)
        for i, ends in enumerate([pair, pair[::-1]])
    }
    assert len(list(side_by_side(work, jobs=2))) == 2


@pytest.mark.parametrize(("given", "expected"), [(None, str(max(1, usable_threads() // 2))), ("7", "7")])
def test_each_has_its_share_of_the_cores(tmp_path, monkeypatch, given, expected):
    monkeypatch.delenv(THREADS, raising=False)
    if given:
        monkeypatch.setenv(THREADS, given)
    log = tmp_path / "log.txt"
    list(side_by_side({log: partial(subprocess.run, f"echo ${THREADS}", shell=True)}, jobs=2))
    assert log.read_text(encoding="utf-8").strip() == expected
    assert os.environ.get(THREADS) == given


def test_a_failure_names_its_folder_and_its_last_words(tmp_path):
    with pytest.raises(UserError, match=r"arm ended with status 1.*\n(.*\n)*.*invalid literal"):
        list(side_by_side({tmp_path / "arm" / "log.txt": partial(int, "x")}, jobs=1))


def test_a_stop_reaches_all_of_them(tmp_path):
    """SIGTERM to the parent ends the children before it ends itself."""
    script = """
import sys, time
from functools import partial
from pathlib import Path
from foreact.cli.lanes import side_by_side
if __name__ == "__main__":
    work = {Path(sys.argv[1]) / name: partial(exec, "import os,time; print(os.getpid(), flush=True); time.sleep(60)")
            for name in "ab"}
    try:
        list(side_by_side(work, jobs=2))
    except KeyboardInterrupt as stop:
        sys.exit(str(stop))
"""
    (tmp_path / "main.py").write_text(script, encoding="utf-8")
    parent = subprocess.Popen([sys.executable, tmp_path / "main.py", tmp_path], stderr=subprocess.PIPE, text=True)
    logs = [tmp_path / name for name in "ab"]
    until = time.monotonic() + 30
    while not all(log.is_file() and log.read_text(encoding="utf-8") for log in logs) and time.monotonic() < until:
        time.sleep(0.05)
    parent.send_signal(signal.SIGTERM)
    said = parent.communicate(timeout=30)[1]
    assert "goes on from there" in said
    for log in logs:
        with pytest.raises(ProcessLookupError):
            os.kill(json.loads(log.read_text(encoding="utf-8").split()[0]), 0)
