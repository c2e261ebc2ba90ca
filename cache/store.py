"""What a store of answers promises. Implementations: store_local (memory over SQLite), store_redis.

One contract suite (tests/contract/test_store.py) runs over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from farthing.cache.entry import Entry

__all__ = ["Selector", "Store", "StoreStats"]


@dataclass(frozen=True, slots=True)
class Selector:
    """Which entries to purge: all that match every part that is set; an empty selector matches all."""

    key: str = ""
    model: str = ""
    scope: str = ""


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store holds now. `bytes`: bodies and their bookkeeping. `healthy`: the last operation worked."""

    kind: str
    entries: int
    bytes: int
    memory_entries: int
    memory_bytes: int
    evicted: int
    healthy: bool


class Store(Protocol):
    """Keyed answers with expiry. Every method raises StoreFault when the store is away, slow or full."""

    async def get(self, key: str, now_s: float) -> Entry | None:
        """The entry, or None where there is none, it has expired, or its bytes fail their checksum."""
        ...

    def held(self, key: str, now_s: float) -> Entry | None:
        """The entry, if it lies ready in this process's memory; else None, which says nothing of `get`. Never waits,
        never raises; one object for as long as it is the same entry."""
        ...

    async def put(self, entry: Entry) -> None:
        """Keep the entry under its key, replacing what was there; visible to `get` when this returns."""
        ...

    async def purge(self, selector: Selector) -> tuple[str, ...]:
        """Remove what matches; the keys removed."""
        ...

    async def stats(self) -> StoreStats:
        """What it holds now."""
        ...

    async def close(self) -> None:
        """Write what is pending and let go; idempotent."""
        ...
