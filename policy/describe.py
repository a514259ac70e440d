"""The sizes of a preset on a store, before anything is trained."""

from typing import Any

from ..common import machine
from ..data.mixture import Mixture
from ..envs.spec import Embodiment
from .config import ModelConfig
from .device import Placement, resolve
from .fitting import TrainConfig
from .latents import TokenizerConfig
from .model import Model
from .nn.experts import Experts
from .tokens.kl import Tokenizer


def describe(model: ModelConfig | TokenizerConfig, data: Any, train: TrainConfig) -> str:
    """Parameters, tokens, pixels, chunk length and the amount of data, as text."""
    if isinstance(model, TokenizerConfig):
        return _describe_tokenizer(model)
    mixture = Mixture(data, model.windows, held_out=train.held_out, seed=train.seed, reader=train.reader)
    network = Model(model, mixture.rig, len(mixture.tasks))
    steps, episodes = (
        sum(len(x) for x in parts) for parts in (mixture.datasets, [d.episodes for d in mixture.datasets])
    )
    tasks, robots = len(mixture.tasks), [_robot(model, robot) for robot in mixture.robots.values()]
    count = sum(p.numel() for p in network.parameters())
    parts = {name: sum(p.numel() for p in child.parameters()) for name, child in network.named_children()}
    idle = sum(module.idle for module in network.modules() if isinstance(module, Experts))
    active = f", {count - idle:,} of them active" if idle else ""
    observed = model.layout != "stacked"
    context = network.image_tokens() + model.n_obs_steps + model.rate_token + 1 if observed else 0
    placed = resolve(train.device, train.precision, train.kernels, train.threads)
    seen = train.steps * train.batch_size * train.accumulate
    segments = ", ".join(f"{name} {s.tokens} x {s.width}" for name, s in network.segments.items())
    rows = [
        ("model", model.name),
        ("parameters", f"{count:,}{active} ({', '.join(f'{k} {v:,}' for k, v in parts.items() if v)})"),
        (
            "context tokens",
            f"{context}: {network.image_tokens()} image, {model.n_obs_steps} state, "
            f"{'1 control rate, ' if model.rate_token else ''}1 instruction"
            if observed
            else "none: the observation joins the channels, the instruction the time",
        ),
        ("denoised tokens", f"{segments} (tokens x channels)"),
        ("draws a sample", ", ".join(f"{n:g} {query}" for query, n in model.draws.items())),
        ("pixels", f"{model.pixels} x {model.pixels}"),
        (
            "chunk",
            f"poses {', '.join(map(str, model.future))} steps ahead, {model.n_action_steps} driven to"
            if model.poses
            else "; ".join(robots),
        ),
        ("solver", f"{model.solver.rule}, {model.solver.steps} steps"),
        ("data", f"{episodes} episodes to learn from, {steps:,} steps, {tasks} task(s)"),
        ("training", f"{train.steps} updates, {seen:,} samples = {seen / steps:.1f} passes, on {placed.device}"),
        ("precision", _precision(placed)),
    ]
    return "\n".join(f"{name:16} {value}" for name, value in rows)


def _precision(placed: Placement) -> str:
    """What is multiplied how, and how fast that is here."""
    if placed.device != "cpu":
        return placed.precision
    rates, kernels = (
        machine.products(placed.device),
        f", {placed.kernels} kernels" if placed.precision == "fp32" else "",
    )
    found = f"bf16 {rates.bfloat16:.0f} GFLOP/s, fp32 {max(rates.float32, rates.float32_onednn):.0f}"
    return f"{placed.precision}{kernels} ({found} on {placed.threads} threads)"


def _robot(model: ModelConfig, robot: Embodiment) -> str:
    """The chunk of a robot."""
    n = model.windows.on(robot.control_hz).horizon
    executed = min(model.n_action_steps, n)
    return f"{n} actions ({1000 * n / robot.control_hz:.0f} ms) of {robot.name}, {executed} executed"


def _describe_tokenizer(model: TokenizerConfig) -> str:
    sizes, side = model.autoencoder, model.autoencoder.side(model.pixels)
    count = sum(p.numel() for p in Tokenizer(sizes).parameters())
    numbers = side * side * sizes.latent
    rows = [
        ("model", model.name),
        ("parameters", f"{count:,}"),
        ("frame", f"{model.pixels} x {model.pixels} x 3"),
        ("latent", f"{side} x {side} x {sizes.latent}: {3 * model.pixels**2 / numbers:.0f} times fewer numbers"),
    ]
    return "\n".join(f"{name:16} {value}" for name, value in rows)
