"""Measurements against a named baseline in the same run: ``foreact bench NAME``."""

from collections.abc import Callable, Mapping
from typing import Any

from ...envs.errors import choose


def _render(config: Mapping[str, Any]) -> None:
    from .render import bench_render

    bench_render(config["task"], seconds=config["seconds"], size=config["pixels"])


def _model(name: str) -> Callable[[Mapping[str, Any]], None]:
    def run(config: Mapping[str, Any]) -> None:
        from ...policy.config import ModelConfig, build
        from . import model

        getattr(model, f"bench_{name}")(build(ModelConfig, config["model"], "model"), device=config["device"])

    return run


BENCHES: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "render": _render,
    "train": _model("train"),
    "act": _model("act"),
}


def bench(name: str, config: Mapping[str, Any]) -> None:
    """Run one benchmark with the settings of configs/bench.yaml. The last line it prints is its ratio."""
    BENCHES[choose(name, BENCHES, "benchmark")](config)
