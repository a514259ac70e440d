"""Measurements against a named baseline in the same run: ``foreact bench NAME``."""

from collections.abc import Callable, Mapping
from typing import Any

from ...envs.errors import UserError, choose


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


def _loader(config: Mapping[str, Any]) -> None:
    from .loader import bench_loader

    options = _options(config, "pixels", "batch_size", "workers", "growth", "out")
    bench_loader(config["data"], peer=config["lerobot"], **options)


def _eval(config: Mapping[str, Any]) -> None:
    from .rollouts import bench_eval

    bench_eval(
        _checkpoint(config, "eval"),
        config["tasks"],
        peer=config["lerobot"],
        **_options(config, "episodes", "device", "runtime", "growth", "out"),
    )


def _control(config: Mapping[str, Any]) -> None:
    from .control import bench_control

    options = _options(config, "minutes", "hz", "mode", "device", "runtime", "out")
    tasks = config["tasks"] or [None]
    bench_control(_checkpoint(config, "control"), tasks[0], threads=config["threads"] or 1, **options)


def _serve(config: Mapping[str, Any]) -> None:
    from .serve import bench_serve

    bench_serve(_checkpoint(config, "serve"), **_options(config, "clients", "seconds", "device", "runtime", "out"))


def _faults(config: Mapping[str, Any]) -> None:
    from .faults import bench_faults

    tasks = config["tasks"] or [None]
    options = _options(config, "hz", "device", "runtime", "out")
    bench_faults(_checkpoint(config, "faults"), tasks[0], only=config["fault"], **options)


def _checkpoint(config: Mapping[str, Any], name: str) -> Any:
    if config["checkpoint"] is None:
        raise UserError(f"foreact bench {name} needs checkpoint=RUN, a policy to {WORKS[name]}")
    return config["checkpoint"]


def _preset(config: Mapping[str, Any]) -> Any:
    from ...policy.config import ModelConfig
    from ...policy.settings import build

    return build(ModelConfig, config["model"], "model")


def _options(config: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: config[name] for name in names}


BENCHES: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "render": _render,
    "train": _train,
    "act": _act,
    "loader": _loader,
    "eval": _eval,
    "control": _control,
    "serve": _serve,
    "faults": _faults,
}
WORKS = {"eval": "roll out", "control": "drive with", "serve": "serve", "faults": "drive with"}
"""What those that need a checkpoint do with it."""


def bench(name: str, config: Mapping[str, Any]) -> None:
    """Run one benchmark with the settings of configs/bench.yaml. The last line it prints is what it found."""
    BENCHES[choose(name, BENCHES, "benchmark")](config)
