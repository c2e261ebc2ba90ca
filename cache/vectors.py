"""Texts to vectors with a memory: a text is embedded once, and texts that come together go to the model together.

Rules of this file: what is remembered is keyed by a hash, so that no prompt is kept here; it is bounded, and the least
recently used goes first. Lives on one thread, as the model does.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from farthing.cache.embedder import Embedder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Vectors"]

# 384 dimensions: 1.5 kB each, some 6 MB in all.
_REMEMBERED = 4_096


class Vectors:
    """See the module. `remembered`: how many vectors it keeps."""

    def __init__(self, embedder: Embedder, remembered: int = _REMEMBERED) -> None:
        self._embedder = embedder
        self._most = remembered
        self._known: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, text: str) -> NDArray[np.float32] | None:
        """The vector, float32 [dim]; None where the text is beyond the model's window."""
        return self.all_of([text])[0]

    def all_of(self, texts: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """`of` for each; those not remembered are embedded in one call, each of them once."""
        keys = [_key(text) for text in texts]
        missing: dict[bytes, str] = {}
        found: dict[bytes, NDArray[np.float32]] = {}
        for key, text in zip(keys, texts, strict=True):
            if key in self._known:
                self._known.move_to_end(key)
                found[key] = self._known[key]
            elif self._embedder.count(text) <= self._embedder.max_tokens:
                missing[key] = text
        if missing:
            # A row of its own for each: a view would keep its whole batch in memory.
            rows = self._embedder.embed(list(missing.values()))
            fresh = {key: row.copy() for key, row in zip(missing, rows, strict=True)}
            found |= fresh
            self._known |= fresh
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return [found.get(key) for key in keys]

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
