"""What a camera says about itself: where it stands, how large its picture is, how it is drawn."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from .errors import UserError

Look = Literal["fast", "reference", "stock"]
Flip = Literal["none", "rot180"]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera: where it stands, how large its picture is, and how it is drawn.

    `mount` names the simulator's camera (or the driver's device); `pos` [m, world frame] moves it if given.
    `flip` is what turns the raw picture upright as a person sees it; stored pictures are already upright.
    `look`: 'fast' has no shadows, multisampling or reflections, 'reference' is the simulator's own, 'stock' that with
    goal markers as small as the simulator draws them. `source`: drawn so many pixels wide and averaged down to size.
    """

    name: str
    mount: str
    height: int = 96
    width: int = 96
    pos: tuple[float, float, float] | None = None
    fovy: float | None = None
    flip: Flip = "none"
    look: Look = "fast"
    depth: bool = False
    source: int | None = None

    def __post_init__(self):
        if self.source is not None and (self.source < self.width or self.depth):
            raise UserError(
                f"camera {self.name!r}: source={self.source} is drawn and averaged down to {self.width} pixels, so it "
                "is at least as many, and has no depth"
            )
        if self.height < 1 or self.width < 1:
            raise UserError(f"camera {self.name!r}: size must be positive, got {self.height} x {self.width}")

    @property
    def drawn(self) -> tuple[int, int]:
        """Height and width of what is drawn, before it is averaged down."""
        factor = 1 if self.source is None else self.source / self.width
        return round(self.height * factor), round(self.width * factor)

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of its fields; `source` is not mentioned where there is none, as before it could be."""
        d = asdict(self)
        return d if self.source is not None else {k: v for k, v in d.items() if k != "source"}
