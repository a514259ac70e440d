"""The network of every preset: embedders, the backbone and one head for each denoised segment."""

from dataclasses import dataclass

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
from .segments import Segment, allowed
from .shapes import beside_widths, segment_shapes
from .tokens.images import STEMS
from .tokens.language import VECTOR_DIM
from .transforms import Observation


@dataclass(frozen=True)
class Encoding:
    """An observation as the denoised stream meets it.

    context: its clean tokens, encoded once · beside {segment: (B, L, C)}: clean values that join a segment's channels ·
    condition (B, D) or None: what joins the embedded time.
    """

    context: Context
    beside: dict[str, Tensor]
    condition: Tensor | None = None

    def __getitem__(self, rows: slice) -> "Encoding":
        """The encoding of some samples of the batch."""
        beside = {name: values[rows] for name, values in self.beside.items()}
        return Encoding(self.context[rows], beside, None if self.condition is None else self.condition[rows])


class Model(nn.Module):
    """Observation → encoding once; noisy segments and encoding → predictions, as often as the solver asks.

    Letters: B batch, N noise draws, V views, T observation steps, L tokens, D width, S state, M context tokens.
    """

    mean_frame: Tensor
    frame_spread: Tensor

    def __init__(self, config: ModelConfig, embodiment: Embodiment, sentences: int):
        super().__init__()
        self.config = config
        d = config.backbone.width
        self.views = len(embodiment.cameras)
        self.segments = segment_shapes(config, embodiment)
        self.from_sentence = nn.Linear(VECTOR_DIM, d) if config.instruction == "minilm" else nn.Embedding(sentences, d)
        if config.layout == "tokens":
            self._observe(config, embodiment, d)
        self.backbone = Backbone(config.backbone, len(self.segments) if config.own_final else 1)
        self.position = nn.ParameterDict({k: self._positions(k) for k in self.segments})
        beside = beside_widths(config, embodiment)
        self.embed = nn.ModuleDict({k: nn.Linear(s.width + beside.get(k, 0), d) for k, s in self.segments.items()})
        self.head = nn.ModuleDict({k: nn.Linear(d, s.width) for k, s in self.segments.items()})
        for head in self.head.values():
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def _observe(self, config: ModelConfig, embodiment: Embodiment, d: int) -> None:
        """What turns an observation into clean tokens."""
        side = config.pixels
        rows, columns = config.image.grid(side, side)
        self.stem = STEMS[config.image.stem](config.image, d, rows * columns)
        if config.center_images:
            self.register_buffer("mean_frame", torch.zeros(self.views, 1, side, side, 3))
            self.register_buffer("frame_spread", torch.ones(1))
        self.from_state = nn.Linear(embodiment.state_dim, d)
        self.image_position = _normal(self.views * config.n_obs_steps * config.image.count(side, side), d)
        self.state_position = _normal(config.n_obs_steps, d)

    def image_tokens(self) -> int:
        """Tokens of the observed frames in the context."""
        return self.image_position.shape[0] if self.config.layout == "tokens" else 0

    @torch.no_grad()
    def center_on(self, images: Tensor) -> None:
        """Take mean frames, and the spread around them, from training frames (B, V, T, H, W, 3) where centred."""
        if self.config.center_images:
            self.mean_frame.copy_(images.mean(dim=(0, 2)).unsqueeze(1))
            self.frame_spread.copy_((images - self.mean_frame).std().clamp(min=1e-3))

    def encode(self, observation: Observation) -> Encoding:
        """What is observed, prepared once for all noise draws and solver steps."""
        sentence = self.from_sentence(observation.sentence)
        if self.config.layout == "stacked":
            return Encoding(Context.empty(sentence), observation.beside, sentence)
        return Encoding(self._context(observation, sentence), observation.beside)

    def _context(self, observation: Observation, sentence: Tensor) -> Context:
        b, v, t = observation.images.shape[:3]
        images = observation.images
        if self.config.center_images:
            images = (images - self.mean_frame) / self.frame_spread
        frames = rearrange(images, "b v t h w c -> (b v t) c h w")
        images = rearrange(self.stem(frames), "(b v t) l d -> b (v t l) d", b=b, v=v, t=t) + self.image_position
        tokens = [images, sentence.unsqueeze(1)]
        if observation.state is not None:
            tokens.insert(1, self.from_state(observation.state) + self.state_position)
        where = context_positions(self.config, v, with_state=observation.state is not None)
        return self.backbone.encode(torch.cat(tokens, dim=1), rotary=self._rotary([where], images))

    def denoise(self, segments: dict[str, Segment], encoding: Encoding) -> dict[str, Float[Tensor, "b n l c"]]:
        """Predict each present segment's target from its noisy values."""
        segments = {name: segments[name] for name in self.segments if name in segments}  # one order
        tokens = []
        for name, segment in segments.items():
            x = self._input(name, segment)
            if name in encoding.beside:
                x = torch.cat([x, encoding.beside[name].unsqueeze(1).expand(-1, x.shape[1], -1, -1)], dim=-1)
            tokens.append(self.embed[name](x) + self.position[name])
        rows, selector = self._modulation(segments, encoding.condition)
        where = [segment_positions(name, self.segments[name], self.config) for name in segments]
        hidden = self.backbone.denoise(
            torch.cat(tokens, dim=2),
            rows,
            encoding.context,
            selector=selector,
            rotary=self._rotary(where, tokens[0]),
            mask=self._mask(segments, encoding.context.tokens),
        )
        lengths = [s.x.shape[2] for s in segments.values()]
        chosen = [None] * len(lengths) if selector is None else selector.split(lengths, dim=2)
        kinds = [list(self.segments).index(name) if self.config.own_final else 0 for name in segments]
        return {
            name: self.head[name](self.backbone.finish(part, rows, which, kind))
            for name, part, which, kind in zip(segments, hidden.split(lengths, dim=2), chosen, kinds, strict=True)
        }

    def _input(self, name: str, segment: Segment) -> Tensor:
        """The segment's values as the network takes them: scaled to unit variance for EDM (its c_in)."""
        process = self.config.process(name)
        t = segment.t[..., None].expand(segment.x.shape[:3])
        if segment.clean is not None:
            t = t.masked_fill(segment.clean, 0)
        scale = input_scale(process.target, PATHS[process.path], t)
        return segment.x if process.target != "edm" else segment.x * torch.as_tensor(scale)[..., None]

    def _modulation(self, segments: dict[str, Segment], condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Rows of the distinct times (one for each segment, and 0 if a token is clean), and who has which."""
        times = [PATHS[self.config.process(name).path].clamp(s.t) for name, s in segments.items()]
        if any(s.clean is not None for s in segments.values()):
            times.append(torch.zeros_like(times[0]))
        joined = None if condition is None else condition[:, None, None]
        rows = self.backbone.modulation(torch.stack(times, dim=-1), joined)  # (B, N, G, R, D)
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

    def _mask(self, segments: dict[str, Segment], context: Tensor) -> Tensor | None:
        tokens = [(name, s.observed) for name, s in segments.items() for _ in range(s.x.shape[2])]
        table = allowed(tokens, self.config.coupling)
        if table is None:
            return None
        seen = torch.ones(len(tokens), context.shape[1], dtype=torch.bool)
        return torch.cat([seen, table], dim=1).to(context.device)

    def _positions(self, name: str) -> nn.Parameter:
        """What is added to a segment's tokens (L, D): learned, or sines and cosines of where they stand."""
        shape, backbone = self.segments[name], self.config.backbone
        if backbone.positions != "sincos":
            return _normal(shape.tokens, backbone.width)
        table = rotary_table(segment_positions(name, shape, self.config), backbone.width, base=1e4)
        return nn.Parameter(rearrange(table, "two l d -> l (two d)"), requires_grad=False)

    def _rotary(self, positions: list[Tensor], like: Tensor) -> Tensor | None:
        """The table that turns keys and queries, or None where positions are only added."""
        backbone = self.config.backbone
        if backbone.positions != "rotary":
            return None
        return rotary_table(torch.cat(positions).to(like.device), backbone.width // backbone.heads)


def _normal(tokens: int, width: int) -> nn.Parameter:
    return nn.Parameter(0.02 * torch.randn(tokens, width))
