"""Measurements against a named baseline in the same run: ``foreact bench NAME``."""

from collections.abc import Callable, Mapping
from typing import Any

from ...envs.errors import choose


def _render(config: Mapping[str, Any]) -> None:
    from .render import bench_render

    bench_render(config["task"], seconds=config["seconds"], size=config["pixels"])


def _train(config: Mapping[str, Any]) -> None:
    from .train import bench_train

    options = _options(config, "device", "threads", "growth", "out", "batch_size")
    bench_train(_preset(config), peer=config["lerobot"], **options)


def _act(config: Mapping[str, Any]) -> None:
    from .act import bench_act

    options = _options(config, "device", "growth", "out", "tokens", "steps")
    bench_act(_preset(config), peer=config["lerobot"], threads=config["threads"] or 1, **options)


def _preset(config: Mapping[str, Any]) -> Any:
    from ...policy.config import ModelConfig, build

    return build(ModelConfig, config["model"], "model")


def _options(config: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: config[name] for name in names}


BENCHES: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "render": _render,
    "train": _train,
    "act": _act,
}


def bench(name: str, config: Mapping[str, Any]) -> None:
    """Run one benchmark with the settings of configs/bench.yaml. The last line it prints is its ratio."""
    BENCHES[choose(name, BENCHES, "benchmark")](config)
