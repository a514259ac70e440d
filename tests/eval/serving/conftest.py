"""An actor, and a policy server in a thread."""

import asyncio
import contextlib
import threading

import pytest
from foreact.eval.actors import PolicyActor


@pytest.fixture
def actor(continuing):
    return PolicyActor(policy=continuing(), batch_shape=4)


@contextlib.contextmanager
def _serving(actor, *, load=None, **settings):
    from foreact.eval.serving.server import Server, ServeSettings

    server, ready = Server(actor, ServeSettings(port=0, **settings), load), threading.Event()
    loop = asyncio.new_event_loop()
    task = loop.create_task(server.run(lambda _: ready.set()))

    def run():
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(60)
        server.loop = loop
        yield server
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        loop.close()
        assert not thread.is_alive()


@pytest.fixture
def serving():
    """Serves an actor from a thread: `with serving(actor, **settings) as server`, which then listens."""
    return _serving
