import dataclasses

import pytest
import torch
from foreact.envs.errors import UserError
from foreact.policy.known import KNOWN, known
from foreact.policy.segments import PARTIAL, Role
from foreact.policy.shapes import Shape
from hypothesis import given
from hypothesis import strategies as st

SIZES = st.tuples(*[st.integers(1, 4)] * 5)


@given(SIZES, st.booleans())
def test_tokens_and_values_round_trip(sizes, folded):
    shape = Shape(*sizes, folded=folded)
    values = torch.randn(2, *sizes)
    tokens = shape.arrange(values)
    assert tokens.shape == (2, shape.tokens, shape.width)
    assert torch.equal(shape.restore(tokens), values)


@given(SIZES, st.booleans())
def test_a_step_spreads_over_its_own_entries(sizes, folded):
    shape = Shape(*sizes, folded=folded)
    steps = torch.arange(sizes[0]).expand(2, -1)
    entries = shape.spread(steps).expand(2, shape.tokens, shape.width)
    assert torch.equal(shape.restore(entries), steps[..., None, None, None, None].expand(2, *sizes))
    assert shape.positions([float(t) for t in range(sizes[0])], 1.0).shape == (shape.tokens, 3)


def test_folded_steps_cost_no_tokens():
    assert Shape(3, 1, 16, 16, 4, folded=True).tokens == Shape(1, 1, 16, 16, 4).tokens == 256


def draw(role: Role, steps: int = 4, side: int = 8, n: int = 64) -> torch.Tensor:
    shape = Shape(steps, 2, side, side, 3)
    tokens = known(role, shape, torch.Size((n, 1)), torch.Generator().manual_seed(0))[:, 0]
    views = tokens.view(n, steps, 2, side, side)
    assert torch.equal(views[:, :, 0], views[:, :, 1])  # cameras show the same cells
    return views[:, :, 0]


def test_every_partial_role_has_a_family():
    assert set(KNOWN) == set(PARTIAL)


@pytest.mark.parametrize("role", PARTIAL)
def test_some_tokens_are_shown_and_some_are_not(role):
    shown = draw(role).flatten(1)
    assert shown.any(1).all()
    assert not shown.all(1).any()


def test_families_show_what_they_say():
    frames = {role: draw(role).flatten(2) for role in PARTIAL}
    for role in (Role.CONTINUE, Role.PREDICT):
        shown = frames[role].all(-1)
        assert torch.equal(shown, shown.cummin(1).values)  # a prefix
    assert frames[Role.CONTINUE].all(-1).sum(1).max() == 2  # at most half a chunk
    assert frames[Role.PREDICT].all(-1).sum(1).max() == 3
    assert (frames[Role.ANIMATE].all(-1).sum(1) == 1).all()
    assert frames[Role.INTERPOLATE][:, -1].all()
    assert not frames[Role.INTERPOLATE][:, -2].any()
    hidden = ~draw(Role.COMPLETE)
    assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))  # the same rectangle in every frame
    box = hidden[:, 0].any(2)[:, :, None] & hidden[:, 0].any(1)[:, None, :]
    assert torch.equal(box, hidden[:, 0])


def test_folded_steps_cannot_be_shown_in_part(preset):
    with pytest.raises(UserError, match="'continue' shows some tokens of action, but layout 'stacked'"):
        dataclasses.replace(preset, layout="stacked")
