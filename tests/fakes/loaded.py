"""What takes long to load and never changes, loaded once for all tests of a process.

A proxy loads its embedding model and its ranks for itself, which costs several times what most tests do with them. What
is shared keeps nothing between two calls and may be used by several threads; what remembers anything (a Tokenizer's
counts, an embedder's tokenizer) is still each proxy's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import certifi
import pytest

from farthing.cache.embedder import MiniLmOnnx
from farthing.proxy import tokens

__all__ = ["loaded_once", "one_authority"]


@contextmanager
def loaded_once() -> Iterator[None]:
    """Share ranks and sessions of the embedding model. The functions themselves: `inspect.unwrap` of what stands there."""
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


def one_authority(folder: Path) -> Path:
    """A file with one certificate authority. Reading all of the system's, as clients and started commands do even where
    they speak to loopback without TLS, costs half of what a proxy's start does."""
    end = "-----END CERTIFICATE-----\n"
    path = folder / "authority.pem"
    path.write_text(Path(certifi.where()).read_text("utf-8").partition(end)[0] + end, "utf-8")
    return path
