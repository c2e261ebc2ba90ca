"""What was left out of a tenant's texts, by handle, for as long as it may be asked for.

Rules of this file:
1. A handle is a keyed hash (HMAC-SHA-256) of the tenant and the text: nobody who lacks the local secret can make one,
   and the same text of the same tenant has the same handle on every replica and after every restart, so that what is
   sent stays the same bytes.
2. A tenant's pieces are asked for under that tenant's own tag: another tenant's handle finds nothing.
3. `keep` returns only once the piece is where it is to be kept: on disk, or confirmed by the server.

Pieces lie in a store of the same kind as decisions (compress/decided_store.py), one of its own: keyed, bounded in
bytes, each kept for a time after its last use. One contract suite runs over all (tests/contract/test_removed.py).
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Awaitable, Callable, Mapping

from farthing.compress.blobs import find_blobs
from farthing.compress.decided import Decision, tenant_tag
from farthing.compress.decided_store import Decisions
from farthing.compress.marker import handles
from farthing.compress.tidy import tidied_text

__all__ = ["Handles", "Removed", "named_pieces"]

_DIGEST_BYTES = 10  # 80 bits
_HANDLE = re.compile(r"[a-z2-7]{16}")


class Handles:
    """Names for one tenant's texts."""

    def __init__(self, secret: bytes, tenant: str) -> None:
        self._key = hmac.digest(secret, b"removed\0" + tenant.encode("utf-8", "surrogatepass"), "sha256")

    def of(self, text: str) -> str:
        """The text's handle: 16 of a-z2-7. Cost: that of hashing the text."""
        digest = hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), "sha256")
        return base64.b32encode(digest[:_DIGEST_BYTES]).decode().lower()


def named_pieces(text: str, sent: str, names: Handles) -> dict[str, str] | None:
    """The pieces of `text`, a client's, that markers in `sent`, what stands for it, name: by handle.

    {} where there are no markers but those that the client's own text has. None: a marker names something else, so
    that it can't be followed.
    """
    wanted = set(handles(sent)) - set(handles(text))
    if not wanted:
        return {}
    tidied = tidied_text(text) or text
    found = {names.of(tidied): tidied}
    for blob in find_blobs(tidied):
        piece = tidied[blob.start : blob.end]
        found[names.of(piece)] = piece
    return {handle: found[handle] for handle in wanted} if wanted <= found.keys() else None


class Removed:
    """Pieces over a store. `flush`: waits until what was handed over is kept; None where `put_many` does."""

    def __init__(self, store: Decisions, flush: Callable[[], Awaitable[None]] | None = None) -> None:
        self._store = store
        self._flush = flush

    async def keep(self, tenant: str, pieces: Mapping[str, str]) -> None:
        """Keep the pieces, by handle; those that are kept already live on.

        Raises StoreFault: they can't be kept, and no marker may name them.
        """
        texts = {_key(tenant, handle): text for handle, text in pieces.items()}
        found = await self._store.get_many(list(texts))
        missing = [key for key, held in zip(texts, found.decisions, strict=True) if held is None]
        if missing:
            await self._store.put_many([(key, Decision((texts[key],))) for key in missing])
            if self._flush is not None:
                await self._flush()

    async def get(self, tenant: str, handle: str) -> str | None:
        """The tenant's piece of this handle; None where there is none, or it can't be had. Never raises."""
        if not _HANDLE.fullmatch(handle):
            return None
        (held,) = (await self._store.get_many([_key(tenant, handle)])).decisions
        return held.texts[0] if held is not None and held.texts else None

    async def forget(self, tenant: str) -> None:
        """Remove all pieces of a tenant, for '' everybody's. Raises StoreFault."""
        await self._store.forget(tenant_tag(tenant) if tenant else b"")


def _key(tenant: str, handle: str) -> bytes:
    return tenant_tag(tenant) + handle.encode()
