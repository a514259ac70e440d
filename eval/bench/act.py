"""Speed of a control step: one observation in, one chunk of actions out, on one thread."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from ...envs.metaworld_tasks import EMBODIMENT
from ...policy.config import ModelConfig, SolverConfig
from ...policy.device import resolve_device
from ...policy.exported import Exported, export
from ...policy.inputs import observe
from ...policy.policy import Policy
from ...policy.segments import QUERIES
from ...policy.tokens.images import ImageConfig
from .model import console, fake_policy, machine
from .peers import lerobot

PLAIN = "no cache, no plan"
SMALLEST = {"down_dims": [32, 64, 128]}  # of lerobot's UNet; its image encoder alone has 11 M parameters


def act_arms(config: ModelConfig) -> dict[str, ModelConfig]:
    """What a control step is compared with: everything computed anew at every solver step, and acting that never
    learned to foresee anything (the same sizes)."""
    arms = {"as it is": config}
    cache = False if config.layout == "tokens" else None
    arms[PLAIN] = dataclasses.replace(config, solver=dataclasses.replace(config.solver, cache=cache, plan=False))
    if config.layout == "tokens" and config.future:
        blind = {query: n for query, n in config.draws.items() if "future" not in QUERIES[query]}
        arms["actions alone"] = dataclasses.replace(config, future=(), draws=blind or {"policy": 1})
    return arms


def bench_act(
    config: ModelConfig,
    *,
    device: str = "auto",
    rounds: int = 20,
    threads: int | None = 1,
    tokens: Sequence[int] = (18, 64, 256),
    steps: int = 500,
    peer: str | None = None,
) -> None:
    """Milliseconds of a control step, arms in alternation; how they grow with observation tokens; the spread of `steps`
    control steps. threads: None leaves PyTorch's · peer: an interpreter that has lerobot.
    """
    device = resolve_device(device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with tempfile.TemporaryDirectory() as folder:
            arms = {name: fake_policy(arm, device) for name, arm in act_arms(config).items()}
            if device == "cpu" and all(find_spec(name) for name in ("onnxscript", "onnxruntime")):
                arms |= _exported(config, Path(folder))
            took = alternating({name: partial(step, policy) for name, policy in arms.items()}, rounds)
        counts = {name: sum(p.numel() for p in policy.model.parameters()) for name, policy in arms.items()}
        if peer:
            found = {f"lerobot Diffusion{how}": _lerobot(peer, config, settings, rounds)
                     for how, settings in (("", {}), (", smallest UNet", SMALLEST))}  # fmt: skip
            took |= {name: float(np.median(row["ms"])) for name, row in found.items()}
            counts |= {name: row["parameters"] for name, row in found.items()}
        _show(config, took, counts)
        if config.layout == "tokens" and tokens:
            _growth(config, device, tokens, rounds)
        if steps:
            _spread(arms["as it is"], steps)
        console.print(machine(device))
    finally:
        torch.set_num_threads(before)
    if "actions alone" in took:
        print(f"against actions alone: {took['as it is'] / took['actions alone']:.2f}x the time")
    print(f"ratio {took[PLAIN] / took['as it is']:.2f}x")


def step(policy: Policy) -> np.ndarray:
    """A chunk for one made-up observation."""
    return policy.act([_seen(policy)], ["go"], [(0, 0, 0)])


def _seen(policy: Policy) -> dict[str, Any]:
    n = policy.n_obs_steps
    images = {c.name: np.zeros((n, c.height, c.width, 3), np.uint8) for c in policy.embodiment.cameras}
    return {"images": images, "state": np.zeros((n, policy.embodiment.state_dim), np.float32)}


def alternating(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, run in turns, so that what slows the machine slows all."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds + 2):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if i >= 2:
                times[name].append(1000 * (time.perf_counter() - began))
    return {name: float(np.median(values)) for name, values in times.items()}


def _exported(config: ModelConfig, folder: Path) -> dict[str, Policy]:
    """The same network as ONNX graphs."""
    plain = fake_policy(config)
    foresee = config.layout == "stacked"
    observed = observe(plain.transforms, plain.sentences, "cpu", [_seen(plain)] * 2, ["go"] * 2, foresee=foresee)
    export(plain.model, observed, folder)
    arms = {}
    for name, precision in (("onnx", "fp32"), ("onnx-int8", "int8")):
        arms[name] = fake_policy(config)
        arms[name].model = Exported(arms[name].model, folder, precision)
    return arms


def _lerobot(python: str, config: ModelConfig, settings: dict[str, Any], rounds: int) -> dict[str, Any]:
    sizes = {"pixels": config.pixels, "state": EMBODIMENT.state_dim, "action": EMBODIMENT.action_dim}
    return lerobot(python, "act", torch.get_num_threads(), **sizes, rounds=min(rounds, 5), settings=settings)


def _show(config: ModelConfig, took: Mapping[str, float], counts: Mapping[str, int]) -> None:
    table = Table(
        "", "ms a chunk", "times as fast as it is", "M parameters", title=f"act · {config.name}, one observation"
    )
    for name, ms in took.items():
        table.add_row(name, f"{ms:.1f}", f"{took['as it is'] / ms:.2f}", f"{counts[name] / 1e6:.1f}")
    console.print(table)


def _growth(config: ModelConfig, device: str, tokens: Sequence[int], rounds: int) -> None:
    """With the cache and the plan, and without, for more and more observation tokens."""
    title = "observation tokens: speed-up of cache and plan, beside that of token evaluations"
    table = Table("tokens", "ms", f"ms, {PLAIN}", "speed-up", "of token evaluations", title=title)
    for wanted in tokens:
        side = max(1, round(wanted**0.5))
        image = ImageConfig(stem="patch", patch=max(1, config.pixels // side))
        seen = dataclasses.replace(config, image=image, n_obs_steps=1, solver=SolverConfig(steps=config.solver.steps))
        arms = {name: fake_policy(arm, device) for name, arm in act_arms(seen).items() if name in ("as it is", PLAIN)}
        took = alternating({name: partial(step, policy) for name, policy in arms.items()}, rounds)
        model = arms[PLAIN].model
        context, chunk, n = model.image_tokens() + 2, model.segments["action"].tokens, seen.solver.steps
        evaluations = n * (context + chunk) / (context + n * chunk)
        gain = took[PLAIN] / took["as it is"]
        table.add_row(
            str(context), f"{took['as it is']:.1f}", f"{took[PLAIN]:.1f}", f"{gain:.2f}", f"{evaluations:.2f}"
        )
    console.print(table)


def _spread(policy: Policy, steps: int) -> None:
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        step(policy)
        times.append(1000 * (time.perf_counter() - began))
    p50, p99 = np.percentile(times, [50, 99])
    console.print(f"{steps} control steps: median {p50:.1f} ms, 99 % within {p99:.1f} ms, slowest {max(times):.1f} ms")
