"""An exclusive lock on a file, between processes, that dies with its holder."""

import fcntl
from pathlib import Path
from typing import IO


def lock_file(path: Path, *, wait: bool) -> IO[bytes] | None:
    """Lock `path` (it must exist and be writable) until the returned file is closed or the process ends.

    Returns None where another holder has it and `wait` is false. The kernel frees the lock when the holder
    is killed, so a stale lock cannot happen.
    """
    file = path.open("r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except BaseException:
        file.close()
        raise
    return file
