"""The network of every preset: what encodes the observation, before the denoiser."""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from ..envs.slot_maps import SPACES
from ..envs.spec import Embodiment
from .config import ModelConfig
from .denoiser import Denoiser, Encoding, normal
from .nn.backbone import Context
from .nn.linear import Linear, mlp
from .nn.routing import Usage
from .nn.timed import Timed, sinusoid
from .observation import Observation
from .positions import context_positions, segment_positions
from .shapes import beside_widths, segment_shapes, state_width
from .tokens.images import STEMS
from .tokens.kl import Tokenizer
from .tokens.language import VECTOR_DIM


class Model(Denoiser):
    """Observation → encoding once; noisy segments and encoding → predictions, as often as the solver asks.

    Letters: B batch, V views, T observation steps, L tokens, D width, S state, M context tokens.
    """

    mean_frame: Tensor
    frame_spread: Tensor

    def __init__(self, config: ModelConfig, embodiment: Embodiment, sentences: int):
        shapes = segment_shapes(config, embodiment)
        super().__init__(
            config.backbone,
            shapes,
            {name: config.process(name) for name in shapes},
            coupling=config.coupling,
            beside=beside_widths(config, embodiment),
            places={name: segment_positions(name, shape, config) for name, shape in shapes.items()},
            own_final=config.own_final,
            noise_token=config.noise_token and config.layout in ("sequence", "crossed"),
            causal=config.layout == "sequence",
            embed_depth=config.adaptor_depth,
            head_depth=config.head_depth,
            masked=("action",) if SPACES[config.space] and config.masked else (),
        )
        self.config = config
        self.views, d = len(embodiment.cameras), config.backbone.width
        self.from_sentence = Linear(VECTOR_DIM, d) if config.instruction == "minilm" else nn.Embedding(sentences, d)
        if config.layout != "stacked":
            self._observe(config, embodiment, d)
        self.tokenizer = Tokenizer(config.latent).requires_grad_(False) if config.latent else None

    def _observe(self, config: ModelConfig, embodiment: Embodiment, d: int) -> None:
        """What turns an observation into clean tokens."""
        side = config.pixels
        rows, columns = config.image.grid(side, side)
        stems = [
            STEMS[config.image.stem](config.image, d, rows * columns, config.channels)
            for _ in range(self.views if config.image.per_camera else 1)
        ]
        self.stem = nn.ModuleList(stems) if config.image.per_camera else stems[0]
        if config.center_images:
            self.register_buffer("mean_frame", torch.zeros(self.views, 1, side, side, config.channels))
            self.register_buffer("frame_spread", torch.ones(1))
        self.from_state = mlp(state_width(config, embodiment), d, d, config.adaptor_depth)
        if config.rate_token:
            self.from_rate = nn.Sequential(Linear(d, d), nn.SiLU(), Linear(d, d))
        self.image_position = normal(self.views * config.n_obs_steps * config.image.count(side, side), d)
        self.state_position = normal(config.n_obs_steps, d)

    def adopt(self, tokenizer: Tokenizer) -> None:
        """Take the weights of a trained tokenizer. It stays as it is, and travels with the checkpoint."""
        assert self.tokenizer is not None
        self.tokenizer.load_state_dict(tokenizer.state_dict())

    def image_tokens(self, views: tuple[int, ...] | None = None) -> int:
        """Tokens of the observed frames in the context, of some cameras or of all."""
        if self.config.layout == "stacked":
            return 0
        return self.image_position.shape[0] * len(views or range(self.views)) // self.views

    @torch.no_grad()
    def center_on(self, samples: Sequence[tuple[tuple[int, ...] | None, Tensor]]) -> None:
        """Take mean frames, and the spread around them, from training frames where centred.

        samples: of each robot, which of the cameras its are (None: all) and their frames (B, V, T, H, W, C).
        """
        if not self.config.center_images:
            return
        placed = [(list(views or range(self.views)), images) for views, images in samples]
        for view in range(self.views):
            seen = [images[:, views.index(view)] for views, images in placed if view in views]
            self.mean_frame[view].copy_(torch.cat([x.flatten(0, 1) for x in seen]).mean(dim=0))
        rest = torch.cat([(images - self.mean_frame[views]).flatten() for views, images in placed])
        self.frame_spread.copy_(rest.std().clamp(min=1e-3))

    def encode(
        self,
        observation: Observation,
        clean: Timed | None = None,
        *,
        usage: list[Usage] | None = None,
        whole: bool = False,
    ) -> Encoding:
        """What is observed, prepared once for all noise draws and solver steps.

        clean: the backbone's `clean`, for who has it already (`plan`). usage: gets how experts were used. whole: see
        `Backbone.encode`.
        """
        sentence = self.from_sentence(observation.sentence)
        if observation.told is not None:
            sentence = sentence * observation.told[:, None]
        if self.config.layout == "stacked":
            return Encoding(Context([]), observation.beside, sentence, observation.views)
        if self.config.layout == "crossed":
            return self._crossed(observation, sentence)
        tokens = self._observed(observation, sentence)
        if self.config.layout == "sequence":
            return self.led(tokens, observation)
        rotary = self.rotary([self._where(observation)], tokens)
        context = self.backbone.encode(tokens, rotary=rotary, clean=clean, usage=usage, whole=whole)
        return Encoding(context, observation.beside, views=observation.views)

    def _crossed(self, observation: Observation, sentence: Tensor) -> Encoding:
        """State and rate lead the sequence; instruction and images are what it attends to."""
        images = self._images(observation.images, sentence, observation.views)
        context = self.backbone.condition({"language": sentence.unsqueeze(1), "images": images})
        nothing = sentence.new_zeros(len(sentence), 0, sentence.shape[-1])
        lead = torch.cat([nothing, *self._state(observation), *self._rate(observation)], dim=1)
        where = torch.zeros(lead.shape[1], 3)
        return Encoding(context, observation.beside, views=observation.views, lead=lead, where=where)

    def led(self, lead: Tensor, observation: Observation) -> Encoding:
        """The encoding of an observation whose tokens (B, M, D) lead the sequence."""
        where = self._where(observation)
        return Encoding(Context([]), observation.beside, views=observation.views, lead=lead, where=where)

    def _where(self, observation: Observation) -> Tensor:
        """Where the tokens of an observation stand (M, 3)."""
        with_state, with_rate = observation.state is not None, observation.rate is not None
        return context_positions(self.config, observation.images.shape[1], with_state=with_state, with_rate=with_rate)

    def _observed(self, observation: Observation, sentence: Tensor) -> Tensor:
        """Tokens (B, M, D) of what is observed."""
        images = self._images(observation.images, sentence, observation.views)
        instruction, rest = sentence.unsqueeze(1), [images, *self._state(observation), *self._rate(observation)]
        return torch.cat([instruction, *rest] if self.config.layout == "sequence" else [*rest, instruction], dim=1)

    def _state(self, observation: Observation) -> list[Tensor]:
        """Tokens (B, T, D) of the state, if there is one."""
        return [] if observation.state is None else [self.from_state(observation.state) + self.state_position]

    def _rate(self, observation: Observation) -> list[Tensor]:
        """A token (B, 1, D) of the control rate, if it is told."""
        if observation.rate is None:
            return []
        return [self.from_rate(sinusoid(observation.rate / 1000, self.config.backbone.width))[:, None]]

    def _images(self, images: Tensor, sentence: Tensor, seen: tuple[int, ...] | None) -> Tensor:
        """Tokens (B, V T L, D) of frames (B, V, T, H, W, C) of the cameras that are there."""
        b, v, t = images.shape[:3]
        views = list(seen or range(self.views))
        if self.config.center_images:
            images = (images - self.mean_frame[views]) / self.frame_spread
        frames = rearrange(images, "b v t h w c -> v (b t) c h w")
        told = sentence.repeat_interleave(t, dim=0)
        if isinstance(self.stem, nn.ModuleList):
            tokens = torch.stack([self.stem[view](x, told) for view, x in zip(views, frames, strict=True)])
        else:
            tokens = self.stem(frames.flatten(0, 1), told.repeat(v, 1)).unflatten(0, (v, b * t))
        position = self.image_position.view(self.views, -1, self.image_position.shape[-1])[views]
        return rearrange(tokens, "v (b t) l d -> b (v t l) d", t=t) + position.flatten(0, 1)
