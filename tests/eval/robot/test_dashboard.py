import json
import shutil
import subprocess
import urllib.error
import urllib.request

import numpy as np
import pytest
from foreact.eval.robot.dashboard import Dashboard


@pytest.fixture
def loop(loop):
    """Eight steps on the way to the far goal, each chunk continued by the next."""
    return loop(task="far", mode="realtime", latency=0.1, max_steps=8)


def fetch(url, *, method="GET", **headers):
    request = urllib.request.Request(url, method=method, headers=headers)
    return urllib.request.urlopen(request, timeout=10)


def first_event(page):
    with fetch(page.url + "events") as stream:
        return json.loads(stream.readline().decode().removeprefix("data: "))


def test_the_page_shows_the_run_and_its_button_stops_it(loop):
    with Dashboard(loop) as page:
        assert first_event(page)["step"] is None
        assert "STOP" in fetch(page.url).read().decode()
        run = loop.run()
        shown = first_event(page)
        assert shown["step"] == run.ticks[-1].step
        np.testing.assert_allclose(shown["sent"], run.ticks[-1].sent, atol=1e-5)
        assert shown["actions"] == ["velocity[0]", "velocity[1]"]
        assert shown["latency_ms"] == 100
        assert shown["steps"] == len(run.ticks)
        picture = fetch(page.url + "camera/main")
        assert picture.headers["Content-Type"] == "image/jpeg"
        assert picture.read()[:2] == b"\xff\xd8"
        fetch(page.url + "stop", method="POST", **{"X-Foreact": "stop"})
        assert loop.stop.reason == "the dashboard's button"
        assert first_event(page)["stopped"] == "the dashboard's button"
        assert loop.run().outcome == "stopped: the dashboard's button"


@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        ("stop", "POST", {}, 403),
        ("stop", "POST", {"X-Foreact": "stop", "Host": "evil.example:80"}, 403),
        ("", "GET", {"Host": "evil.example:80"}, 403),
        ("camera/none", "GET", {}, 404),
        ("etc/passwd", "GET", {}, 404),
    ],
)
def test_what_a_foreign_page_may_not_do_is_refused(loop, path, method, headers, status):
    with Dashboard(loop) as page, pytest.raises(urllib.error.HTTPError) as refused:
        fetch(page.url + path, method=method, **headers)
    assert refused.value.code == status
    refused.value.close()
    assert not loop.stop


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_draws_it(loop):
    with Dashboard(loop) as page:
        loop.run()
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--timeout=4000", "--dump-dom"]
        dom = subprocess.run([*command, page.url], capture_output=True, text=True, timeout=60).stdout
    assert 'class="row"' in dom
    assert "step 7" in dom
    assert "/camera/main" in dom
