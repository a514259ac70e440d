"""From what a user names as policy to the actor that plays it, and what the results must say of it."""

import contextlib
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..envs.errors import UserError
from .actors import INSIDE, InsideActor, PolicyActor


def as_actor(policy: Any, *, device: str = "auto", runtime: str = "torch", **options: Any) -> InsideActor | PolicyActor:
    """An actor from an actor, 'expert', 'random', a checkpoint's or run's folder, or a policy object.

    options: of `PolicyActor`; `UserError` where they would be ignored. device, runtime: of a policy loaded here.
    """
    given = sorted(name for name, value in options.items() if value is not None)
    if isinstance(policy, InsideActor | PolicyActor) or policy in INSIDE:
        if given:
            raise UserError(f"{', '.join(given)} would be ignored: policy={policy} takes no such option")
        return InsideActor(policy) if isinstance(policy, str) else policy
    if isinstance(policy, str | Path):
        from ..policy import load_policy
        from ..policy.checkpoint import find_checkpoint

        about = about_checkpoint(find_checkpoint(policy))
        return PolicyActor(policy=load_policy(policy, device, runtime), name=str(policy), about=about, **options)
    return PolicyActor(policy=policy, name=type(policy).__name__, **options)


def beside_workers(policy: Any) -> AbstractContextManager[None]:
    """Half of PyTorch's threads for a policy on the CPU: the workers that simulate meanwhile need the others.

    With all of them, each waits at the end of every product for one that a worker holds up.
    """
    if isinstance(policy, InsideActor) or policy in INSIDE:
        return contextlib.nullcontext()
    import torch

    from ..policy.device import on_threads

    return on_threads(max(1, torch.get_num_threads() // 2))


def about_checkpoint(folder: Path) -> dict[str, Any]:
    """What a results table must say of a checkpoint: its step, and if simulator state aligned it in training.

    alignment: weight of the loss that pulls image tokens towards simulator state; None where no run tells.
    """
    about: dict[str, Any] = {"checkpoint": folder.name, "alignment": None}
    for run in (folder / "run.json", folder.parent.parent / "run.json"):  # packed, or RUN/checkpoints/STEP
        if run.is_file():
            about["alignment"] = json.loads(run.read_text(encoding="utf-8"))["config"].get("train", {}).get("align")
            break
    return about
