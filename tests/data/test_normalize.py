import json

import numpy as np
import pytest
import torch
from foreact.data.normalize import Normalizer, fit_normalizers
from foreact.data.schema import fake_episode
from foreact.data.store import Store
from foreact.envs.errors import UserError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

MODES = ["identity", "gaussian", "range", "quantile"]
modes = st.sampled_from(MODES)
values = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=8),
    elements=st.floats(-1000, 1000, width=32),
)


@given(values, modes)
def test_round_trip(x, mode):
    n = Normalizer.fit(x, mode)
    np.testing.assert_allclose(n.unnormalise(n.normalise(x)), x, rtol=1e-5, atol=1e-3)


@given(values, modes)
def test_nothing_blows_up(x, mode):
    """Of what training showed, and for a step beyond it."""
    n = Normalizer.fit(x, mode)
    assert np.isfinite(n.normalise(x)).all()
    assert np.abs(n.normalise(x + 1)).max() < 1e7
    if mode == "range":
        assert np.abs(n.normalise(x)).max() <= 1 + 1e-6


@given(values, modes)
def test_json_gives_the_same_bits(x, mode):
    n = Normalizer.fit(x, mode)
    m = Normalizer.from_dict(json.loads(json.dumps(n.to_dict())))
    assert m.mode == n.mode
    for name in ("mean", "std", "low", "high", "q01", "q99"):
        a, b = getattr(n, name), getattr(m, name)
        assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())
    assert n.normalise(x).tobytes() == m.normalise(x).tobytes()


@given(values, modes)
def test_torch_and_numpy_agree_to_the_bit(x, mode):
    n = Normalizer.fit(x, mode)
    y = n.normalise(torch.from_numpy(x))
    assert y.dtype == torch.float32
    assert y.numpy().tobytes() == n.normalise(x).tobytes()
    assert n.unnormalise(y).numpy().tobytes() == n.unnormalise(n.normalise(x)).tobytes()


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("constant", [0.0, 0.1, -3.7, 1e5])
def test_a_constant_dimension_is_zero_and_comes_back(mode, constant):
    x = np.stack([np.full(50, constant), np.linspace(0, 1, 50)], axis=1).astype(np.float32)
    n = Normalizer.fit(x, mode)
    y = n.normalise(x)
    assert (y[:, 0] == 0).all()
    np.testing.assert_array_equal(n.unnormalise(y)[:, 0], x[:, 0])
    moved = n.normalise(x + np.float32([2, 0]))
    np.testing.assert_allclose(moved[:, 0], 2, rtol=0.01)  # it keeps its unit


@pytest.mark.parametrize("mode", MODES[1:])
def test_rounding_is_not_motion(mode):
    x = np.float32(0.5) + np.float32(6e-8) * np.arange(4, dtype=np.float32)[:, None]
    assert np.abs(Normalizer.fit(x, mode).normalise(x)).max() < 1e-6


def test_what_the_modes_mean():
    x = np.random.default_rng(0).normal(3, 2, (5000, 1)).astype(np.float32)
    fitted = {mode: Normalizer.fit(x, mode).normalise(x) for mode in MODES}
    np.testing.assert_array_equal(fitted["identity"], x)
    assert abs(fitted["gaussian"].mean()) < 1e-4
    assert fitted["gaussian"].std() == pytest.approx(1, abs=1e-4)
    assert (fitted["range"].min(), fitted["range"].max()) == pytest.approx((-1, 1))
    assert np.quantile(fitted["quantile"], (0.01, 0.99)) == pytest.approx((-1, 1), abs=1e-3)
    assert fitted["quantile"].max() > 1


def test_quantiles_without_spread_fall_back_to_the_range():
    x = np.zeros((1000, 1), np.float32)
    x[0] = 4  # a gripper that opens once
    y = Normalizer.fit(x, "quantile").normalise(x)
    assert (y.min(), y.max()) == (-1, 1)


def test_any_leading_shape_and_gradients():
    n = Normalizer.fit(np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32), "gaussian")
    with torch.inference_mode():
        n.normalise(torch.zeros(2, 3))  # what acting keeps must serve training too
    x = torch.zeros(2, 4, 3, requires_grad=True)
    n.unnormalise(n.normalise(x)).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, torch.ones_like(x))


def test_bad_values_and_shapes():
    x = np.zeros((4, 2), np.float32)
    n = Normalizer.fit(x, "range")
    with pytest.raises(UserError, match=r"normaliser of 2 dimensions got values of shape \(5, 3\)"):
        n.normalise(np.zeros((5, 3), np.float32))
    with pytest.raises(UserError, match="unknown normaliser mode 'minmax'; choose one of: gaussian"):
        Normalizer.fit(x, "minmax")
    with pytest.raises(UserError, match=r"fitted on \(steps, dimensions\), got \(0, 2\)"):
        Normalizer.fit(x[:0], "range")
    for bad in (np.nan, np.inf):
        x[2, 1] = bad
        with pytest.raises(UserError, match="row 2, dimension 1 is not finite"):
            Normalizer.fit(x, "range")
    with pytest.raises(UserError, match="normaliser has the entries"):
        Normalizer.from_dict({"mode": "range"})
    with pytest.raises(UserError, match="vectors of one length"):
        Normalizer.from_dict(n.to_dict() | {"mean": [1.0]})


def test_fitted_on_the_training_episodes_alone(make_store):
    store = Store.open(make_store([5, 7, 6]))
    fitted = fit_normalizers([(store, [0, 2])], {"state": "range", "action": "gaussian", "privileged": "quantile"})
    state = np.concatenate([store.read("state", slice(0, 5)), store.read("state", slice(12, 18))])
    np.testing.assert_array_equal(fitted["state"].low, state.min(axis=0))
    assert {name: (n.mode, n.size) for name, n in fitted.items()} == {
        "state": ("range", 4),
        "action": ("gaussian", 3),
        "privileged": ("quantile", 2),
    }


def test_fitting_says_what_is_wrong(make_store, robot, tmp_path):
    store = Store.open(make_store([5]))
    with pytest.raises(UserError, match="unknown field to normalise 'image/main'"):
        fit_normalizers([(store, [0])], {"image/main": "range"})
    with pytest.raises(UserError, match="no training episodes"):
        fit_normalizers([(store, [])], {"state": "range"})
    with Store.create(tmp_path / "plain", robot, privileged=False) as plain:
        plain.append(fake_episode(robot))
        with pytest.raises(UserError, match=r"unknown array of store .* 'privileged'"):
            fit_normalizers([(plain, [0])], {"privileged": "range"})


def test_nan_in_a_store_is_named(make_store, monkeypatch):
    """No store of ours holds one, but another program may have written to it."""
    store = Store.open(make_store([5]))
    monkeypatch.setattr(Store, "read", lambda *_: np.full((5, 4), np.nan, np.float32))
    with pytest.raises(UserError, match=r"state of store .*store\.zarr: .*not finite"):
        fit_normalizers([(store, [0])], {"state": "range"})
