"""Entry of a worker process: ``python -m foreact.eval.worker FD REGISTRY``; see `workers.Pool`."""

import faulthandler
import signal
import sys
from multiprocessing.connection import Connection

from .workers import serve


def main() -> None:
    """Serve on the socket that the main process left open at file descriptor FD."""
    faulthandler.enable()
    # Ctrl-C reaches the whole process group; the main process answers it and hangs up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(Connection(int(sys.argv[1])), sys.argv[2])


if __name__ == "__main__":
    main()
