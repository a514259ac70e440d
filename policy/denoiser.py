"""The denoiser: segments embedded as tokens, the backbone, and one head for each segment. It knows no robot."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from .diffusion.config import Process
from .diffusion.path import PATHS, input_scale
from .nn.backbone import Backbone, Context
from .nn.config import BackboneConfig
from .nn.experts import Bank
from .nn.linear import mlp
from .nn.rope import rotary_table
from .nn.routing import Usage
from .nn.timed import Timed
from .segments import Segment
from .shapes import Shape
from .wiring import Wiring, main_segment, mask, selector


@dataclass(frozen=True)
class Encoding:
    """An observation as the denoised stream meets it.

    context: its clean tokens, encoded once · beside {segment: (B, L, C)}: clean values that join a segment's channels ·
    condition (B, D) or None: what joins the embedded time · views: which cameras are there, None for all · lead
    (B, M, D) or None: tokens that lead the sequence of what is denoised and go through it with its time, where they
    stand (M, 3).
    """

    context: Context
    beside: dict[str, Tensor]
    condition: Tensor | None = None
    views: tuple[int, ...] | None = None
    lead: Tensor | None = None
    where: Tensor | None = None

    def __getitem__(self, rows: slice) -> "Encoding":
        """The encoding of some samples of the batch."""
        beside = {name: values[rows] for name, values in self.beside.items()}
        condition = None if self.condition is None else self.condition[rows]
        lead = None if self.lead is None else self.lead[rows]
        return Encoding(self.context[rows], beside, condition, self.views, lead, self.where)

    def clone(self) -> "Encoding":
        """A copy in memory of its own."""
        context = self.context.clone()
        beside = {name: values.clone() for name, values in self.beside.items()}
        condition, lead = (None if x is None else x.clone() for x in (self.condition, self.lead))
        return Encoding(context, beside, condition, self.views, lead, self.where)


class Denoiser(nn.Module):
    """Noisy segments and what is observed → a prediction for each segment that is there.

    segments: every segment that can take part, in the order of the sequence · processes: how each is noised · coupling:
    who sees whom · beside: clean channels that join a segment's · places: positions (L, 3) of a segment's tokens ·
    own_final: a final modulation for each segment · noise_token: a token of the time comes before those of
    `Encoding.lead` · masked: segments whose clean channels say which of their values are there; the others are nothing,
    neither in nor out · causal: a sequence that has leading tokens · embed_depth, head_depth: layers of the maps
    between values and tokens. A segment may have fewer tokens than here: its first ones. Letters: B batch, N noise
    draws, L tokens, D width, C channels.
    """

    def __init__(
        self,
        backbone: BackboneConfig,
        segments: Mapping[str, Shape],
        processes: Mapping[str, Process],
        *,
        coupling: str = "full",
        beside: Mapping[str, int] | None = None,
        places: Mapping[str, Tensor] | None = None,
        own_final: bool = False,
        noise_token: bool = False,
        masked: Collection[str] = (),
        causal: bool = True,
        embed_depth: int = 1,
        head_depth: int = 1,
    ):
        super().__init__()
        self.masked, self.causal = frozenset(masked), causal
        d, beside = backbone.width, beside or {}
        self.segments, self.processes = dict(segments), dict(processes)
        self.coupling, self.own_final, self.noise_token = coupling, own_final, noise_token
        self.places = dict(places) if places else {k: s.positions(range(s.steps), 1.0) for k, s in segments.items()}
        self.backbone = Backbone(backbone, len(self.segments) if own_final else 1)
        self.position = nn.ParameterDict({k: self._positions(k) for k in self.segments})
        inputs = {k: s.width + beside.get(k, 0) for k, s in self.segments.items()}
        self.embed = nn.ModuleDict({k: mlp(n, d, d, embed_depth) for k, n in inputs.items()})
        self.head = nn.ModuleDict({k: mlp(d, d, self._outputs(k), head_depth) for k in self.segments})
        for head in self.head.values():
            last = head[-1] if isinstance(head, nn.Sequential) else head
            nn.init.zeros_(last.weight)  # type: ignore[arg-type]
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def _outputs(self, name: str) -> int:
        """Channels of a head: the target, and beside it the variance where that is learned."""
        return self.segments[name].width * (2 if self.processes[name].variance == "learned" else 1)

    def denoise(
        self,
        segments: Mapping[str, Segment],
        encoding: Encoding,
        *,
        timed: Timed | None = None,
        wiring: Wiring | None = None,
        generator: torch.Generator | None = None,
        usage: list[Usage] | None = None,
    ) -> dict[str, Float[Tensor, "b n l c"]]:
        """Predict each present segment's target from its noisy values; 2 C channels where variance is learned.

        timed, wiring: what `timed` and `wiring` give for these segments, for who has them already (`plan`). generator:
        draws experts, in training; usage: gets how they were used.
        """
        segments = self._ordered(segments)
        if timed is None:
            timed = self.timed(self.times(segments), encoding.condition, generator=generator, usage=usage)
        wiring = self.wiring(segments, encoding) if wiring is None else wiring
        tokens = self._lead(encoding, segments, timed)
        for name, segment in segments.items():
            x = self._input(name, segment)
            if name in encoding.beside:
                beside = encoding.beside[name].unsqueeze(1).expand(-1, x.shape[1], -1, -1)
                x = torch.cat([x * beside if name in self.masked else x, beside], dim=-1)
            tokens.append(self.embed[name](x) + self._seen(name, self.position[name], segment, encoding.views))
        hidden = self.backbone.denoise(
            torch.cat(tokens, dim=2),
            timed,
            encoding.context,
            selector=wiring.selector,
            rotary=wiring.rotary,
            mask=wiring.mask,
            usage=usage,
        )
        lengths = [s.x.shape[2] for s in segments.values()]
        hidden = hidden[:, :, -sum(lengths) :]
        chosen = (
            [None] * len(lengths)
            if wiring.selector is None
            else wiring.selector[:, :, -sum(lengths) :].split(lengths, dim=2)
        )
        kinds = [list(self.segments).index(name) if self.own_final else 0 for name in segments]
        found = {
            name: self.head[name](self.backbone.finish(part, timed.rows, which, kind))
            for name, part, which, kind in zip(segments, hidden.split(lengths, dim=2), chosen, kinds, strict=True)
        }
        return found | {name: found[name] * encoding.beside[name].unsqueeze(1) for name in self.masked & found.keys()}

    def _lead(self, encoding: Encoding, segments: Mapping[str, Segment], timed: Timed) -> list[Tensor]:
        """What stands before the denoised tokens in their sequence: the noise, and the observation."""
        if encoding.lead is None:
            return []
        first = next(iter(segments.values())).x
        seen = encoding.lead.unsqueeze(1).expand(-1, first.shape[1], -1, -1)
        if not self.noise_token:
            return [seen]
        assert timed.embedded is not None
        noise = timed.embedded[..., main_segment(segments), None, :].expand(*first.shape[:2], -1, -1)
        return [noise.to(seen.dtype), seen]

    def _ordered(self, segments: Mapping[str, Segment]) -> dict[str, Segment]:
        """The segments in the one order of the sequence."""
        return {name: segments[name] for name in self.segments if name in segments}

    def times(self, segments: Mapping[str, Segment]) -> Float[Tensor, "b n g"]:
        """The distinct times of these segments as the network sees them: one each, and 0 if a token is clean."""
        segments = self._ordered(segments)
        times = [PATHS[self.processes[name].path].clamp(s.t) for name, s in segments.items()]
        if any(s.clean is not None for s in segments.values()):
            times.append(torch.zeros_like(times[0]))
        return torch.stack(times, dim=-1)

    def timed(
        self,
        times: Tensor,
        condition: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        usage: list[Usage] | None = None,
    ) -> Timed:
        """What the backbone takes from times (..., B or 1, N, G) and a condition (B, D) that joins them."""
        condition = None if condition is None else condition[:, None, None]
        return self.backbone.timed(times, condition, generator=generator, usage=usage)

    def fused(self, timed: Timed, bank: Bank) -> Timed:
        """The same for one sample, with the experts that time chooses joined into one layer."""
        return self.backbone.fused(timed, bank)

    def wiring(self, segments: Mapping[str, Segment], encoding: Encoding) -> Wiring:
        """How the tokens of these segments meet."""
        segments = self._ordered(segments)
        where = [self._seen(name, self.places[name], segment, encoding.views) for name, segment in segments.items()]
        lead = 0
        if encoding.lead is not None and encoding.where is not None:
            noise = [torch.zeros(1, 3)] if self.noise_token else []
            where = [*noise, encoding.where, *where]
            lead = len(noise) + encoding.lead.shape[1]
        rotary = self.rotary(where, next(iter(segments.values())).x)
        seen = mask(segments, self.coupling, context=len(encoding.context), lead=lead, causal=self.causal)
        return Wiring(selector(segments, lead), rotary, seen)

    def _seen(self, name: str, values: Tensor, segment: Segment, views: tuple[int, ...] | None) -> Tensor:
        """The values (L, ...) of the tokens of a segment that are there: of some cameras, or of the first steps."""
        shape = self.segments[name]
        if views is None or shape.views == 1:
            return values[: segment.x.shape[2]]
        cells = shape.rows * shape.columns
        return values.view(-1, shape.views, cells, values.shape[-1])[:, list(views)].flatten(0, 2)

    def _input(self, name: str, segment: Segment) -> Tensor:
        """The segment's values as the network takes them: scaled to unit variance for EDM (its c_in)."""
        process = self.processes[name]
        t = segment.t[..., None].expand(segment.x.shape[:3])
        if segment.clean is not None:
            t = t.masked_fill(segment.clean, 0)
        scale = input_scale(process.target, PATHS[process.path], t)
        return segment.x if process.target != "edm" else segment.x * torch.as_tensor(scale)[..., None]

    def _positions(self, name: str) -> nn.Parameter:
        """What is added to a segment's tokens (L, D): learned, or sines and cosines of where they stand."""
        config = self.backbone.config
        if config.positions != "sincos":
            return normal(self.segments[name].tokens, config.width)
        table = rotary_table(self.places[name], config.width, base=1e4)
        return nn.Parameter(rearrange(table, "two l d -> l (two d)"), requires_grad=False)

    def rotary(self, positions: list[Tensor], like: Tensor) -> Tensor | None:
        """The table that turns keys and queries, or None where positions are only added."""
        backbone = self.backbone.config
        if backbone.positions != "rotary":
            return None
        return rotary_table(torch.cat(positions).to(like.device), backbone.width // backbone.heads)


def normal(tokens: int, width: int) -> nn.Parameter:
    """Learned positions (L, D) of a transformer."""
    return nn.Parameter(0.02 * torch.randn(tokens, width))
