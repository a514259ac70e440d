"""Speed of a preset on made-up data: training steps and control steps, each against a named plain baseline."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ...data.batch import fake_batch
from ...data.normalize import Normalizer
from ...envs.metaworld_tasks import EMBODIMENT
from ...policy.config import ModelConfig
from ...policy.device import autocast, describe_machine, resolve_device, resolve_precision
from ...policy.loss import objective
from ...policy.model import Model
from ...policy.policy import Policy
from ...policy.segments import Role, role_of
from ...policy.sentences import Sentences
from ...policy.transforms import Transforms

console = Console()


def fake_policy(config: ModelConfig, device: str = "cpu") -> Policy:
    """An untrained policy of that preset for the Metaworld arm."""
    rng = np.random.default_rng(0)
    sizes = {"state": EMBODIMENT.state_dim, "action": EMBODIMENT.action_dim, "privileged": EMBODIMENT.privileged_dim}
    normalizers = {
        k: Normalizer.fit(rng.standard_normal((64, n)).astype(np.float32), "gaussian") for k, n in sizes.items()
    }
    config = dataclasses.replace(config, instruction="table")
    cameras = tuple(dataclasses.replace(c, height=config.pixels, width=config.pixels) for c in EMBODIMENT.cameras)
    embodiment = dataclasses.replace(EMBODIMENT, cameras=cameras)
    torch.manual_seed(0)
    model = Model(config, embodiment, 1)
    transforms = Transforms(config, embodiment, normalizers, tokenizer=model.tokenizer)
    return Policy(model, transforms, Sentences("table", ("go",)), ["x/go"], device)


def bench_train(config: ModelConfig, *, device: str = "auto", batch_size: int = 64, rounds: int = 5) -> None:
    """Samples and tokens a second of a training step, and the share of this machine's measured bf16 matmul rate.

    The baseline encodes the observation anew for every noise draw, as a plain loop does.
    """
    device = resolve_device(device)
    precision = resolve_precision("auto", device)
    draws = sum(config.draws.values())
    once = _step_seconds(config, device, precision, batch_size, rounds)
    single = [
        _step_seconds(dataclasses.replace(config, draws={query: 1}), device, precision, batch_size, rounds) * n
        for query, n in config.draws.items()
    ]
    tokens, flops = _work(config)
    peak = _matmul_rate(device)
    table = Table("", "samples/s", "tokens/s", "TFLOP/s", f"of {peak:.2f} bf16", title=f"train · {config.name}")
    for name, seconds, tokens_here, flops_here in (
        (f"encoded once for {draws} draws", once, tokens, flops),
        ("encoded for every draw", sum(single), tokens, flops),
    ):
        rate = batch_size / seconds
        table.add_row(
            name, f"{rate:.1f}", f"{rate * tokens_here:,.0f}", f"{rate * flops_here / 1e12:.3f}",
            f"{rate * flops_here / 1e12 / peak:.0%}",
        )  # fmt: skip
    console.print(table, machine(device), f"precision {precision}, batch {batch_size}, {tokens:g} tokens a sample")
    print(f"ratio {sum(single) / once:.2f}x")


def _step_seconds(config: ModelConfig, device: str, precision: str, batch_size: int, rounds: int) -> float:
    policy = fake_policy(config, device)
    model, embodiment = policy.model.train(), policy.embodiment
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = fake_batch(
        embodiment, size=batch_size, n_obs_steps=config.n_obs_steps, horizon=config.horizon, n_future=len(config.future)
    ).to(device)
    sentence = torch.zeros(batch_size, dtype=torch.int64, device=device)

    def step() -> None:
        generator = torch.Generator(device).manual_seed(0)
        with autocast(precision, device):
            loss = objective(model, policy.transforms, [(batch, sentence)], generator, image_shift=4).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return _milliseconds(step, rounds, device) / 1000


def _work(config: ModelConfig) -> tuple[float, float]:
    """Tokens through the backbone for one sample, and its training FLOPs: 6 for each block weight and token."""
    policy = fake_policy(config)
    model = policy.model
    observed = config.layout == "tokens"
    tokens = float(model.image_tokens() + config.n_obs_steps + 1 if observed else 0)
    for query, draws in config.draws.items():
        tokens += draws * sum(s.tokens for name, s in model.segments.items() if role_of(query, name) != Role.ABSENT)
    weights = sum(p.numel() for p in model.backbone.blocks.parameters())
    return tokens, 6.0 * weights * tokens


def _matmul_rate(device: str) -> float:
    """TFLOP/s of a 2048 x 2048 bf16 product."""
    a = torch.randn(2048, 2048, device=device, dtype=torch.bfloat16)
    return 2 * 2048**3 / (_milliseconds(lambda: a @ a, 10, device) / 1000) / 1e12


def _milliseconds(run: Callable[[], Any], rounds: int, device: str = "cpu") -> float:
    """Median wall time of `run` after two calls that warm up."""
    times = []
    for i in range(rounds + 2):
        began = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        if i >= 2:
            times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times))


def machine(device: str) -> str:
    return f"{device}: " + ", ".join(f"{k} {v}" for k, v in describe_machine().items())
