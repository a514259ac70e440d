import numpy as np
import pytest
from foreact.policy.validate import agreement


def test_a_policy_that_looks_and_one_that_does_not():
    rng = np.random.default_rng(0)
    expert = rng.normal(size=(200, 4)) * [1, 0.5, 1e-6, 0]
    looks = agreement(expert + 0.1 * rng.normal(size=(200, 4)), expert)
    assert looks["first_corr"] > 0.95
    assert looks["first_error"] == pytest.approx(0.1 * np.sqrt(4) / np.sqrt(1.25), rel=0.1)
    blind = agreement(rng.normal(size=(200, 4)) * 0.1, expert)
    assert abs(blind["first_corr"]) < 0.2
    assert blind["first_error"] == pytest.approx(1, abs=0.1)


def test_the_mean_alone_is_not_looking():
    expert = np.array([[1.0, 0.0], [-1.0, 0.0], [0.5, 0.0]])
    result = agreement(np.tile(expert.mean(0), (3, 1)), expert)
    assert result["first_corr"] == 0
    assert result["first_error"] == pytest.approx(1)


def test_nothing_to_see_where_the_expert_always_begins_alike():
    assert agreement(np.ones((5, 2)), np.full((5, 2), 0.7)) == {}
