"""lerobot's side of the benchmarks: its Diffusion policy and its dataset, timed by an interpreter that has lerobot.

`peers.py` runs this file by its path, so it imports nothing of foreact. It reads one JSON object from its argument and
prints one as its last line.
"""
# pyright: reportMissingImports=false

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

FPS = 80
_KEPT: list[Any] = []  # what must live as long as the process


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


def act(pixels: int, state: int, action: int, rounds: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of a chunk of one observation, with 10 DDIM steps."""
    policy = diffusion(pixels, state, action, {"noise_scheduler_type": "DDIM", "num_inference_steps": 10, **settings})
    policy.eval()
    seen = {"observation.image": torch.rand(1, 3, pixels, pixels), "observation.state": torch.rand(1, state)}
    times = []
    for i in range(rounds + 1):
        policy.reset()
        began = time.perf_counter()
        policy.select_action(seen)
        if i:
            times.append(1000 * (time.perf_counter() - began))
    return {"ms": times, "parameters": _count(policy)}


def train(
    pixels: int, state: int, action: int, batch_size: int, horizon: int, rounds: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Seconds of a training step."""
    policy = diffusion(pixels, state, action, {"horizon": horizon, **settings})
    policy.train()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
    n_obs = policy.config.n_obs_steps
    batch = {
        "observation.image": torch.rand(batch_size, n_obs, 3, pixels, pixels),
        "observation.state": torch.rand(batch_size, n_obs, state),
        "action": torch.rand(batch_size, horizon, action),
        "action_is_pad": torch.zeros(batch_size, horizon, dtype=torch.bool),
    }
    times = []
    for i in range(rounds + 1):
        began = time.perf_counter()
        loss, _ = policy.forward(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if i:
            times.append(time.perf_counter() - began)
    return {"seconds": times, "parameters": _count(policy)}


def loader(
    folder: str, variant: str, n_obs_steps: int, horizon: int, batch_size: int, batches: int, workers: int
) -> dict[str, Any]:
    """Milliseconds of a batch from a LeRobotDataset of the episodes in `folder`, with frames as 'image' or 'video'."""
    dataset = _dataset(Path(folder), variant, n_obs_steps, horizon)
    sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=10**9)
    stream = iter(torch.utils.data.DataLoader(dataset, batch_size, sampler=sampler, num_workers=workers))
    times = []
    for i in range(batches + 2):
        began = time.perf_counter()
        next(stream)
        if i >= 2:
            times.append(1000 * (time.perf_counter() - began))
    # with processes, batches come in bursts: what counts is the mean of a stretch of them
    stretch = max(1, batches // 5)
    return {"ms": [sum(times[i : i + stretch]) / stretch for i in range(0, stretch * 5, stretch)]}


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

    with av.open(str(path)) as container:
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
    """Carry out what the argument says: {"what": one of the functions, "threads": n, **its settings}."""
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked.pop("threads"))
    torch.manual_seed(0)
    _without_torchvision_kernels()
    found = {"act": act, "train": train, "loader": loader}[asked.pop("what")](**asked)
    print(json.dumps(found | {"torch": torch.__version__, "lerobot": _version()}))


def _version() -> str:
    from importlib.metadata import version

    return version("lerobot")


if __name__ == "__main__":
    main()
