"""What environments that MuJoCo simulates and draws have in common: a model, its data, and a renderer."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from .base import Env
from .render import Renderer, mount
from .spec import Camera, Embodiment, Task


class MujocoEnv(Env):
    """An environment around one MuJoCo model, drawn with the renderer of the house; see `Env`.

    Raises `UserError` where a camera's mount is not among the model's cameras.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        task: Task,
        model: Any,
        data: Any,
        *,
        cameras: Sequence[Camera] | None = None,
        privileged: bool = False,
    ):
        if cameras is not None:
            embodiment = dataclasses.replace(embodiment, cameras=tuple(cameras))
        super().__init__(embodiment, task, observe_privileged=privileged)
        self._model, self._data = model, data
        for camera in embodiment.cameras:
            mount(model, camera)
        self._renderer: Renderer | None = None

    def _draw(self, camera: Camera) -> tuple[np.ndarray, np.ndarray | None]:
        if self._renderer is None:
            self._renderer = Renderer(self._model, self.embodiment.cameras)
        return self._renderer.render(self._data, camera)

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
