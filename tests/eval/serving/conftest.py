"""An actor to serve."""

import pytest
from foreact.eval.actors import PolicyActor


@pytest.fixture
def actor(continuing):
    return PolicyActor(policy=continuing(), batch_shape=4)
