"""Video without actions beside demonstrations: what is absent trains nothing and changes nothing."""

import dataclasses

import pytest
import torch
from foreact.envs.errors import UserError
from foreact.policy.inputs import unbatched

from .fakes import batch_of, losses


def gradients(policy, *batches) -> dict[str, torch.Tensor]:
    policy.model.zero_grad()
    losses(policy, *batches).total.backward()
    return {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}


def video(batch):
    return dataclasses.replace(batch, state=None, action=None, action_executed=None, action_pad=None, privileged=None)


def test_video_changes_no_gradient_of_the_actions(make_policy, preset):
    policy = make_policy(dataclasses.replace(preset, draws={"policy": 2}))
    batch = batch_of(policy, 2)
    alone = gradients(policy, batch)
    beside = gradients(policy, batch, video(batch_of(policy, 4)))
    assert alone.keys() == beside.keys()
    assert all(torch.equal(alone[n], beside[n]) for n in alone)


def test_actions_of_video_reach_nothing(make_policy, preset):
    policy = make_policy(dataclasses.replace(preset, draws={"joint": 2}))
    found = gradients(policy, video(batch_of(policy)))
    assert not [n for n in found if "action" in n or "state" in n]
    assert any("future" in n for n in found)


def test_it_is_the_same_as_the_video_query(make_policy, preset):
    batch = video(batch_of(make_policy(preset)))
    a, b = (
        losses(make_policy(dataclasses.replace(preset, draws={query: 2})), batch).total for query in ("joint", "video")
    )
    assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["preset", "stacked"])
def test_video_of_one_camera_trains_no_other(make_policy, request, kind):
    config = dataclasses.replace(request.getfixturevalue(kind), draws={"joint": 1})
    policy = make_policy(config)
    batch = video(batch_of(policy))
    one = dataclasses.replace(batch, **{k: {"side": getattr(batch, k)["side"]} for k in ("images", "future")})
    found = gradients(policy, one)
    cells = policy.model.segments["future"].rows ** 2
    if kind == "preset":
        touched = found["position.future"].view(2, 2, cells, -1).abs().sum((0, 2, 3))
        assert touched[0] == 0
        assert touched[1] > 0
        assert found["image_position"].view(2, -1).abs().sum(1)[0] == 0
    # what is seen of the other camera changes nothing
    moved = dataclasses.replace(one, images={**one.images, "elsewhere": batch.images["front"]})
    again = gradients(policy, moved)
    assert all(torch.equal(found[n], again[n]) for n in found)


def test_observations_without_a_state(make_policy, preset):
    policy = make_policy(preset)
    batch = batch_of(policy)
    plain = [{"images": o["images"]} for o in unbatched(batch)]
    keys, words = [(0, i, 0) for i in range(3)], ["go left"] * 3
    assert policy.ask("video", plain, words, keys).frames
    with pytest.raises(UserError, match="'policy' is about actions, and the observations have no state"):
        policy.ask("policy", plain, words, keys)
    with pytest.raises(UserError, match="1 of 3 observations have a state"):
        policy.ask("video", [unbatched(batch)[0], *plain[1:]], words, keys)
