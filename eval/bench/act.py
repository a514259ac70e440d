"""Speed of a control step: one observation in, one chunk of actions out, on one thread."""

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from ...policy.config import ModelConfig
from ...policy.device import on_threads, resolve_device
from ...policy.exported import export
from ...policy.inputs import observe
from ...policy.policy import Policy
from ...policy.runtimes import EXPORTED, FOLDER, at_work
from ...policy.tokens.images import ImageConfig
from .experts import bench_experts
from .model import alone, deeper, fake_policy, fake_seen
from .peers import SIZES, Peer, check_peer, diffusion, lerobot
from .timing import Curves, Times, alternating, console, draw_growth, machine, median, milliseconds, show

TUNED, PLAIN, BLIND, DEEPER = "as it is", "no cache, no plan", "actions alone", "as it is, deeper"
STUDENT = f"{DEEPER}, 2 steps"
"""What lerobot is compared with at its own size: with the preset's solver, and with that of a distilled student."""
SOLVER_STEPS, CAMERAS = (2, 5, 10, 20), (1, 2, 3)
"""What the growth plot goes through, beside observation tokens."""


def act_arms(config: ModelConfig) -> dict[str, ModelConfig]:
    """What a control step is compared with: everything computed anew at every solver step, and acting that never
    learned to foresee anything (the same sizes)."""
    arms = {TUNED: config}
    cache = False if config.layout == "tokens" else None
    arms[PLAIN] = dataclasses.replace(config, solver=dataclasses.replace(config.solver, cache=cache, plan=False))
    if config.layout == "tokens" and config.future:
        arms[BLIND] = alone(config)
    return arms


def bench_act(
    config: ModelConfig,
    *,
    device: str = "auto",
    rounds: int = 20,
    threads: int | None = 1,
    tokens: Sequence[int] = (18, 64, 256),
    steps: int = 500,
    growth: bool = True,
    peer: str | None = None,
    out: Path | str = "bench",
) -> None:
    """Milliseconds of a control step, arms in alternation; how they grow with observation tokens; the spread of `steps`
    control steps. threads: None leaves PyTorch's · growth: plot it · peer: an interpreter that has lerobot.
    """
    device = resolve_device(device)
    check_peer(peer, device)
    with on_threads(threads):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as peers:
            theirs = _peers(peer, config, peers) if peer else {}
            counts = {name: run.about["parameters"] for name, run in theirs.items()}
            arms = _ways(config, device, Path(folder), min(counts.values(), default=None))
            counts |= {name: sum(p.numel() for p in policy.model.parameters()) for name, policy in arms.items()}
            runs = {name: partial(step, policy) for name, policy in arms.items()}
            times = alternating({**runs, **theirs}, min(rounds, 5) if peer else rounds, device)
        columns = {"M parameters": {name: f"{n / 1e6:.1f}" for name, n in counts.items()}}
        show(f"act · {config.name}, one observation, {torch.get_num_threads()} thread(s)", times, PLAIN, columns)
        if config.backbone.experts is not None and config.backbone.experts.by_time:
            bench_experts(config, device, rounds)
        if config.layout == "tokens":
            _growth(config, device, tokens, rounds, Path(out) / "act.png", plot=growth)
        if steps:
            _spread(arms[TUNED], steps)
        console.print(machine(device))
    took = median(times)
    if BLIND in took:
        print(f"against {BLIND}: {took[TUNED] / took[BLIND]:.2f}x the time")
    print(f"ratio {took[PLAIN] / took[TUNED]:.2f}x")


def _ways(config: ModelConfig, device: str, folder: Path, smallest: int | None) -> dict[str, Policy]:
    """All our ways to act. smallest: parameters of the smallest network of others, to have as many."""
    ways = {name: fake_policy(arm, device) for name, arm in act_arms(config).items()}
    runtimes = _runtimes(config, device)
    ways |= _exported(config, folder / "own", runtimes)
    if smallest is None:
        return ways
    same = deeper(config, smallest)
    fewer = dataclasses.replace(same, solver=dataclasses.replace(same.solver, steps=2))
    ways |= {DEEPER: fake_policy(same, device), STUDENT: fake_policy(fewer, device)}
    students = _exported(fewer, folder / "student", [name for name in runtimes if name == "onnx-int8"])
    return ways | {f"{STUDENT}, {runtime}": policy for runtime, policy in students.items()}


def _runtimes(config: ModelConfig, device: str) -> list[str]:
    """Those that can be had here of the runtimes that need an export."""
    experts = config.backbone.experts
    known = experts is None or experts.by_time  # else it cannot be exported
    if not known or device != "cpu" or not all(find_spec(name) for name in ("onnxscript", "onnxruntime")):
        return []
    return [name for name in EXPORTED if name != "aot" or shutil.which("g++")]  # it compiles C++


def step(policy: Policy) -> np.ndarray:
    """A chunk for one made-up observation."""
    return policy.act([fake_seen(policy)], ["go"], [(0, 0, 0)])


def _exported(config: ModelConfig, folder: Path, runtimes: Sequence[str]) -> dict[str, Policy]:
    """The same network in runtimes that need an export."""
    plain = fake_policy(config)
    foresee = config.layout == "stacked"
    observed = observe(plain.transforms, plain.sentences, "cpu", [fake_seen(plain)] * 2, ["go"] * 2, foresee=foresee)
    if runtimes:
        export(plain.model, observed, folder / FOLDER, runtimes)
    arms = {}
    for name in runtimes:
        arms[name] = fake_policy(config)
        arms[name].model = at_work(arms[name].model, name, folder, "cpu")
    return arms


def _peers(python: str, config: ModelConfig, stack: contextlib.ExitStack) -> dict[str, Peer]:
    """lerobot's Diffusion policy in both sizes, as it comes (100 DDPM steps) and at its fastest (10 DDIM steps)."""
    ways = {"100 DDPM steps": {}, "10 DDIM steps": {"noise_scheduler_type": "DDIM", "num_inference_steps": 10}}
    peers = {}
    for size, settings in SIZES.items():
        for way, solver in ways.items():
            asked = diffusion(config, **settings, **solver)
            peers[f"{size}, {way}"] = stack.enter_context(lerobot(python, "act", torch.get_num_threads(), **asked))
    return peers


def _growth(config: ModelConfig, device: str, tokens: Sequence[int], rounds: int, file: Path, *, plot: bool) -> None:
    """With the cache and the plan, and without: more observation tokens as a table, and all that grows as a plot."""
    title = "observation tokens: speed-up of cache and plan, beside that of token evaluations"
    table = Table("tokens", "ms", f"ms, {PLAIN}", "speed-up", "of token evaluations", title=title)
    by_tokens: Curves = {TUNED: {}, PLAIN: {}}
    for wanted in tokens:
        side = max(1, round(wanted**0.5))
        image = ImageConfig(stem="patch", patch=max(1, config.pixels // side))
        preset = dataclasses.replace(config, image=image, n_obs_steps=1)
        model = fake_policy(preset).model
        context, chunk, n = model.image_tokens() + 2, model.segments["action"].tokens, preset.solver.steps
        times = _both(preset, device, rounds)
        for name, values in times.items():
            by_tokens[name][context] = values
        took, evaluations = median(times), n * (context + chunk) / (context + n * chunk)
        ms, plain = took[TUNED], took[PLAIN]
        table.add_row(str(context), f"{ms:.1f}", f"{plain:.1f}", f"{plain / ms:.2f}", f"{evaluations:.2f}")
    console.print(table)
    if not plot:
        return
    solvers = {n: dataclasses.replace(config.solver, steps=n) for n in SOLVER_STEPS}
    by_steps = {n: _both(dataclasses.replace(config, solver=s), device, 5) for n, s in solvers.items()}
    by_cameras = {n: _both(config, device, 5, cameras=n) for n in CAMERAS}
    panels = {"observation tokens": by_tokens, "solver steps": _curves(by_steps), "cameras": _curves(by_cameras)}
    draw_growth(file, panels)


def _curves(rows: Mapping[int, Times]) -> Curves:
    return {name: {at: times[name] for at, times in rows.items()} for name in (TUNED, PLAIN)}


def _both(config: ModelConfig, device: str, rounds: int, cameras: int = 1) -> Times:
    arms = act_arms(config)
    policies = {name: fake_policy(arms[name], device, cameras=cameras) for name in (TUNED, PLAIN)}
    return alternating({name: partial(step, policy) for name, policy in policies.items()}, rounds, device)


def _spread(policy: Policy, steps: int) -> None:
    times = [milliseconds(partial(step, policy)) for _ in range(steps)]
    p50, p99 = np.percentile(times, [50, 99])
    console.print(f"{steps} control steps: median {p50:.1f} ms, 99 % within {p99:.1f} ms, slowest {max(times):.1f} ms")
