"""Texts to vectors with a memory: each scope's text is embedded once, and those that come together in one call.

Rules of this file:
1. Scopes are walls here too: embedding takes milliseconds, so whoever is spared it learns that the text was sent
   before. The same text of two scopes is embedded twice, also where both come together.
2. What is remembered is keyed by a hash, so that no prompt is kept here; it is bounded, and the least recently used
   goes first.

Lives on one thread, as the model does.
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

    def of(self, scope: str, text: str) -> NDArray[np.float32] | None:
        """The vector, float32 [dim]; None where the text is beyond the model's window."""
        return self.all_of([(scope, text)])[0]

    def all_of(self, texts: Sequence[tuple[str, str]]) -> list[NDArray[np.float32] | None]:
        """`of` for each scope and text; those not remembered are embedded in one call, each of them once."""
        keys = [_key(scope, text) for scope, text in texts]
        missing: dict[bytes, str] = {}
        found: dict[bytes, NDArray[np.float32]] = {}
        for key, (_, text) in zip(keys, texts, strict=True):
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


def _key(scope: str, text: str) -> bytes:
    """Of both; the scope's length keeps them apart."""
    both = f"{len(scope)} {scope}{text}"
    return hashlib.blake2b(both.encode("utf-8", "surrogatepass"), digest_size=16).digest()
