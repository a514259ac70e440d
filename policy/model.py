"""The network of every preset: embedders, the backbone and one head for each denoised segment."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ..envs.spec import Embodiment
from .config import ModelConfig
from .diffusion.path import PATHS, input_scale
from .nn.backbone import Backbone, Context
from .nn.rope import rotary_table
from .positions import context_positions, segment_positions
from .segments import COUPLINGS, Segment, allowed
from .tokens.images import STEMS
from .tokens.language import VECTOR_DIM
from .transforms import Observation


class Model(nn.Module):
    """Observation → context once; noisy segments and context → predictions, as often as the solver asks.

    Letters: B batch, N noise draws, V views, T observation steps, L tokens, D width, S state, M context tokens.
    """

    mean_frame: Tensor
    frame_spread: Tensor

    def __init__(self, config: ModelConfig, embodiment: Embodiment, sentences: int):
        super().__init__()
        self.config = config
        d = config.backbone.width
        self.views, side = len(embodiment.cameras), config.pixels
        rows, columns = config.image.grid(side, side)
        self.stem = STEMS[config.image.stem](config.image, d, rows * columns)
        if config.center_images:
            self.register_buffer("mean_frame", torch.zeros(self.views, 1, side, side, 3))
            self.register_buffer("frame_spread", torch.ones(1))
        self.from_state = nn.Linear(embodiment.state_dim, d)
        self.from_sentence = nn.Linear(VECTOR_DIM, d) if config.instruction == "minilm" else nn.Embedding(sentences, d)
        self.image_position = _positions(self.views * config.n_obs_steps * config.image.count(side, side), d)
        self.state_position = _positions(config.n_obs_steps, d)
        self.backbone = Backbone(config.backbone)
        self.segments = segment_shapes(config, embodiment)
        self.position = nn.ParameterDict({k: _positions(n, d) for k, (n, _) in self.segments.items()})
        self.embed = nn.ModuleDict({k: nn.Linear(c + self._stacked(k), d) for k, (_, c) in self.segments.items()})
        self.head = nn.ModuleDict({k: nn.Linear(d, c) for k, (_, c) in self.segments.items()})
        for head in self.head.values():
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def _stacked(self, segment: str) -> int:
        return self.segments[segment][1] if segment == "future" and self.config.stack_now else 0

    def image_tokens(self) -> int:
        return self.image_position.shape[0]

    @torch.no_grad()
    def center_on(self, images: Tensor) -> None:
        """Take mean frames, and the spread around them, from training frames (B, V, T, H, W, 3) where centred."""
        if self.config.center_images:
            self.mean_frame.copy_(images.mean(dim=(0, 2)).unsqueeze(1))
            self.frame_spread.copy_((images - self.mean_frame).std().clamp(min=1e-3))

    def encode(self, observation: Observation) -> Context:
        """Run the observation through the backbone once."""
        b, v, t = observation.images.shape[:3]
        images = observation.images
        if self.config.center_images:
            images = (images - self.mean_frame) / self.frame_spread
        frames = rearrange(images, "b v t h w c -> (b v t) c h w")
        images = rearrange(self.stem(frames), "(b v t) l d -> b (v t l) d", b=b, v=v, t=t) + self.image_position
        state = self.from_state(observation.state) + self.state_position
        sentence = self.from_sentence(observation.sentence).unsqueeze(1)
        return self.backbone.encode(
            torch.cat([images, state, sentence], dim=1),
            rotary=self._rotary([context_positions(self.config, v)], images),
        )

    def denoise(
        self, segments: dict[str, Segment], context: Context, stacked: Tensor | None = None
    ) -> dict[str, Float[Tensor, "b n l c"]]:
        """Predict each present segment's target from its noisy values.

        stacked (B, L, C): the present frame's patches, which join the future segment's channels where the preset
        says so.
        """
        segments = {name: segments[name] for name in self.segments if name in segments}  # one order
        tokens, kinds = [], []
        for name, segment in segments.items():
            x = self._input(name, segment)
            if self._stacked(name):
                assert stacked is not None
                x = torch.cat([x, stacked.unsqueeze(1).expand(-1, x.shape[1], -1, -1)], dim=-1)
            tokens.append(self.embed[name](x) + self.position[name])
            kinds += [name] * x.shape[2]
        rows, selector = self._modulation(segments)
        where = [segment_positions(name, self.config, self.views) for name in segments]
        hidden = self.backbone.denoise(
            torch.cat(tokens, dim=2),
            rows,
            context,
            selector=selector,
            rotary=self._rotary(where, tokens[0]),
            mask=self._mask(kinds, context.tokens),
        )
        parts = hidden.split([s.x.shape[2] for s in segments.values()], dim=2)
        return {name: self.head[name](part) for name, part in zip(segments, parts, strict=True)}

    def _input(self, name: str, segment: Segment) -> Tensor:
        """The segment's values as the network takes them: scaled to unit variance for EDM (its c_in)."""
        process = self.config.process(name)
        t = segment.t[..., None].expand(segment.x.shape[:3])
        if segment.clean is not None:
            t = t.masked_fill(segment.clean, 0)
        scale = input_scale(process.target, PATHS[process.path], t)
        return segment.x if process.target != "edm" else segment.x * torch.as_tensor(scale)[..., None]

    def _modulation(self, segments: dict[str, Segment]) -> tuple[Tensor, Tensor | None]:
        """Rows of the distinct times (one for each segment, and 0 if a token is clean), and who has which."""
        times = [PATHS[self.config.process(name).path].clamp(s.t) for name, s in segments.items()]
        if any(s.clean is not None for s in segments.values()):
            times.append(torch.zeros_like(times[0]))
        rows = self.backbone.modulation(torch.stack(times, dim=-1))  # (B, N, G, R, D)
        if len(times) == 1:
            return rows, None
        one_hot = torch.eye(len(times), device=rows.device, dtype=rows.dtype)
        columns = [
            one_hot[i].expand(*s.x.shape[:3], -1)
            if s.clean is None
            else torch.where(s.clean[..., None], one_hot[-1], one_hot[i])
            for i, s in enumerate(segments.values())
        ]
        return rows, torch.cat(columns, dim=2)

    def _mask(self, kinds: list[str], context: Tensor) -> Tensor | None:
        table = allowed(kinds, COUPLINGS[self.config.coupling])
        if table is None:
            return None
        seen = torch.ones(len(kinds), context.shape[1], dtype=torch.bool)
        return torch.cat([seen, table], dim=1).to(context.device)

    def _rotary(self, positions: list[Tensor], like: Tensor) -> Tensor | None:
        """The table that turns keys and queries, or None where positions are learned."""
        backbone = self.config.backbone
        if backbone.positions != "rotary":
            return None
        return rotary_table(torch.cat(positions).to(like.device), backbone.width // backbone.heads)


def segment_shapes(config: ModelConfig, embodiment: Embodiment) -> dict[str, tuple[int, int]]:
    """Tokens and channels of each segment that can be denoised, in the order of the sequence."""
    shapes = {"action": (config.horizon, embodiment.action_dim)}
    if config.can_imagine:
        patches = (config.pixels // config.future_patch) ** 2
        shapes["future"] = (
            len(config.future) * len(embodiment.cameras) * patches,
            3 * config.future_patch**2,
        )
    return shapes


def _positions(tokens: int, width: int) -> nn.Parameter:
    return nn.Parameter(0.02 * torch.randn(tokens, width))
