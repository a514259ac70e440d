"""What tests of a policy's network begin from: fake batches, what the network observes of them, and its loss."""

import dataclasses

import torch
from foreact.data.batch import Batch, fake_batch
from foreact.policy.loss import Losses, objective
from foreact.policy.observation import Observation
from foreact.policy.policy import Policy
from foreact.policy.supervision import present


def batch_of(policy: Policy, size: int = 3, *, seed: int = 0) -> Batch:
    """A fake batch of the windows that this policy learns from, with depth where it sees depth."""
    config, embodiment = policy.config, policy.embodiment
    if config.depth:
        cameras = tuple(dataclasses.replace(camera, depth=True) for camera in embodiment.cameras)
        embodiment = dataclasses.replace(embodiment, cameras=cameras)
    sizes = {"n_obs_steps": config.n_obs_steps, "horizon": config.horizon, "n_future": len(config.future)}
    return fake_batch(embodiment, size=size, seed=seed, **sizes)


def observed(policy: Policy, batch: Batch) -> Observation:
    """What the network observes of a batch, all with the first instruction."""
    seen = policy.transforms.seen(batch.images, batch.depth)
    words = torch.zeros(len(batch), dtype=torch.int64)
    return policy.transforms.observe(seen, present(policy.transforms, batch, seen), batch.state, words)


def losses(policy: Policy, *batches: Batch, seed: int = 0, **options) -> Losses:
    """The training loss of batches side by side, all with the first instruction; options: of `objective`."""
    pairs = [(batch, torch.zeros(len(batch), dtype=torch.int64)) for batch in batches]
    return objective(policy.model, policy.transforms, pairs, torch.Generator().manual_seed(seed), **options)
