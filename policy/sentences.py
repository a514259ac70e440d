"""Instructions as the network takes them: frozen sentence vectors, or numbers of known sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.derived import derived_vectors
from ..data.store import Store
from ..envs.errors import UserError, choose
from .tokens.language import embed

MODES = ("minilm", "table")
MARK = "all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Sentences:
    """The sentences known in training, in order, with their vectors (n, 384) where the mode is 'minilm'.

    The vectors travel with the checkpoint, so that acting on a known sentence needs no language model. 'table' gives
    each known sentence a learned vector instead and knows no others.
    """

    mode: str
    known: tuple[str, ...]
    vectors: Tensor | None = None

    @classmethod
    def learn(cls, sentences: Sequence[str], mode: str, store: Store | None = None) -> "Sentences":
        """Prepare the distinct `sentences` for training; their vectors are kept in the store if given."""
        choose(mode, MODES, "instruction mode")
        vectors = None
        if mode == "minilm":
            known = embed(list(sentences)) if store is None else derived_vectors(store, sentences, mode, MARK, embed)
            vectors = torch.from_numpy(known)
        return cls(mode, tuple(sentences), vectors)

    def inputs(self, sentences: Sequence[str]) -> Tensor:
        """(B, 384) vectors, or (B,) numbers in table mode. A new sentence is embedded; in a table it is an error."""
        if self.vectors is None:
            return torch.tensor([self._number(s) for s in sentences])
        rows = [
            self.vectors[self.known.index(s)] if s in self.known else torch.as_tensor(embed([s])[0]) for s in sentences
        ]
        return torch.stack(rows)

    def _number(self, sentence: str) -> int:
        if sentence not in self.known:
            raise UserError(
                f"the policy learned a table of instructions and does not know {sentence!r}; it knows: "
                + "; ".join(self.known)
            )
        return self.known.index(sentence)
