"""The training loop: it reads from top to bottom, logs, validates, saves and stops when asked."""

import contextlib
import dataclasses
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ..data.sources import Source, sources_of
from ..envs.errors import UserError
from .checkpoint import find_checkpoint, find_finished, load_policy
from .config import ModelConfig
from .device import Placement, on_threads, resolve, resolve_precision, resolve_threads
from .distill import DistillConfig, Distiller
from .fitting import Batches, Fitting, NotFinite, TrainConfig
from .latents import TokenizerConfig, TokenizerTrainer, load_tokenizer
from .progress import training_bar
from .run_folder import RunFolder, draw_curves, recorded_placement
from .settings import build, defaults_of
from .trainer import Trainer

log = logging.getLogger(__name__)

Preset = ModelConfig | TokenizerConfig | DistillConfig
"""What can be trained: a policy, a tokenizer of frames, or a faster student of a policy."""

Evaluate = Callable[[Any, int], dict[str, float]]
"""Rollouts during training: (policy with averaged weights, step) → numbers to log."""


def build_preset(values: Mapping[str, Any]) -> Preset:
    """A preset of any kind from its settings, as in configs/model. Raises `UserError` for unknown ones."""
    kind = TokenizerConfig if "autoencoder" in values else DistillConfig if "substeps" in values else ModelConfig
    return build(kind, values, "model")


def train(
    data: Any,
    model: Preset,
    config: TrainConfig,
    out: Path | str,
    *,
    tokenizer: Path | str | None = None,
    teacher: Path | str | None = None,
    labels: Path | str | None = None,
    init: Path | str | None = None,
    command: str = "",
    evaluate: Evaluate | None = None,
    progress: bool = True,
) -> Path:
    """Train `model` on `data` and return the run folder. The same call resumes where it stopped.

    data: the path of a store, or a list of paths and of mappings with the fields of `data.sources.Source` · tokenizer:
    a run that trained one, whose latents the policy is to foresee in the place of pixels · teacher: the run whose
    policy a `DistillConfig` distils · labels: the run whose inverse dynamics tells the actions of sources without them
    · init: the run whose policy to begin from; where its layers are dense and the preset's are not, each expert begins
    as a copy.

    Raises `UserError` for a store or configuration that does not fit, and for a loss that is not finite (its batch is
    saved first). SIGTERM and Ctrl-C save a checkpoint and raise `KeyboardInterrupt`.
    """
    placement = place(config, recorded_placement(Path(out)))
    placed = dataclasses.replace(config, **dataclasses.asdict(placement))
    trainer, model = _trainer(data, model, placed, tokenizer, teacher, labels, init)
    settings = {"data": _named(data), "model": dataclasses.asdict(model), "train": dataclasses.asdict(config)}
    settings |= {"origin": dict(trainer.origin)} | ({} if teacher is None else {"teacher": str(teacher)})
    settings |= {} if init is None else {"init": str(init)}
    defaults = {"model": defaults_of(model), "train": defaults_of(config)}
    run = RunFolder(Path(out), settings, command, defaults, placement=dataclasses.asdict(placement))
    if (run.path / "checkpoints" / "latest").is_file():
        trainer.resume(find_checkpoint(run.path))
    run.rewind(trainer.step)
    with (
        contextlib.closing(run),
        on_threads(placement.threads),
        _Interrupts() as interrupts,
        training_bar(trainer.step, config.steps, enabled=progress) as tick,
    ):
        _loop(trainer, run, interrupts, tick, evaluate)
    return run.path


def place(config: TrainConfig, recorded: Mapping[str, Any]) -> Placement:
    """Where a run computes: as it is asked, else as it began (recorded, may be empty), else as is best here.

    It goes on with fewer threads where it began with more than there are here.
    Warns where a run goes on in a precision that is not the faster one of this machine.
    """
    asked = {name: getattr(config, name) for name in ("device", "precision", "kernels", "threads")}
    if asked["device"] not in ("auto", recorded.get("device")):
        recorded = {name: value for name, value in recorded.items() if name != "kernels"}
    if "threads" in recorded:
        recorded = {**recorded, "threads": min(recorded["threads"], resolve_threads())}
    try:
        placement = resolve(**{n: recorded.get(n, v) if v in ("auto", 0) else v for n, v in asked.items()})
    except UserError as error:
        began = f"this run began with device={recorded['device']}, which it goes on with: " if recorded else ""
        raise UserError(f"{began}{error}") from None
    if recorded and asked["precision"] == "auto":
        with on_threads(placement.threads):
            faster = resolve_precision("auto", placement.device)
        if placement.precision != faster:
            log.warning("this run began in %s and goes on with it; %s is faster here", placement.precision, faster)
    return placement


def _trainer(
    data: Any,
    model: Preset,
    config: TrainConfig,
    tokenizer: Path | str | None,
    teacher: Path | str | None,
    labels: Path | str | None,
    init: Path | str | None,
) -> tuple[Fitting, Preset]:
    """What trains, and the preset with the tokenizer's sizes in it."""
    if isinstance(model, DistillConfig) != (teacher is not None):
        raise UserError(f"model {model.name!r}, teacher {teacher}: model=distill and teacher=RUN go together")
    if init is not None and not isinstance(model, ModelConfig):
        raise UserError(f"init={init}: a policy begins from another; model {model.name!r} is none")
    if config.lora and init is None:
        raise UserError(f"lora={config.lora} changes the weights of a trained policy; name its run: init=RUN")
    if isinstance(model, TokenizerConfig):
        return TokenizerTrainer(data, model, config), model
    if isinstance(model, DistillConfig):
        assert teacher is not None
        return Distiller(data, model, config, load_policy(find_finished(teacher), config.device)), model
    loaded = None
    if tokenizer is not None:
        loaded, about = load_tokenizer(tokenizer)
        model = dataclasses.replace(model, latent=about.autoencoder)
    elif model.latent is not None:
        raise UserError(f"model {model.name!r} foresees latents; name the run that trained their tokenizer: tokenizer=")
    others = {
        name: load_policy(find_finished(run), config.device)
        for name, run in (("labels", labels), ("start", init))
        if run is not None
    }
    return Trainer(data, model, config, loaded, **others), model


def _loop(
    trainer: Fitting, run: RunFolder, interrupts: "_Interrupts", tick: Callable, evaluate: Evaluate | None
) -> None:
    config = trainer.config
    batches = _Timed(trainer.batches())
    began, samples = time.perf_counter(), 0
    before = next((r["minutes"] for r in reversed(run.records()) if "minutes" in r), 0.0)  # of a run that goes on
    while trainer.step < config.steps:
        try:
            record: dict[str, Any] = trainer.update(batches)
        except NotFinite as error:
            raise UserError(f"{error}; its batch is in {_keep(error, run.path)}") from error
        step, last = trainer.step, trainer.step == config.steps
        samples += config.batch_size * config.accumulate
        if _due(step, config.val_every) or (last and config.val_every):
            record |= trainer.validate()
        if evaluate is not None and _due(step, config.rollout_every):
            record |= {f"rollout/{k}": v for k, v in evaluate(trainer.averaged(), step).items()}
        if _due(step, config.log_every) or last or any("/" in k and not k.startswith("loss/") for k in record):
            seconds = time.perf_counter() - began
            speed = {"samples_per_s": samples / seconds, "waiting_for_data": batches.waited / seconds}
            speed["minutes"] = before + seconds / 60
            run.log({"step": step, **record, **speed})
        if _due(step, config.save_every) or last or interrupts.asked:
            trainer.save(run.path)
            draw_curves(run.records(), run.path / "curves.png")
            trainer.draw(run.path)
        tick(record)
        if interrupts.asked and not last:
            raise KeyboardInterrupt(f"saved at step {step} of {config.steps}; the same command goes on from there")
    batches.close()


class _Timed:
    """An iterator that counts the seconds that its reader waits for it."""

    def __init__(self, batches: Iterator[Batches]):
        self._batches, self.waited = batches, 0.0

    def __iter__(self) -> "_Timed":
        return self

    def __next__(self) -> Batches:
        began = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self.waited += time.perf_counter() - began

    def close(self) -> None:
        getattr(self._batches, "close", lambda: None)()


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _named(data: Any) -> Any:
    """The data as the run folder records it: a plain path stays one."""
    sources = sources_of(data)
    plain = len(sources) == 1 and sources[0] == Source(path=sources[0].path)
    return sources[0].path if plain else [_entry(source) for source in sources]


def _entry(source: Source) -> dict[str, Any]:
    entry = dataclasses.asdict(source)
    for name in ("weight", "state", "slots", "state_noise", "every"):
        if entry[name] == Source.__dataclass_fields__[name].default:
            del entry[name]  # runs from before there was such a setting go on
    return entry


def _keep(error: NotFinite, run: Path) -> Path:
    path = run / f"not_finite_{error.step:08d}.safetensors"
    tensors: dict[str, Tensor] = {}
    for i, batch in enumerate(error.batches):
        where = "" if len(error.batches) == 1 else f"source{i}/"
        for field in dataclasses.fields(batch):
            value = getattr(batch, field.name)
            parts = (
                {f"{field.name}/{k}": v for k, v in value.items()} if isinstance(value, dict) else {field.name: value}
            )
            tensors |= {where + k: v.contiguous() for k, v in parts.items() if isinstance(v, Tensor)}
    save_file(tensors, path)
    return path


class _Interrupts:
    """SIGINT and SIGTERM ask the loop to save and stop after the step at hand; a second Ctrl-C stops at once."""

    def __enter__(self) -> "_Interrupts":
        self.asked = False
        self._before: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # only the main thread may; elsewhere the caller handles signals
                break
        return self

    def _ask(self, number: int, _: Any) -> None:
        if self.asked and number == signal.SIGINT:  # SIGTERM after a first Ctrl-C comes from who started this process
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
