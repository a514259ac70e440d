"""Write the store and checkpoint of this format version into tests/artifacts/v1. Run once for each new version.

python tests/artifacts/make.py v1
"""

import dataclasses
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from foreact.data.schema import fake_episode
from foreact.data.store import Store
from foreact.envs.spec import Camera, Embodiment, Field
from foreact.policy import ModelConfig, TrainConfig, load_policy, train
from foreact.policy.checkpoint import find_checkpoint
from foreact.policy.nn.config import BackboneConfig
from foreact.policy.tokens.images import ImageConfig


def field(name: str, size: int) -> Field:
    return Field(name=name, unit="m", low=(-1.0,) * size, high=(1.0,) * size)


ROBOT = Embodiment(
    name="toy", cameras=(Camera(name="front", mount="front", height=32, width=32),), state=(field("hand", 3),),
    action=(field("velocity", 2),), privileged=(field("object", 3),), control_hz=20,
)  # fmt: skip
PRESET = ModelConfig(
    name="joint/artifact", backbone=BackboneConfig(width=32, depth=2, heads=2, gate_init=0.2),
    image=ImageConfig(channels=(8, 8, 8), keypoints=4), pixels=32, horizon=4, n_action_steps=2, future=(2,),
    draws={"policy": 1, "continue": 1, "joint": 1}, instruction="table",
)  # fmt: skip


def observation(store: Store) -> dict:
    return {
        "images": {"front": store.read("image/front", slice(0, 1))[0]},
        "state": store.read("state", slice(0, 1))[0],
    }


def main(folder: Path) -> None:
    with Store.create(folder / "store", ROBOT, privileged=True) as store:
        for seed in range(3):
            episode = fake_episode(ROBOT, steps=6, seed=seed, privileged=True)
            store.append(dataclasses.replace(episode, task="toy/go", instruction="go"))
    with tempfile.TemporaryDirectory() as run:
        config = TrainConfig(steps=3, batch_size=4, warmup=1, align=0.5, held_out=0.3, device="cpu", precision="fp32")
        train(folder / "store", PRESET, config, run, progress=False)
        shutil.copytree(find_checkpoint(run), folder / "checkpoint", ignore=shutil.ignore_patterns("training"))
    policy = load_policy(folder / "checkpoint", "cpu")
    with Store.open(folder / "store") as store:
        chunk = policy.act([observation(store)], ["go"], [(1, 2, 3)])[0]
        sums = {name: int(np.asarray(store.read(name)).sum(dtype=np.float64)) for name in ("image/front", "action")}
    (folder / "expected.json").write_text(
        json.dumps({"chunk": chunk.tolist(), "sums": sums, "episodes": 3}) + "\n", encoding="utf-8"
    )
    shutil.rmtree(folder / "store.cache", ignore_errors=True)


if __name__ == "__main__":
    main(Path(__file__).parent / sys.argv[1])
