"""openpi's own client from PyPI, in an environment of its own, talks to a foreact server as to one of openpi's."""

import subprocess
from pathlib import Path

import pytest
from foreact.eval.actors import PolicyActor

PYTHON = Path(__file__).parents[3] / ".venv-openpi" / "bin" / "python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="needs .venv-openpi: `bash scripts/peers.sh openpi` makes it"),
]

CODE = """
import sys
import numpy as np
from openpi_client import action_chunk_broker, websocket_client_policy
policy = websocket_client_policy.WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]), api_key="secret")
about = policy.get_server_metadata()
print(about["server"], about["horizon"], about["embodiment"]["name"], np.__version__.partition(".")[0])
picture = np.zeros((12, 12, 3), np.uint8)
picture[3, 3, 1] = 255
seen = {"images": {"main": picture}, "state": np.zeros(2, np.float32), "prompt": "go to the near goal"}
answer = policy.infer(seen)
print(answer["actions"].shape, answer["actions"].dtype, sorted(answer["server_timing"]))
broker = action_chunk_broker.ActionChunkBroker(policy, action_horizon=3)
print([broker.infer(seen)["actions"].shape for _ in range(4)])
try:
    policy.infer({**seen, "state": np.zeros(3)})
except RuntimeError as error:
    print(error)
print(policy.infer({**seen, "key": [7]})["actions"].tolist() == policy.infer({**seen, "key": [7]})["actions"].tolist())
"""


def test_openpis_client_is_served(serving, continuing):
    with serving(PolicyActor(policy=continuing(), batch_shape=2), token="secret") as server:
        command = [PYTHON, "-c", CODE, str(server.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    about, answer, broker, *wrong, again = done.stdout.strip().splitlines()
    assert about == "foreact 6 dot 1"
    assert answer == "(6, 2) float32 ['infer_ms', 'queue_ms', 'rows', 'total_ms']"
    assert broker == "[(2,), (2,), (2,), (2,)]"
    assert "Error in inference server" in wrong[0]
    assert "state has shape" in wrong[1]
    assert again == "True"
