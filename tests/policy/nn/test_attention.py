import pytest
import torch
from foreact.policy.nn import attention
from foreact.policy.nn.attention import attend
from foreact.policy.nn.rope import rotary_table, rotate


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.fixture
def stream() -> tuple[torch.Tensor, ...]:
    b, h, n, length, m, c = 2, 3, 4, 5, 6, 8
    q, k, v = (draw(b, h, n, length, c) for _ in range(3))
    return q, k, v, draw(b, h, m, c), draw(b, h, m, c)


def test_explicit_and_fused_agree(stream):
    q, k, v, ck, cv = stream
    mask = torch.rand(5, 11) < 0.7
    mask[:, 0] = True
    for context in (None, (ck, cv)):
        for m in (None, mask if context else mask[:, 6:] | torch.eye(5, dtype=torch.bool)):
            plain = attention._explicit(q, k, v, context, m)
            torch.testing.assert_close(plain, attention._fused(q, k, v, context, m))


def test_masks_of_samples_and_draws_reach_the_kernel(stream):
    q, k, v, ck, cv = stream
    mask = torch.rand(2, 1, 4, 5, 11) < 0.7
    mask[..., 0] = True
    plain = attention._explicit(q, k, v, (ck, cv), mask)
    torch.testing.assert_close(plain, attention._fused(q, k, v, (ck, cv), mask))


def test_acting_takes_the_kernel_and_learning_the_formula(stream, monkeypatch):
    q, k, v, *_ = stream
    taken = []
    for name, rule in (("formula", attention._explicit), ("kernel", attention._fused)):
        noted = lambda *args, name=name, rule=rule: taken.append(name) or rule(*args)  # noqa: E731
        monkeypatch.setattr(attention, rule.__name__, noted)
    attend(q, k, v)
    with torch.no_grad():
        attend(q, k, v)
    assert taken == ["formula", "kernel"]


def test_draws_see_the_context_and_themselves_only(stream):
    q, k, v, ck, cv = stream
    out = attend(q, k, v, context=(ck, cv))
    alone = attend(q[:, :, 1:2], k[:, :, 1:2], v[:, :, 1:2], context=(ck, cv))
    torch.testing.assert_close(out[:, :, 1:2], alone)


def test_a_masked_key_is_invisible(stream):
    q, k, v, ck, cv = stream
    mask = torch.ones(5, 11, dtype=torch.bool)
    mask[:, [2, 9]] = False
    before = attend(q, k, v, context=(ck, cv), mask=mask)
    ck, k = ck.clone(), k.clone()
    ck[:, :, 2] = 100
    k[:, :, :, 3] = -100
    assert torch.equal(before, attend(q, k, v, context=(ck, cv), mask=mask))


def test_rotation_keeps_norms_and_depends_on_distance_only():
    x, y = draw(1, 12), draw(1, 12)
    positions = torch.tensor([[0.0, 1, 2], [3, 4, 5], [7, 6, 9], [10, 9, 12]], dtype=torch.float64)
    table = rotary_table(positions, 12)
    turned_x, turned_y = rotate(x.expand(4, -1), table), rotate(y.expand(4, -1), table)
    torch.testing.assert_close(turned_x.norm(dim=-1), x.norm().expand(4))
    torch.testing.assert_close((turned_x[0] * turned_y[1]).sum(), (turned_x[2] * turned_y[3]).sum())
