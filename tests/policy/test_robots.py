"""One policy for many robots: what is absent changes nothing, robots do not change each other, each gets its own."""

import dataclasses

import numpy as np
import pytest
import torch
from foreact.data.batch import fake_batch
from foreact.data.normalize import Normalizer
from foreact.envs.errors import UserError
from foreact.envs.slot_maps import SPACES
from foreact.envs.slot_tables import with_slots
from foreact.envs.slot_tables.fakes import ROBOTS
from foreact.envs.slots import SIZE
from foreact.policy import load_policy
from foreact.policy.checkpoint import write_policy
from foreact.policy.config import ModelConfig
from foreact.policy.inputs import unbatched
from foreact.policy.loss import objective, segment_losses
from foreact.policy.model import Model
from foreact.policy.nn.config import BackboneConfig
from foreact.policy.policy import Policy
from foreact.policy.prepared import prepare
from foreact.policy.segments import Segment
from foreact.policy.sentences import Sentences
from foreact.policy.supervision import keep
from foreact.policy.transforms import Robot, Transforms

NAMES = (
    "aloha-viperx",
    "ogbench-ur5e",
    "pusht-pusher",
)  # at 50, 20 and 10 Hz; the arm has two cameras
KINDS = {
    "action": {"draws": {"policy": 2, "continue": 1}, "future": ()},
    "joint": {},
    "mode": {
        "layout": "sequence", "draws": {"policy": 2}, "future": (), "coupling": "action_blind",
        "backbone": BackboneConfig(width=32, depth=2, heads=2, norm="rms", conditioning="attention"),
    },
    "rdt": {
        "layout": "crossed", "coupling": "full", "draws": {"policy": 2}, "future": (),
        "adaptor_depth": 2, "head_depth": 2,
        "backbone": BackboneConfig(
            width=32, depth=2, heads=2, mlp_ratio=1, norm="rms", qk_kind="rms", conditioning="none",
            cross=("language", "images"),
        ),
    },
}  # fmt: skip
"""Presets of each kind at test size."""


def on_slots(preset: ModelConfig, kind: str) -> ModelConfig:
    """A preset of that kind for robots that share the slots."""
    return dataclasses.replace(preset, space="slots", seconds=0.5, rate_token=True, **KINDS[kind])


@pytest.fixture(params=KINDS)
def config(request, preset) -> ModelConfig:
    return on_slots(preset, request.param)


def policy_of(config: ModelConfig, names=NAMES) -> Policy:
    """An untrained policy of these robots whose output depends on everything."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    robots = {}
    for name in names:
        embodiment = with_slots(ROBOTS[name])
        plain = Transforms(config, embodiment, {})
        sizes = {"state": embodiment.state_dim, "action": embodiment.action_dim}
        values = {which: plain.lies[which].fill(rng.standard_normal((64, n))) for which, n in sizes.items()}
        robots[name] = Robot(embodiment, {which: Normalizer.fit(v, "gaussian") for which, v in values.items()})
    main = robots[names[0]]
    transforms = Transforms(config, main.embodiment, main.normalizers, {"future": 0.5}, robots=robots)
    model = Model(config, transforms.rig, 2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return Policy(model, transforms, Sentences("table", ("go left", "go right")), ["x/l", "x/r"], "cpu")


def batch_of(policy: Policy, name: str, size: int = 3):
    config, windows = policy.config, policy.on(name).transforms.windows
    sizes = {"n_obs_steps": config.n_obs_steps, "horizon": windows.horizon, "n_future": len(config.future)}
    return fake_batch(ROBOTS[name], size=size, **sizes), torch.arange(size) % 2


def test_a_chunk_is_as_long_in_seconds_for_each_robot(preset):
    policy = policy_of(dataclasses.replace(preset, space="slots", seconds=0.2, horizon=6))
    assert [policy.on(name).horizon for name in NAMES] == [6, 4, 2]  # 10 actions of 50 Hz are more than there are
    assert [policy.on(name).n_action_steps for name in NAMES] == [3, 3, 2]


@pytest.mark.parametrize("masked", [True, False])
def test_robots_together_learn_what_they_learn_alone(config, masked):
    policy = policy_of(dataclasses.replace(config, masked=masked))
    sources = [batch_of(policy, name, size) for name, size in zip(NAMES, (4, 3, 2), strict=True)]
    generator = torch.Generator().manual_seed(0)
    alone = [objective(policy.model, policy.transforms, [source], generator).parts for source in sources]
    together = objective(policy.model, policy.transforms, sources, torch.Generator().manual_seed(0)).parts
    for name, own in zip(NAMES, alone, strict=True):
        torch.testing.assert_close(together[f"action/{name}"], own["action"], rtol=0, atol=1e-5)
    mean = sum(n * own["action"] for n, own in zip((4, 3, 2), alone, strict=True)) / 9
    torch.testing.assert_close(together["action"], mean, rtol=0, atol=1e-5)


def test_absent_slots_are_no_input_no_output_and_no_gradient(config):
    policy = policy_of(config, ("pusht-pusher",))
    model, transforms = policy.model, policy.transforms
    there = torch.from_numpy(transforms.lies["action"].present)
    batch, sentence = batch_of(policy, "pusht-pusher")
    _, prepared = prepare(model, transforms, batch, sentence, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    losses = segment_losses(model, prepared, {"policy": 2}, generator)
    losses["action"].backward()
    embed, head = (m["action"] if not isinstance(m["action"], torch.nn.Sequential) else m["action"][i]
                   for m, i in ((model.embed, 0), (model.head, -1)))  # fmt: skip
    assert embed.weight.grad[:, :SIZE][:, ~there].abs().max() == 0
    assert embed.weight.grad[:, :SIZE][:, there].abs().max() > 0
    assert head.weight.grad[~there].abs().max() == 0
    assert head.weight.grad[there].abs().max() > 0
    noise = torch.randn(3, 2, transforms.shapes["action"].tokens, SIZE)

    @torch.no_grad()
    def predict(x):
        return model.denoise({"action": Segment(x, torch.full((3, 2), 0.7))}, prepared.encoding)["action"]

    assert predict(noise)[..., ~there].abs().max() == 0
    torch.testing.assert_close(predict(noise + 5 * ~there), predict(noise), rtol=0, atol=0)


def test_rdt_own_loss_counts_absent_slots_too(config):
    masked, whole = (policy_of(dataclasses.replace(config, masked=m), ("pusht-pusher",)) for m in (True, False))
    for policy, slots in ((masked, 2), (whole, SIZE)):
        batch, _ = batch_of(policy, "pusht-pusher")
        kept = keep(policy.transforms, batch)["action"]
        assert int(kept.expand(-1, -1, SIZE)[0, 0].sum()) == slots


def test_modalities_are_forgotten_apart_and_in_training_only(config):
    config = dataclasses.replace(config, modality_dropout=0.5)
    policy = policy_of(config)
    batch, sentence = batch_of(policy, "aloha-viperx", 64)
    slots = torch.from_numpy(policy.transforms.lies["state"].present)

    def seen(*, training: bool):
        policy.model.train(training)
        return prepare(policy.model, policy.transforms, batch, sentence, torch.Generator().manual_seed(0))[0]

    whole, some = seen(training=False), seen(training=True)
    assert all(bool((x != 0).flatten(1).any(1).all()) for x in (whole.images, whole.state, whole.rate[:, None]))
    value, there = some.state.chunk(2, dim=-1)
    kept = {
        "state": value.flatten(1).any(1), "there": there.flatten(1).any(1), "rate": some.rate != 0,
        "first": some.images[:, 0, 0].flatten(1).any(1), "second": some.images[:, 0, 1].flatten(1).any(1),
    }  # fmt: skip
    assert {name: 16 < int(mask.sum()) < 48 for name, mask in kept.items()} == dict.fromkeys(kept, True)
    assert len({tuple(mask.tolist()) for mask in kept.values()}) == len(kept)
    assert not value[..., ~slots].any()
    assert torch.equal(some.beside["action"], whole.beside["action"])  # what acts must always be told


def test_each_robot_gets_its_own_actions_within_its_bounds(config):
    policy = policy_of(config)
    for name in NAMES:
        own = policy.on(name)
        batch, _ = batch_of(policy, name, 2)
        chunk = own.act(unbatched(batch), ["go left", "go right"], [(0, 0), (0, 1)])
        assert chunk.shape == (2, own.horizon, ROBOTS[name].action_dim)
        assert (chunk >= ROBOTS[name].action_low - 1e-6).all()
        assert (chunk <= ROBOTS[name].action_high + 1e-6).all()
        alone = own.act(unbatched(batch)[:1], ["go left"], [(0, 0)], batch_shape=2)
        np.testing.assert_allclose(alone[0], chunk[0], atol=1e-4)


def test_an_unknown_robot_is_told_who_is_known(config):
    policy = policy_of(config)
    with pytest.raises(
        UserError, match="trained on aloha-viperx, ogbench-ur5e, pusht-pusher, and not on robot 'fetch'"
    ):
        policy.on("fetch")


def test_actions_go_through_slots_and_back(config):
    for name in NAMES:
        transforms = policy_of(config).transforms.on(name)
        embodiment = transforms.embodiment
        low, high = (torch.from_numpy(x) for x in (embodiment.action_low, embodiment.action_high))
        chunk = low + (high - low) * torch.rand(2, transforms.windows.horizon, embodiment.action_dim)
        np.testing.assert_allclose(transforms.commands(transforms.action(chunk)), chunk.numpy(), rtol=1e-4, atol=1e-4)


def test_absent_cameras_are_left_out(config):
    policy = policy_of(config)
    assert [c.name for c in policy.transforms.rig.cameras] == ["top", "front", "side"]
    assert policy.transforms.views(["top"]) == (0,)
    lengths = {}
    for name in NAMES:
        batch, sentence = batch_of(policy, name)
        transforms = policy.transforms.on(name)
        observation, _ = prepare(policy.model, transforms, batch, sentence, torch.Generator())
        lengths[name] = observation.images.shape[1]
    assert lengths == {"aloha-viperx": 1, "ogbench-ur5e": 2, "pusht-pusher": 1}


def test_checkpoints_know_all_robots(config, tmp_path):
    policy = policy_of(config)
    write_policy(tmp_path, policy)
    loaded = load_policy(tmp_path, "cpu")
    assert loaded.robots == list(NAMES)
    for name in NAMES:
        batch, _ = batch_of(policy, name, 1)
        asked = (unbatched(batch), ["go left"], [(0, 0)])
        np.testing.assert_array_equal(loaded.on(name).act(*asked), policy.on(name).act(*asked))


class TestConfig:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"space": "latent"}, "unknown space of states and actions 'latent'"),
            ({"masked": False}, "masked=false is about what a robot lacks"),
            ({"seconds": -1.0}, "seconds is how long a chunk is"),
            ({"modality_dropout": 1.0}, "modality_dropout is a share"),
            ({"layout": "crossed"}, r"layout 'crossed' and backbone.cross=\[\] do not fit"),
            (
                {"layout": "stacked", "space": "slots", "draws": {"joint": 1}},
                "need chunks of actions with a token each",
            ),
        ],
    )
    def test_what_does_not_go_together(self, preset, settings, message):
        with pytest.raises(UserError, match=message):
            dataclasses.replace(preset, **settings)

    def test_a_chunk_of_no_action(self, preset):
        with pytest.raises(UserError, match=r"a chunk of 0.01 s has no action at 10 Hz"):
            dataclasses.replace(preset, seconds=0.01).windows.on(10)

    @pytest.mark.parametrize("space", sorted(SPACES))
    def test_every_space_learns_one_robot(self, preset, space):
        embodiment = with_slots(ROBOTS["pusht-pusher"])
        config = dataclasses.replace(preset, space=space)
        plain = Transforms(config, embodiment, {})
        own = torch.rand(4, 6, 2)
        filled = plain.lies["action"].fill(own) if plain.lies else own
        normalizers = {"action": Normalizer.fit(filled.flatten(0, 1).numpy(), "gaussian")}
        transforms = dataclasses.replace(plain, normalizers=normalizers)
        np.testing.assert_allclose(transforms.commands(transforms.action(own)), own.numpy(), atol=1e-5)
