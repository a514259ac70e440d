"""A residual network as an image encoder: one token a frame, and the instruction may steer what it looks for."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.linear import Linear

STAGES: dict[str, tuple[tuple[int, ...], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
"""Blocks of each stage, and whether they are bottlenecks (He et al. 2016, Table 1)."""


class ResNet(nn.Module):
    """Frames (B, C, H, W) to the mean of the last map, (B, 1, D).

    With GroupNorm, so that a frame's token does not depend on the batch (in the place of BatchNorm, as Diffusion Policy
    does). condition: width of what scales and shifts each stage's maps (Perez et al. 2018, FiLM), beginning with none;
    0 for nothing.
    """

    def __init__(self, kind: str, width: int, channels: int = 3, condition: int = 0):
        super().__init__()
        blocks, bottleneck = STAGES[kind]
        self.first = nn.Sequential(nn.Conv2d(channels, 64, 7, 2, 3, bias=False), _norm(64), nn.ReLU())
        wide, inputs, stages = 4 if bottleneck else 1, 64, []
        for i, count in enumerate(blocks):
            size, stride = 64 * 2**i, 1 if i == 0 else 2
            stage = [
                _Block(inputs if j == 0 else size * wide, size, stride if j == 0 else 1, bottleneck)
                for j in range(count)
            ]
            stages.append(nn.Sequential(*stage))
            inputs = size * wide
        self.stages = nn.ModuleList(stages)
        sizes = [64 * 2**i * wide for i in range(len(blocks))]
        self.film = nn.ModuleList(Linear(condition, 2 * size) for size in sizes) if condition else None
        for layer in self.film or ():
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.project = Linear(inputs, width)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, C, H, W) in [-1, 1], condition (B, W) → (B, 1, D)."""
        x = F.max_pool2d(self.first(x), 3, 2, 1)
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if self.film is not None and condition is not None:
                scale, shift = self.film[i](condition)[..., None, None].chunk(2, dim=1)
                x = x * (1 + scale) + shift
        return self.project(x.mean(dim=(2, 3)))[:, None]


class _Block(nn.Module):
    """Two 3 x 3 convolutions, or one between two 1 x 1, around a shortcut."""

    def __init__(self, inputs: int, size: int, stride: int, bottleneck: bool):
        super().__init__()
        outputs = 4 * size if bottleneck else size
        shapes = [(inputs, size, 1, 1), (size, size, 3, stride), (size, outputs, 1, 1)]
        shapes = shapes if bottleneck else [(inputs, size, 3, stride), (size, size, 3, 1)]
        layers: list[nn.Module] = []
        for a, b, kernel, step in shapes:
            layers += [nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False), _norm(b), nn.ReLU()]
        self.body = nn.Sequential(*layers[:-1])
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), _norm(outputs)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(channels // 16, channels)
