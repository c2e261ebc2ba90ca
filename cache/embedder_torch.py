"""Any model of sentence-transformers as an embedder; needs `pip install 'farthing[sentence-transformers]'`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from farthing.cache.embedder import EmbedderUnavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SentenceTransformerEmbedder"]


class SentenceTransformerEmbedder:
    """A model by name or folder, from this machine only: nothing is downloaded while serving."""

    # Short texts in batches take 0.6 of their time one by one (fp32, one thread); more than 8 would outlast a deadline.
    batch = 8

    def __init__(self, model: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise EmbedderUnavailable(
                "sentence-transformers is not installed: pip install 'farthing[sentence-transformers]'"
            ) from None
        try:
            self._model = cast("Any", SentenceTransformer)(model, device="cpu", local_files_only=True)
        except Exception as error:
            raise EmbedderUnavailable(
                f"sentence-transformers can't load {model!r} here: {type(error).__name__}"
            ) from error
        self.name = f"sentence-transformers:{model}"
        self.dim = int(self._model.get_embedding_dimension())
        self.max_tokens = int(self._model.max_seq_length)

    def count(self, text: str) -> int:
        """See Embedder."""
        return len(self._model.tokenizer(_plain(text), truncation=False, verbose=False)["input_ids"])

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See Embedder."""
        import numpy as np

        if any(self.count(text) > self.max_tokens for text in texts):
            raise ValueError("a text is longer than the model's window")
        found = self._model.encode(
            [_plain(text) for text in texts], normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return np.asarray(found, np.float32).reshape(len(texts), self.dim)


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
