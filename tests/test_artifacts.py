"""What an older version wrote must load for ever. tests/artifacts/make.py wrote each folder with its own version."""

import json
from pathlib import Path

import numpy as np
import pytest
from foreact.data.store import Store
from foreact.policy import load_policy

VERSIONS = sorted(p for p in (Path(__file__).parent / "artifacts").glob("v*"))


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda p: p.name)
def test_stores_and_checkpoints_of_every_version_load(folder):
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    with Store.open(folder / "store") as store:
        assert len(store) == expected["episodes"]
        for name, total in expected["sums"].items():
            assert int(np.asarray(store.read(name)).sum(dtype=np.float64)) == total
        seen = {
            "images": {"front": store.read("image/front", slice(0, 1))[0]},
            "state": store.read("state", slice(0, 1))[0],
        }
    chunk = load_policy(folder / "checkpoint", "cpu").act([seen], ["go"], [(1, 2, 3)])
    np.testing.assert_allclose(chunk[0], expected["chunk"], atol=1e-4)


def test_there_is_one():
    assert VERSIONS
