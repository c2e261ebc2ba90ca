"""What takes long to load and never changes, loaded once for all tests of a process.

A proxy loads its embedding model and its ranks for itself, which costs several times what most tests do with them. What
is shared keeps nothing between two calls and may be used by several threads; what remembers anything (a Tokenizer's
counts, an embedder's tokenizer) is still each proxy's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest

from farthing.cache.embedder import MiniLmOnnx
from farthing.proxy import tokens

__all__ = ["loaded_once"]


@contextmanager
def loaded_once() -> Iterator[None]:
    """Share ranks and the embedding model's sessions. How ranks are loaded: `inspect.unwrap(tokens._load)`."""
    run_by, made = MiniLmOnnx._run_by, dict[bytes, tuple[Any, Any]]()

    def shared(self: MiniLmOnnx, model: bytes) -> None:
        if model not in made:
            run_by(self, model)
            made[model] = self._session, self._inputs
        self._session, self._inputs = made[model]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "_load", cache(tokens._load))
        patch.setattr(MiniLmOnnx, "_run_by", shared)
        yield
