"""What a policy is shown and told in an evaluation: as we do it, as others do, or with sentences that do not fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from ..envs.cameras import Camera, Look
from ..envs.errors import UserError, choose
from ..envs.spec import Task

OWN, SHUFFLED = "own", "shuffled"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How an evaluation differs from our own; the defaults change nothing.

    views: the only cameras that it allows, by name · look, source: how they are drawn (`envs.Camera`) · instructions:
    'own', 'shuffled' (a task gets the sentence of the next one that is evaluated in its scene; it keeps its own where
    it is the only one there), or sentences by bare task name.
    """

    name: str = "foreact"
    views: Sequence[str] | None = None
    look: str | None = None
    source: int | None = None
    instructions: str | Mapping[str, str] = OWN

    def __post_init__(self):
        if self.look is not None:
            choose(self.look, get_args(Look), "look")
        if isinstance(self.instructions, str):
            choose(self.instructions, (OWN, SHUFFLED), "instructions (or a mapping of tasks to sentences):")

    def cameras(self, own: Sequence[Camera] | None) -> tuple[Camera, ...] | None:
        """The policy's cameras as this protocol draws them. `UserError` where it does not allow them."""
        names = [camera.name for camera in own or ()]
        if self.views is not None and own is not None and names != list(self.views):
            raise UserError(
                f"protocol {self.name!r} shows the cameras {', '.join(self.views)}, and the checkpoint sees "
                f"{', '.join(names)}: evaluate one that was trained on those alone"
            )
        changes: dict[str, Any] = {"look": self.look} if self.look is not None else {}
        changes |= {"source": self.source} if self.source is not None else {}
        return None if own is None else tuple(replace(camera, **changes) for camera in own)

    def told(self, tasks: Sequence[Task]) -> tuple[Task, ...]:
        """The tasks with the sentences that the policy is given for them. `UserError` where one lacks its sentence."""
        if self.instructions == OWN:
            return tuple(tasks)
        given = _shuffled(tasks) if isinstance(self.instructions, str) else self.instructions
        for task in tasks:
            choose(task.name, given, f"task in the instructions of protocol {self.name!r}:")
        return tuple(replace(task, instruction=given[task.name]) for task in tasks)

    def describe(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """What differs from our own protocol, for the results and to resume by; nothing where nothing does.

        tasks: as they were told.
        """
        found: dict[str, Any] = {} if self.name == Protocol.name else {"protocol": self.name}
        found |= {k: v for k, v in (("look", self.look), ("source", self.source)) if v is not None}
        if self.instructions == OWN:
            return found
        return found | {"instructions": {task.name: task.instruction for task in tasks}}


def _shuffled(tasks: Sequence[Task]) -> dict[str, str]:
    """Task name → the sentence of the next task of its scene, in a circle."""
    scenes: dict[str, list[Task]] = {}
    for task in tasks:
        scenes.setdefault(f"{task.id.split('/')[0]}/{task.scene}" if task.scene else task.id, []).append(task)
    if all(len(members) < 2 for members in scenes.values()):
        names = ", ".join(task.name for task in tasks)
        raise UserError(f"instructions=shuffled swaps sentences of tasks that share a scene, and of {names} none do")
    return {
        task.name: members[(i + 1) % len(members)].instruction
        for members in scenes.values()
        for i, task in enumerate(members)
    }
