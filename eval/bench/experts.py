"""What experts cost when acting, fused and routed, beside dense layers as wide as the active ones and as all."""

import dataclasses
from functools import partial

import numpy as np
import torch
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from ...policy.config import ModelConfig
from ...policy.nn.config import ExpertsConfig
from ...policy.nn.experts import Experts
from ...policy.nn.linear import unpacked
from ...policy.policy import Policy
from .model import fake_policy, fake_seen
from .timing import alternating, console, median

FUSED, ROUTED, ACTIVE, TOTAL = "fused", "routed", "dense, as wide as the active", "dense, as wide as all"
BATCHES = (1, 64)


def expert_arms(config: ModelConfig) -> dict[str, ModelConfig]:
    """The preset and the two dense ones beside it."""
    experts = config.backbone.experts
    assert experts is not None
    return {
        ACTIVE: _dense(config, experts, experts.chosen),
        FUSED: config,
        ROUTED: dataclasses.replace(config, solver=dataclasses.replace(config.solver, plan=False)),
        TOTAL: _dense(config, experts, experts.number),
    }


def _dense(config: ModelConfig, experts: ExpertsConfig, count: int) -> ModelConfig:
    ratio = config.backbone.mlp_ratio * (count + experts.shared)
    return dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, experts=None, mlp_ratio=ratio))


def bench_experts(config: ModelConfig, device: str, rounds: int) -> None:
    """A table for each batch: latency, FLOPs and bytes of weights read of a chunk of actions."""
    policies = {name: fake_policy(arm, device) for name, arm in expert_arms(config).items()}
    for batch in BATCHES:
        times = alternating(
            {name: partial(chunk, policy, batch) for name, policy in policies.items()},
            max(5, rounds // (1 + batch // 8)),
            device,
        )
        took = median(times)
        title = f"experts · {config.name}, {batch} observation(s), {torch.get_num_threads()} thread(s)"
        table = Table("", "ms", "middle half", "times the first", "GFLOPs", "MB of weights read", title=title)
        for name, policy in policies.items():
            low, high = np.percentile(times[name], [25, 75])
            cells = [f"{took[name]:.3g}", f"{low:.3g} to {high:.3g}", f"{took[name] / took[ACTIVE]:.2f}"]
            table.add_row(name, *cells, f"{flops(policy, batch) / 1e9:.2f}", f"{weights_read(policy) / 1e6:.0f}")
        console.print(table)
    (plan,) = policies[FUSED]._plans._kept.values()
    console.print(f"The step plan keeps {plan.nbytes / 1e6:.1f} MB")


def chunk(policy: Policy, batch: int) -> np.ndarray:
    """Actions for so many observations."""
    return policy.act([fake_seen(policy)] * batch, ["go"] * batch, [(0, i) for i in range(batch)])


def flops(policy: Policy, batch: int) -> int:
    """Of matrix products, counted while it acts."""
    with unpacked(), FlopCounterMode(display=False) as counter:
        chunk(policy, batch)
    return counter.get_total_flops()


def weights_read(policy: Policy) -> int:
    """Bytes of the blocks' weights that the evaluations of one chunk read, each once an evaluation."""
    blocks = policy.model.backbone.blocks
    idle = sum(block.mlp.idle for block in blocks if isinstance(block.mlp, Experts))
    return 4 * (sum(p.numel() for p in blocks.parameters()) - idle) * policy.config.solver.steps
