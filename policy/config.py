"""Settings of a model."""

from dataclasses import dataclass, field, replace

from ..data.windows import Windows
from ..envs.errors import UserError, choose, positive
from ..envs.slot_maps import SPACES
from .diffusion.config import Process, SolverConfig
from .nn.config import BackboneConfig
from .segments import COUPLINGS, PARTIAL, QUERIES, Role
from .tokens.images import ImageConfig
from .tokens.kl import KLConfig


def _frames() -> Process:
    """Mostly near pure noise, where a frame's pixels must come from the observation: with uniform times a short
    training learns to copy the noise instead, and the frames are grainy (2 dB worse after 300 updates). One time in
    16 is below 0.5, so sampling stops there (1 dB better than going on to 0)."""
    return Process(target="x0", times="beta", times_settings={"a": 4.0}, least=0.5)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A preset. Everything that fixes parameters, tokens, pixels and chunk length.

    pixels: side of the square frames that go in (a store's frames are resized to it). center_images: what goes in is
    how a frame differs from the mean frame of its camera in training, so that a small goal stands out; for cameras
    that stand still.
    future: steps ahead of the foreseen frames, empty for none. future_delta: foresee the difference to the present
    frame. stack_now: put the present frame's pixels on the channels of the foreseen ones.
    latent: foresee the latents of a tokenizer of these sizes; future_patch then counts latent cells.
    depth: see and foresee depth as well, from 0 to so many metres (what is farther counts as that far); 0 for none.
    poses: denoise the robot's state at the foreseen steps in the place of actions; a planner drives there.
    layout: 'tokens' gives each frame and action tokens of its own, and the observation a clean context that is encoded
    once; 'sequence' is MoDE's: one causal sequence of noise (`noise_token`), instruction, cameras, state and what is
    denoised, all at its time; 'crossed' is RDT's: noise, state, control rate and actions see each other, and attend to
    instruction and images, which are encoded once, where the backbone has `cross`; 'stacked' is PAD's: steps lie on
    channels, the present frame and state beside them, and the instruction joins the time. coupling: which denoised
    segment sees which (`segments.COUPLINGS`). times: 'independent' draws a time for each segment, 'shared' one for all,
    by the law of the actions' process. own_final: a final modulation for each segment. goal_dropout: share of samples
    that learn without their instruction.
    draws: noise draws of each query per encoded observation in training; a number below 1 draws once for that share
    of the batch, and 0 leaves the query out. Query 'continue' observes the first 1 to horizon/2 actions, which
    real-time chunking needs.
    space: what numbers of state and action are: a robot's own ('native': one robot), the slots that all robots share
    ('slots', `envs.slots`) or its own with zeros after them ('padded', naive); with the last two the network is told
    which are there, and many robots can be learned. masked: what is not there is no input, no output and no loss; False
    learns that it is 0, as RDT does. seconds: chunks are cut to so many at each robot's rate, 0 for `horizon` actions.
    rate_token: a token tells the control rate. modality_dropout: share of samples that learn without their state, the
    rate, the word of which of the state is there, and each frame, drawn apart (RDT, §4.2). adaptor_depth, head_depth:
    layers of the maps from state and actions to tokens, and of those back.
    """

    name: str
    backbone: BackboneConfig
    image: ImageConfig = field(default_factory=ImageConfig)
    pixels: int = 96
    center_images: bool = False
    n_obs_steps: int = 1
    horizon: int = 16
    n_action_steps: int = 8
    future: tuple[int, ...] = ()
    future_patch: int = 16
    future_delta: bool = True
    stack_now: bool = True
    latent: KLConfig | None = None
    depth: float = 0.0
    depth_patch: int = 16
    action_process: Process = field(default_factory=Process)
    future_process: Process = field(default_factory=_frames)
    poses: bool = False
    space: str = "native"
    masked: bool = True
    seconds: float = 0.0
    rate_token: bool = False
    modality_dropout: float = 0.0
    adaptor_depth: int = 1
    head_depth: int = 1
    layout: str = "tokens"
    noise_token: bool = True
    goal_dropout: float = 0.0
    coupling: str = "action_blind"
    times: str = "independent"
    own_final: bool = False
    draws: dict[str, float] = field(default_factory=lambda: {"policy": 3, "continue": 1})
    instruction: str = "minilm"
    state_norm: str = "gaussian"
    action_norm: str = "gaussian"
    solver: SolverConfig = field(default_factory=SolverConfig)

    def __post_init__(self):
        choose(self.coupling, COUPLINGS, "coupling")
        choose(self.times, ("independent", "shared"), "coupling of times")
        choose(self.layout, ("tokens", "stacked", "sequence", "crossed"), "layout")
        if self.solver.cache and self.layout in ("stacked", "sequence"):
            how = "on the channels" if self.layout == "stacked" else "in the sequence"
            raise UserError(
                f"model {self.name!r} sees the observation {how} of what it denoises, so there is nothing to "
                "cache: solver.cache=null"
            )
        self._check_sequence()
        self._check_space()
        if not 0 <= self.goal_dropout < 1:
            raise UserError(f"goal_dropout is a share of samples from 0 to below 1, got {self.goal_dropout}")
        for name in ("pixels", "n_obs_steps", "horizon", "n_action_steps", "adaptor_depth", "head_depth"):
            positive(name, getattr(self, name))
        if self.n_action_steps > self.horizon:
            raise UserError(
                f"n_action_steps {self.n_action_steps} > horizon {self.horizon}: a chunk has no more actions"
            )
        object.__setattr__(self, "draws", {query: n for query, n in self.draws.items() if n != 0})
        if not self.draws:
            raise UserError("draws is empty: name at least one query to train, for example {policy: 4}")
        for query, count in self.draws.items():
            choose(query, QUERIES, "query")
            if count < 0 or (count > 1 and count % 1):
                raise UserError(f"draws of {query} must be a share of the batch up to 1 or a whole number, got {count}")
            self._check_query(query)
        if any(step < 1 for step in self.future):
            raise UserError(f"future frames start at least one step ahead, got future={list(self.future)}")
        if self.poses and (self.horizon != len(self.future) or self.n_obs_steps != 1):
            raise UserError(
                f"poses are those of the foreseen steps, seen from one frame: horizon {self.horizon} must be "
                f"{len(self.future)}, the number of future frames, and n_obs_steps {self.n_obs_steps} must be 1"
            )
        for name in ("future", "depth") if self.depth else ("future",):
            if self.side(name) % self.patch(name):
                raise UserError(f"{name}: {self.side(name)} cells do not divide into patches of {self.patch(name)}")
        self.image.grid(self.pixels, self.pixels)

    def _check_sequence(self) -> None:
        """In a causal sequence actions come before frames, and experts that choose among all tokens look ahead."""
        experts, causal = self.backbone.experts, self.layout == "sequence"
        if (self.layout == "crossed") != bool(self.backbone.cross):
            raise UserError(
                f"layout {self.layout!r} and backbone.cross={list(self.backbone.cross)} do not fit: layout 'crossed' "
                "and conditions to attend to go together"
            )
        if self.layout == "crossed" and (self.coupling != "full" or self.backbone.positions == "rotary"):
            raise UserError(
                "layout 'crossed' lets all tokens see each other and adds positions: coupling=full, not rotary"
            )
        if causal and self.coupling not in ("action_blind", "decoupled"):
            raise UserError(
                f"layout 'sequence' is causal, actions before frames, so coupling {self.coupling!r} is not possible: "
                "action_blind or decoupled"
            )
        if experts and experts.router == "expert_choice" and (causal or self.coupling != "full"):
            raise UserError(
                "router 'expert_choice' gives each expert the tokens that want it most of all there are, so every "
                "token sees every other: coupling=full, and another layout than 'sequence'"
            )

    def _check_space(self) -> None:
        choose(self.space, SPACES, "space of states and actions")
        if self.space == "native" and not self.masked:
            raise UserError("masked=false is about what a robot lacks of a shared space: space=slots or padded")
        if self.seconds < 0:
            raise UserError(f"seconds is how long a chunk is, 0 for horizon actions, got {self.seconds:g}")
        if not 0 <= self.modality_dropout < 1:
            raise UserError(f"modality_dropout is a share of samples from 0 to below 1, got {self.modality_dropout:g}")
        deeper = self.adaptor_depth > 1 or self.head_depth > 1
        shared = self.space != "native" or self.seconds or self.rate_token or self.modality_dropout or deeper
        if shared and (self.layout == "stacked" or self.poses or self.action_process.variance == "learned"):
            raise UserError(
                "space, seconds, rate_token, modality_dropout, adaptor_depth and head_depth need chunks of actions "
                "with a token each: not layout 'stacked', not poses, not a learned variance of actions"
            )

    def _check_query(self, query: str) -> None:
        roles = QUERIES[query]
        if "future" in roles and not self.future:
            raise UserError(f"query {query!r} needs future frames, but future is empty")
        for name, role in roles.items():
            if role in PARTIAL and role != Role.CONTINUE and self.layout == "sequence":
                raise UserError(
                    f"query {query!r} shows some tokens of {name} to those before them, and layout 'sequence' is causal"
                )
            if role in PARTIAL and self.layout == "stacked":
                raise UserError(
                    f"query {query!r} shows some tokens of {name}, but layout 'stacked' has no token a step"
                )
            if role in (Role.PREDICT, Role.INTERPOLATE, Role.ANIMATE) and len(self.future) < 2:
                raise UserError(
                    f"query {query!r} shows some of the future frames, so it needs two of them or more, got "
                    f"future={list(self.future)}"
                )

    @property
    def windows(self) -> Windows:
        """What of an episode one sample sees."""
        return Windows(n_obs_steps=self.n_obs_steps, horizon=self.horizon, future=self.future, seconds=self.seconds)

    @property
    def acting(self) -> str:
        """The query that acts: without the future where the preset was trained to. `UserError` where it was not."""
        for query in ("policy", "joint"):
            if query in self.draws:
                return query
        raise UserError(f"model {self.name!r} was trained on {', '.join(self.draws)}; to act it needs policy or joint")

    def process(self, segment: str) -> Process:
        """How the segment of that name is noised and predicted; depth as colour is."""
        action, future = self.action_process, self.future_process
        if segment == "action" or self.times == "independent":
            return action if segment == "action" else future
        return replace(future, times=action.times, times_settings=action.times_settings, least=action.least)

    def patch(self, segment: str) -> int:
        """Side of a patch of a foreseen segment."""
        return (
            self.depth_patch if segment == "depth" and self.depth else self.future_patch if segment == "future" else 1
        )

    def side(self, segment: str) -> int:
        """Cells along each side of a foreseen map: pixels, or cells of the latent."""
        return self.latent.side(self.pixels) if self.latent and segment == "future" else self.pixels

    def cell(self, segment: str) -> int:
        """Pixels along each side of a token of a foreseen segment."""
        return self.patch(segment) * (self.pixels // self.side(segment))

    @property
    def channels(self) -> int:
        """Channels of an observed frame: colours, and depth where it is seen."""
        return 4 if self.depth else 3

    @property
    def can_imagine(self) -> bool:
        """Does it foresee frames together with actions?"""
        return "joint" in self.draws
