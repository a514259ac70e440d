"""The sizes of a preset on a store, before anything is trained."""

from pathlib import Path

from ..data.store import Store
from .config import ModelConfig
from .device import resolve_device, resolve_precision
from .model import Model
from .trainer import TrainConfig


def describe(model: ModelConfig, data: Path | str, train: TrainConfig) -> str:
    """Parameters, tokens, pixels, chunk length and the amount of data, as text."""
    with Store.open(data) as store:
        network = Model(model, store.embodiment, len(store.tasks))
        steps, episodes, tasks, hz = store.n_steps, len(store), len(store.tasks), store.embodiment.control_hz
    count = sum(p.numel() for p in network.parameters())
    parts = {name: sum(p.numel() for p in child.parameters()) for name, child in network.named_children()}
    context = network.image_tokens() + model.n_obs_steps + 1
    device = resolve_device(train.device)
    seen = train.steps * train.batch_size * train.accumulate
    segments = ", ".join(f"{name} {tokens} x {channels}" for name, (tokens, channels) in network.segments.items())
    rows = [
        ("model", model.name),
        ("parameters", f"{count:,} ({', '.join(f'{k} {v:,}' for k, v in parts.items() if v)})"),
        (
            "context tokens",
            f"{context}: {network.image_tokens()} image, {model.n_obs_steps} state, 1 instruction",
        ),
        ("denoised tokens", f"{segments} (tokens x channels)"),
        ("draws a sample", ", ".join(f"{n} {query}" for query, n in model.draws.items())),
        ("pixels", f"{model.pixels} x {model.pixels}"),
        (
            "chunk",
            f"{model.horizon} actions ({1000 * model.horizon / hz:.0f} ms), {model.n_action_steps} executed",
        ),
        ("solver", f"{model.solver.rule}, {model.solver.steps} steps"),
        ("data", f"{episodes} episodes, {steps:,} steps, {tasks} task(s)"),
        ("training", f"{train.steps} updates, {seen:,} samples = {seen / steps:.1f} passes, on {device}"),
        ("precision", resolve_precision(train.precision, device)),
    ]
    return "\n".join(f"{name:16} {value}" for name, value in rows)
