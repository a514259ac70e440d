"""Settings of the one transformer. What is built from them: `backbone`, `block`, `experts`."""

from dataclasses import dataclass

from ...envs.errors import UserError, choose

POSITIONS = ("learned", "rotary", "sincos")
CONDITIONINGS = ("adaln", "attention", "none")
TIME_FEATURES = ("sinusoid", "log_sigma")
NORMS = ("layer", "rms")
ACTIVATIONS = ("gelu", "silu", "relu2", "swiglu")
CONDITIONS = ("language", "images")
ROUTERS = ("time", "split", "token", "expert_choice")


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """How many experts a layer has, and who goes through which; `experts.py` has the table of routers.

    chosen: experts of a token · shared: so many more that every token passes through · sampled: in training draw the
    chosen ones by their probability, without replacement, in the place of the most likely · renormalise: their weights
    sum to 1 · balance, prior, z: weights of losses, see `nn.balance`.
    """

    number: int = 4
    chosen: int = 2
    router: str = "time"
    shared: int = 0
    sampled: bool = True
    renormalise: bool = True
    balance: float = 0.01
    prior: float = 0.0
    z: float = 0.0

    def __post_init__(self):
        choose(self.router, ROUTERS, "router of experts")
        if not 1 <= self.chosen <= self.number:
            raise UserError(f"experts: {self.chosen} chosen of {self.number}; choose from 1 to all of them")
        if self.shared < 0:
            raise UserError(f"experts: shared is a number of experts, got {self.shared}")
        if self.router == "split" and self.chosen != 1:
            raise UserError(f"experts: router 'split' gives each time to one expert; chosen=1, not {self.chosen}")
        if self.prior and self.router != "time":
            raise UserError(f"experts: prior={self.prior} is about times, and router {self.router!r} learns none")

    @property
    def by_time(self) -> bool:
        """Is the choice known from the time alone?"""
        return self.router in ("time", "split")


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Width D, depth, heads, and the feed-forward layer: mlp_ratio times D hidden units, `experts` of them or one.

    positions: the embedders add 'learned' ones, or fixed 'sincos' ones; with 'rotary' they add learned ones, and
    queries and keys are turned as well. qk_norm: normalise queries and keys (Dehghani et al. 2023, ViT-22B).
    conditioning: how time enters a block. 'adaln' shifts, scales and gates (Peebles and Xie 2023, DiT); 'attention'
    adds it to the normalised input of attention (MoDE); 'none' leaves it to a token. time: its features, sines through
    an MLP or a linear map of log σ / 4 (MoDE).
    gate_init: where the gates of x + g · f(x) start. 0 is adaLN-zero; a short training does better with open gates,
    because a closed stream does not see its context until the gates have grown.
    attention_dropout, mlp_dropout: in training, of attention weights and hidden units.
    qk_kind: the norm of queries and keys. cross: conditions that no block updates, which the stream attends to in a
    sub-layer of its own between the two: layer i to the i-th of them, over and over (RDT, §4.1); () for none.
    """

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    qk_norm: bool = True
    norm: str = "layer"
    positions: str = "learned"
    conditioning: str = "adaln"
    time: str = "sinusoid"
    gate_init: float = 0.0
    attention_dropout: float = 0.0
    mlp_dropout: float = 0.0
    experts: ExpertsConfig | None = None
    qk_kind: str = "layer"
    cross: tuple[str, ...] = ()

    def __post_init__(self):
        for condition in self.cross:
            choose(condition, CONDITIONS, "condition of cross-attention")
        choose(self.qk_kind, NORMS, "norm of queries and keys")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise UserError(f"width {self.width} must split into {self.heads} heads of even size")
        choose(self.positions, POSITIONS, "kind of positions")
        choose(self.activation, ACTIVATIONS, "activation")
        choose(self.norm, NORMS, "norm")
        choose(self.conditioning, CONDITIONINGS, "conditioning")
        choose(self.time, TIME_FEATURES, "kind of time features")
        for name in ("attention_dropout", "mlp_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is a share from 0 to below 1, got {getattr(self, name)}")
