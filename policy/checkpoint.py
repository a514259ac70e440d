"""Checkpoints: folders of safetensors and JSON, written whole or not at all, with no pickled classes.

RUN/checkpoints/latest            the newest folder's name
RUN/checkpoints/00000650/         policy.json, normalizers.json, model.safetensors: what acts (averaged weights)
                    training/     weights, optimiser and progress: what resumes
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..data.normalize import Normalizer
from ..data.sources import Learned
from ..data.whole import whole
from ..envs.errors import UserError, choose
from ..envs.spec import Embodiment
from .config import ModelConfig
from .device import resolve_device
from .model import Model
from .policy import Policy
from .sentences import Sentences
from .settings import build
from .transforms import Robot, Transforms

FORMAT_VERSION = 1
PACKAGED = Path(__file__).parents[1] / "pretrained"
"""Where the policies are that come with foreact."""
KEPT = 2  # older checkpoints are removed: the one before the newest stays, in case the newest is damaged by others


def write_checkpoint(run: Path, step: int, write: Callable[[Path], None], training: dict[str, Any]) -> Path:
    """Write RUN/checkpoints/<step> and then point `latest` at it.

    write: puts the product of the training into a folder · training: {"tensors": {group: {name: tensor}}, "state":
    JSON-ready values}.
    """
    root = run / "checkpoints"
    folder, draft = root / f"{step:08d}", root / f".draft-{step:08d}"
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "training").mkdir(parents=True)
    write(draft)
    for group, tensors in training["tensors"].items():
        save_file({k: v.contiguous() for k, v in tensors.items()}, draft / "training" / f"{group}.safetensors")
    _write_json(draft / "training" / "state.json", training["state"])
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(draft, folder)
    with whole(root / "latest") as pointer:
        pointer.write_text(folder.name, encoding="utf-8")
    for old in sorted(p for p in root.iterdir() if p.name.isdigit())[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def write_policy(folder: Path, policy: Policy) -> None:
    """Write what acts."""
    tensors = {f"model.{k}": v.contiguous() for k, v in policy.model.state_dict().items()}
    if policy.sentences.vectors is not None:
        tensors["sentences"] = policy.sentences.vectors
    save_file(tensors, folder / "model.safetensors")
    transforms = policy.transforms
    robots = transforms.robots.values()
    normalizers = dict(transforms.normalizers)  # the main robot's by the field alone
    normalizers |= {f"{r.embodiment.name}/{k}": n for r in robots for k, n in r.normalizers.items()}
    _write_json(folder / "normalizers.json", {k: n.to_dict() for k, n in normalizers.items()})
    about = {
        "format_version": FORMAT_VERSION,
        "model": asdict(policy.config),
        "embodiment": transforms.embodiment.to_dict(),
        **({"robots": [r.embodiment.to_dict() for r in robots]} if robots else {}),
        "tasks": policy.tasks,
        "instructions": list(policy.sentences.known),
        "scales": dict(transforms.scales),
        "learned": None if policy.learned is None else [asdict(one) for one in policy.learned],
    }
    _write_json(folder / "policy.json", about)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def packaged_name(path: Path | str) -> str | None:
    """NAME of 'pretrained/NAME', which is a policy that comes with foreact unless such a folder is here."""
    parts = Path(path).parts
    return parts[1] if len(parts) == 2 and parts[0] == PACKAGED.name else None


def find_checkpoint(path: Path | str) -> Path:
    """The checkpoint folder at `path`: itself, or the newest of the run at `path`, or one that comes with foreact.

    Raises `UserError` where there is none; of pretrained/NAME it lists those there are.
    """
    path = Path(path)
    if any((path / name).is_file() for name in ("policy.json", "tokenizer.json")):
        return path
    pointer = path / "checkpoints" / "latest"
    if pointer.is_file():
        return path / "checkpoints" / pointer.read_text(encoding="utf-8").strip()
    if (name := packaged_name(path)) is not None:
        known = {file.parent.name: file.parent for file in PACKAGED.glob("*/policy.json")}
        return known[choose(name, known or ["none yet"], "pretrained policy")]
    what = "has no checkpoint yet" if path.is_dir() else "does not exist"
    raise UserError(f"{path} {what}; give a run folder of `foreact train` or one of its checkpoints/ folders")


def find_finished(path: Path | str) -> Path:
    """As `find_checkpoint`, for what others are made from: a run has to be at its end, or one of its checkpoints named.

    Raises `UserError` where it is not.
    """
    folder, about = find_checkpoint(path), Path(path) / "run.json"
    if folder != Path(path) and about.is_file():
        steps = json.loads(about.read_text(encoding="utf-8"))["config"]["train"]["steps"]
        if folder.name != f"{steps:08d}":
            raise UserError(f"{path} is trained to step {int(folder.name)} of {steps}: train on, or name {folder}")
    return folder


def load_policy(path: Path | str, device: str = "auto", runtime: str = "torch") -> Policy:
    """Load what acts. path: a run folder or a checkpoint folder · runtime: of `runtimes.RUNTIMES`.

    Raises `UserError` where it is none, is damaged, or was not exported for that runtime.
    """
    from .runtimes import RUNTIMES, at_work, device_of

    device, folder = resolve_device(device_of(choose(runtime, RUNTIMES, "runtime"), device)), find_checkpoint(path)
    about = read_about(folder)
    try:
        normalizers = json.loads((folder / "normalizers.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"checkpoint {folder} is damaged: {error}") from error
    config = build(ModelConfig, about["model"], "model")
    embodiment = Embodiment.from_dict(about["embodiment"])
    robots = [Embodiment.from_dict(d) for d in about.get("robots", [])]
    transforms = Transforms(
        config,
        embodiment,
        _normalizers(normalizers, ""),
        about["scales"]
        if "scales" in about
        else {"future": about["future_scale"]},  # as written before depth was foreseen
        robots={e.name: Robot(e, _normalizers(normalizers, f"{e.name}/")) for e in robots},
    )
    model = Model(config, transforms.rig, len(about["instructions"]))
    sentences = Sentences(config.instruction, tuple(about["instructions"]), tensors.pop("sentences", None))
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items()})
    transforms = replace(transforms, tokenizer=model.tokenizer)
    model = at_work(model.eval(), runtime, folder, device)
    noted = about.get("learned")
    learned = None if noted is None else [build(Learned, one, "learned") for one in noted]
    policy = Policy(model, transforms, sentences, about["tasks"], device, learned)
    policy.runtime = runtime
    return policy


def _normalizers(saved: dict[str, Any], prefix: str) -> dict[str, Normalizer]:
    """Those of one robot, whose fields have its prefix."""
    own = {key.removeprefix(prefix): d for key, d in saved.items() if key.startswith(prefix)}
    return {key: Normalizer.from_dict(d) for key, d in own.items() if "/" not in key}


def read_about(folder: Path) -> dict[str, Any]:
    """The checkpoint's policy.json, with its version checked."""
    if (folder / "tokenizer.json").is_file():
        raise UserError(f"{folder} holds a tokenizer, not a policy; train one with tokenizer={folder}")
    try:
        about = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint {folder} is damaged: policy.json: {error}") from error
    if about.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"checkpoint {folder} has format {about.get('format_version')}, this foreact reads {FORMAT_VERSION}; "
            "use the version that wrote it"
        )
    return about


def load_training(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensor groups and state of `write_checkpoint`."""
    try:
        files = sorted((folder / "training").glob("*.safetensors"))
        state = json.loads((folder / "training" / "state.json").read_text(encoding="utf-8"))
        return {f.stem: load_file(f) for f in files}, state
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"checkpoint {folder} cannot be resumed: {error}") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as flat tensors: 'parameter number.name'."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": torch.as_tensor(value) for i, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`; settings such as the learning rate stay the optimiser's own."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        like = parameters[int(number)]
        # The fused optimiser walks through memory, so the moments must lie there as their parameter does.
        laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(number), {})[name] = laid_out
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
