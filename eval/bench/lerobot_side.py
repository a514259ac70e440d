"""lerobot's side of the benchmarks: its Diffusion policy, its dataset and its evaluation, where lerobot is.

`peers.py` runs this file by its path, so it imports nothing of foreact. It reads one JSON object from its argument,
prints one when it is ready, and then does its work once for each line that it reads.
"""
# pyright: reportMissingImports=false

import contextlib
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

FPS = 80
_KEPT: list[Any] = []  # what must live as long as the process
_OPEN: dict[str, Any] = {}  # videos, kept open between reads as lerobot's own decoder keeps them


def _without_torchvision_kernels() -> None:
    """Let a torchvision built for another torch import: what lerobot takes of it needs no compiled operators."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)


def diffusion(pixels: int, state: int, action: int, settings: dict[str, Any]) -> Any:
    """lerobot's Diffusion policy (Chi et al. 2023) for one camera; settings: of its configuration."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    seen = {
        "observation.image": PolicyFeature(FeatureType.VISUAL, (3, pixels, pixels)),
        "observation.state": PolicyFeature(FeatureType.STATE, (state,)),
    }
    done = {"action": PolicyFeature(FeatureType.ACTION, (action,))}
    return DiffusionPolicy(DiffusionConfig(input_features=seen, output_features=done, device="cpu", **settings))


def act(
    pixels: int, state: int, action: int, settings: dict[str, Any], bf16: bool = False
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """A chunk of one observation."""
    policy = diffusion(pixels, state, action, settings)
    policy.eval()
    seen = {"observation.image": torch.rand(1, 3, pixels, pixels), "observation.state": torch.rand(1, state)}

    def step() -> None:
        policy.reset()
        with _precision(bf16):
            policy.select_action(seen)

    return step, {"parameters": _count(policy)}


def train(
    pixels: int, state: int, action: int, batch_size: int, settings: dict[str, Any], bf16: bool = False
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """An update: loss, gradients, clipping and optimiser as its own training loop has them."""
    policy = diffusion(pixels, state, action, settings)
    policy.train()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
    n_obs, horizon = policy.config.n_obs_steps, policy.config.horizon
    batch = {
        "observation.image": torch.rand(batch_size, n_obs, 3, pixels, pixels),
        "observation.state": torch.rand(batch_size, n_obs, state),
        "action": torch.rand(batch_size, horizon, action),
        "action_is_pad": torch.zeros(batch_size, horizon, dtype=torch.bool),
    }

    def step() -> None:
        with _precision(bf16):
            loss, _ = policy.forward(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()

    return step, {"parameters": _count(policy)}


def loader(
    folder: str, variant: str, n_obs_steps: int, horizon: int, batch_size: int, batches: int, workers: int
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """So many batches from a LeRobotDataset of the episodes in `folder`, with frames as 'image' or 'video'."""
    dataset = _dataset(Path(folder), variant, n_obs_steps, horizon)
    sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=10**9)

    def step() -> dict[str, float]:
        # opened for each call and closed after it: its processes would go on reading while others are timed
        stream = iter(torch.utils.data.DataLoader(dataset, batch_size, sampler=sampler, num_workers=workers))
        for _ in range(4):
            next(stream)
        began = time.perf_counter()
        for _ in range(batches):
            next(stream)
        return {"ms": 1000 * (time.perf_counter() - began) / batches}

    return step, {}


def evaluate(
    pixels: int, state: int, action: int, settings: dict[str, Any], tasks: list[str], episodes: int, max_steps: int
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Episodes of Metaworld tasks by its own loop, environments and defaults, with a policy that has learned nothing.

    Its frames are drawn at 480 pixels, as it does, and made smaller for the policy. Environments are made once.
    """
    import gymnasium
    from lerobot.envs.metaworld import MetaworldEnv
    from lerobot.scripts.lerobot_eval import rollout

    policy = diffusion(pixels, state, action, settings)
    policy.eval()

    def small(seen: dict[str, Any]) -> dict[str, Any]:
        image = torch.nn.functional.interpolate(seen["observation.image"], (pixels, pixels), mode="area")
        return {"observation.image": image, "observation.state": seen["observation.state"]}

    def same(x: Any) -> Any:
        return x

    made = [partial(MetaworldEnv, task=task, obs_type="pixels_agent_pos") for task in tasks]
    batches = [gymnasium.vector.SyncVectorEnv([make] * episodes) for make in made]
    for batch in batches:
        batch.set_attr("_max_episode_steps", max_steps)

    def step() -> dict[str, int]:
        done = [rollout(batch, policy, same, same, small, same, seeds=list(range(episodes))) for batch in batches]
        return {"steps": sum(ran["action"].shape[0] * ran["action"].shape[1] for ran in done)}

    return step, {"parameters": _count(policy)}


def _precision(bf16: bool) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()


def _dataset(folder: Path, variant: str, n_obs_steps: int, horizon: int) -> Any:
    """The episodes as a LeRobotDataset v3, written where it is not there yet."""
    from lerobot.datasets import lerobot_dataset

    lerobot_dataset.decode_video_frames = _decode_video_frames
    root, files = folder / variant, sorted(folder.glob("*.npz"))
    first = np.load(files[0])
    cameras = [name for name in first.files if name.startswith("image/")]
    features: dict[str, Any] = {
        f"observation.images.{c[6:]}": {"dtype": variant, "shape": first[c].shape[1:], "names": ["h", "w", "c"]}
        for c in cameras
    }
    for key, name in (("observation.state", "state"), ("action", "action")):
        features[key] = {"dtype": "float32", "shape": first[name].shape[1:], "names": None}
    if not root.exists():
        made = lerobot_dataset.LeRobotDataset.create(
            "foreact/bench", fps=FPS, features=features, root=root, use_videos=variant == "video"
        )
        for file in files:
            episode = np.load(file)
            arrays = {k: episode[k] for k in episode.files}
            for i in range(len(arrays["state"])):
                frames = {f"observation.images.{c[6:]}": arrays[c][i] for c in cameras}
                row = {"observation.state": arrays["state"][i], "action": arrays["action"][i], "task": "go"}
                made.add_frame({**frames, **row})
            made.save_episode()
        made.finalize()
    back = [-i / FPS for i in reversed(range(n_obs_steps))]
    deltas = {k: [i / FPS for i in range(horizon)] if k == "action" else back for k in features}
    return lerobot_dataset.LeRobotDataset("foreact/bench", root=root, delta_timestamps=deltas)


def _decode_video_frames(path: Any, timestamps: list[float], tolerance_s: float, *_: Any, **__: Any) -> torch.Tensor:
    """What lerobot's PyAV backend does, which torchvision of this age has dropped: seek to the key frame, decode on."""
    import av

    if str(path) not in _OPEN:
        _OPEN[str(path)] = av.open(str(path))
    container = _OPEN[str(path)]
    stream = container.streams.video[0]
    container.seek(int(min(timestamps) / float(stream.time_base or 1)), stream=stream)
    found, at = [], []
    for frame in container.decode(stream):
        found.append(torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1))
        at.append(frame.time)
        if frame.time >= max(timestamps) - 1e-6:
            break
    nearest = [min(range(len(at)), key=lambda i: abs(at[i] - t)) for t in timestamps]
    assert all(abs(at[i] - t) <= tolerance_s for i, t in zip(nearest, timestamps, strict=True))
    return torch.stack([found[i] for i in nearest]).float() / 255


def _count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def main() -> None:
    """Do what the argument says, {"what": one of the functions, "threads": n, **its settings}, once for each line."""
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked.pop("threads"))
    torch.manual_seed(0)
    _without_torchvision_kernels()
    step, about = {"act": act, "train": train, "loader": loader, "evaluate": evaluate}[asked.pop("what")](**asked)
    print("foreact: " + json.dumps(about | {"torch": torch.__version__, "lerobot": _version()}), flush=True)
    for _ in sys.stdin:
        print("foreact: " + json.dumps(step()), flush=True)


def _version() -> str:
    from importlib.metadata import version

    return version("lerobot")


if __name__ == "__main__":
    main()
