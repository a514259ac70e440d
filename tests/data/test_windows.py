import numpy as np
import pytest
from foreact.data.windows import Windows, rows_of
from foreact.envs.errors import UserError
from hypothesis import given
from hypothesis import strategies as st

lengths = st.lists(st.integers(1, 12), min_size=1, max_size=6)
settings = st.fixed_dictionaries(
    {
        "n_obs_steps": st.integers(1, 4),
        "horizon": st.integers(1, 9),
        "future": st.lists(st.integers(1, 15), unique=True, max_size=4).map(sorted),
        "obs_stride": st.integers(1, 3),
    }
)


def brute_force(ends, row, offsets):
    """Rows and padding at `offsets` from `row`, found by walking through the episodes."""
    start = 0
    for end in ends:
        if row < end:
            break
        start = end
    rows, pads = [], []
    for offset in offsets:
        wanted = row + offset
        pads.append(not start <= wanted < end)
        while wanted < start:
            wanted += 1
        while wanted >= end:
            wanted -= 1
        rows.append(wanted)
    return rows, pads, row - start


@given(lengths, settings)
def test_windows_equal_brute_force(lengths, settings):
    ends, windows = np.cumsum(lengths), Windows(**settings)
    at = windows.at(ends, np.arange(ends[-1]))
    offsets = {
        "obs": [-windows.obs_stride * i for i in range(windows.n_obs_steps)][::-1],
        "action": range(windows.horizon),
        "future": windows.future,
    }
    for row in range(ends[-1]):
        for name, of in offsets.items():
            rows, pads, step = brute_force(ends.tolist(), row, of)
            assert getattr(at, name)[row].tolist() == rows
            assert getattr(at, f"{name}_pad")[row].tolist() == pads
            assert at.step[row] == step


@given(lengths, settings, st.data())
def test_any_rows_in_any_order(lengths, settings, data):
    ends, windows = np.cumsum(lengths), Windows(**settings)
    rows = np.array(data.draw(st.lists(st.integers(0, sum(lengths) - 1), min_size=1, max_size=9)))
    everything, some = windows.at(ends, np.arange(ends[-1])), windows.at(ends, rows)
    for whole, part in zip(everything, some, strict=True):
        np.testing.assert_array_equal(whole[rows], part)


@given(lengths, st.data())
def test_rows_of_episodes(lengths, data):
    ends = np.cumsum(lengths)
    episodes = data.draw(st.lists(st.integers(0, len(lengths) - 1), unique=True))
    expected = [row for e in episodes for row in range(ends[e] - lengths[e], ends[e])]
    assert rows_of(ends, episodes).tolist() == expected


def test_shapes_and_types():
    at = Windows(n_obs_steps=2, horizon=3, future=(1, 4)).at(np.array([5]), np.arange(4))
    assert [x.shape for x in at] == [(4, 2), (4, 3), (4, 2), (4, 2), (4, 3), (4, 2), (4,)]
    assert [str(x.dtype) for x in at] == ["int64"] * 3 + ["bool"] * 3 + ["int64"]
    assert Windows().at(np.array([5]), np.arange(4)).future.shape == (4, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"horizon": -1},
        {"horizon": 0},
        {"n_obs_steps": 0},
        {"obs_stride": 0},
        {"future": (0,)},
        {"future": (-4,)},
        {"future": (8, 4)},
        {"future": (4, 4)},
    ],
)
def test_senseless_windows_are_refused(settings):
    (name,) = settings
    with pytest.raises(UserError, match=rf"windows\.{name} must be .* from 1 on, got"):
        Windows(**settings)


def test_rows_and_episodes_outside_are_refused():
    ends = np.array([3, 5])
    for rows in ([-1], [5], [0, 9]):
        with pytest.raises(UserError, match="episodes with 5 steps"):
            Windows().at(ends, np.array(rows))
    for episodes in ([-1], [2]):
        with pytest.raises(UserError, match="asked of 2"):
            rows_of(ends, episodes)


def test_a_list_of_offsets_is_taken():
    assert Windows(future=[4, 8]) == Windows(future=(4, 8))
