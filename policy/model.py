"""The network of every preset: what encodes the observation, before the denoiser."""

import torch
from einops import rearrange
from torch import Tensor, nn

from ..envs.spec import Embodiment
from .config import ModelConfig
from .denoiser import Denoiser, Encoding, normal
from .nn.backbone import Context, Timed
from .nn.linear import Linear
from .nn.routing import Usage
from .positions import context_positions, segment_positions
from .shapes import beside_widths, segment_shapes
from .tokens.images import STEMS
from .tokens.kl import Tokenizer
from .tokens.language import VECTOR_DIM
from .transforms import Observation


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
            noise_token=config.noise_token and config.layout == "sequence",
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
        self.from_state = Linear(embodiment.state_dim, d)
        self.image_position = normal(self.views * config.n_obs_steps * config.image.count(side, side), d)
        self.state_position = normal(config.n_obs_steps, d)

    def adopt(self, tokenizer: Tokenizer) -> None:
        """Take the weights of a trained tokenizer. It stays as it is, and travels with the checkpoint."""
        assert self.tokenizer is not None
        self.tokenizer.load_state_dict(tokenizer.state_dict())

    def image_tokens(self) -> int:
        """Tokens of the observed frames in the context."""
        return 0 if self.config.layout == "stacked" else self.image_position.shape[0]

    @torch.no_grad()
    def center_on(self, images: Tensor) -> None:
        """Take mean frames, and the spread around them, from training frames (B, V, T, H, W, C) where centred."""
        if self.config.center_images:
            self.mean_frame.copy_(images.mean(dim=(0, 2)).unsqueeze(1))
            self.frame_spread.copy_((images - self.mean_frame).std().clamp(min=1e-3))

    def encode(
        self,
        observation: Observation,
        clean: Timed | None = None,
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
        tokens = self._observed(observation, sentence)
        if self.config.layout == "sequence":
            return self.led(tokens, observation)
        rotary = self.rotary([self._where(observation)], tokens)
        context = self.backbone.encode(tokens, rotary=rotary, clean=clean, usage=usage, whole=whole)
        return Encoding(context, observation.beside, views=observation.views)

    def led(self, lead: Tensor, observation: Observation) -> Encoding:
        """The encoding of an observation whose tokens (B, M, D) lead the sequence."""
        where = self._where(observation)
        return Encoding(Context([]), observation.beside, views=observation.views, lead=lead, where=where)

    def _where(self, observation: Observation) -> Tensor:
        """Where the tokens of an observation stand (M, 3)."""
        v, with_state = observation.images.shape[1], observation.state is not None
        return context_positions(self.config, v, with_state=with_state)

    def _observed(self, observation: Observation, sentence: Tensor) -> Tensor:
        """Tokens (B, M, D) of what is observed."""
        images = self._images(observation.images, sentence, observation.views)
        state = [] if observation.state is None else [self.from_state(observation.state) + self.state_position]
        instruction, rest = sentence.unsqueeze(1), [images, *state]
        return torch.cat([instruction, *rest] if self.config.layout == "sequence" else [*rest, instruction], dim=1)

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
