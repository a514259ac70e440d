"""A small robot with everything that a store can hold, and stores of random episodes for it."""

import shutil
from functools import cache
from pathlib import Path

import pytest
from foreact.data.schema import fake_episode
from foreact.data.store import Store
from foreact.envs.spec import Camera, Embodiment, Field

from .toys import use_toys


@pytest.fixture(scope="session")
def robot() -> Embodiment:
    """Two cameras of different size, one with depth; 4 state, 3 action and 2 privileged numbers."""
    return Embodiment(
        name="fake",
        cameras=(
            Camera(name="main", mount="front", height=32, width=48),
            Camera(name="main-left", mount="hand", height=16, width=16, depth=True),
        ),
        state=(
            Field(name="hand", unit="m", low=(-1,) * 3, high=(1,) * 3),
            Field(name="gripper", unit="share", low=(0,), high=(1,)),
        ),
        action=(Field(name="hand_velocity", unit="normalised", low=(-1,) * 3, high=(1,) * 3),),
        privileged=(Field(name="goal", unit="m", low=(-1,) * 2, high=(1,) * 2),),
        control_hz=20,
    )


@pytest.fixture(scope="session")
def built(robot, tmp_path_factory):
    """built(lengths, tasks) → path of a closed store, made once, for all to copy."""

    @cache
    def build(lengths: tuple[int, ...], tasks: int) -> Path:
        path = tmp_path_factory.mktemp("built") / "store"
        with Store.create(path, robot, privileged=True) as store:
            for i, steps in enumerate(lengths):
                store.append(episode(robot, i, steps, task=f"fake/task-{i % tasks}"))
        return path

    return build


@pytest.fixture
def make_store(built, tmp_path):
    """make_store(lengths, tasks=1) → path of a closed store; episode i has seed i, task i modulo `tasks`."""

    def make(lengths, *, tasks: int = 1, name: str = "store.zarr") -> Path:
        return shutil.copytree(built(tuple(lengths), tasks), tmp_path / name)

    return make


@pytest.fixture
def many(make_store):
    """Five episodes of each of two tasks."""
    return make_store([8] * 10, tasks=2, name="many")


@pytest.fixture
def toys(monkeypatch):
    """Collecting finds toy environments."""
    use_toys(monkeypatch.setattr)


def episode(robot: Embodiment, i: int, steps: int, *, task: str = "fake/task-0"):
    return fake_episode(robot, steps=steps, seed=i, task=task, privileged=True)
