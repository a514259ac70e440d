"""lerobot's side of the benchmarks: its Diffusion policy, timed by an interpreter that has lerobot.

`peers.py` runs this file by its path, so it imports nothing of foreact. It reads one JSON object from its argument and
prints one as its last line.
"""
# pyright: reportMissingImports=false

import json
import sys
import time
from typing import Any

import torch

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


def _count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def main() -> None:
    """Carry out what the argument says: {"what": 'act' or 'train', "threads": n, **settings of that function}."""
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked.pop("threads"))
    torch.manual_seed(0)
    _without_torchvision_kernels()
    found = {"act": act, "train": train}[asked.pop("what")](**asked)
    print(json.dumps(found | {"torch": torch.__version__, "lerobot": _version()}))


def _version() -> str:
    from importlib.metadata import version

    return version("lerobot")


if __name__ == "__main__":
    main()
