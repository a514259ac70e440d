"""Measurements against a named baseline in the same run: ``foreact bench NAME``."""

from collections.abc import Callable, Mapping
from typing import Any

from ...envs.errors import choose


def _render(config: Mapping[str, Any]) -> None:
    from .render import bench_render

    bench_render(config["task"], seconds=config["seconds"], size=config["pixels"])


def _train(config: Mapping[str, Any]) -> None:
    from ...policy.config import ModelConfig, build
    from .model import bench_train

    bench_train(build(ModelConfig, config["model"], "model"), device=config["device"])


def _act(config: Mapping[str, Any]) -> None:
    from ...policy.config import ModelConfig, build
    from .act import bench_act

    options = {name: config[name] for name in ("device", "threads", "tokens", "steps")}
    bench_act(build(ModelConfig, config["model"], "model"), peer=config["lerobot"], **options)


BENCHES: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "render": _render,
    "train": _train,
    "act": _act,
}


def bench(name: str, config: Mapping[str, Any]) -> None:
    """Run one benchmark with the settings of configs/bench.yaml. The last line it prints is its ratio."""
    BENCHES[choose(name, BENCHES, "benchmark")](config)
