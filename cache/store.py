"""What a store of answers promises. Implementations: store_local (memory over SQLite), store_redis.

One contract suite (tests/contract/test_store.py) runs over all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from farthing.cache.entry import Entry

__all__ = ["Labelled", "Selector", "Store", "StoreStats", "has_tag"]


class Labelled(Protocol):
    """What a selector looks at."""

    @property
    def scope(self) -> str: ...
    @property
    def model_requested(self) -> str: ...
    @property
    def model_served(self) -> str: ...
    @property
    def stored_s(self) -> float: ...
    @property
    def tags(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def namespace(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Selector:
    """Which entries to purge: all that match every part that is set; an empty selector matches all.

    `key`: with its variants. `model`: asked for or served. `scope`: the tenant. `tags`: all of these (see `has_tag`).
    `stored_before_s`: stored before that moment, in seconds since the epoch. `namespace`: the tenant's, or, where none
    is named, that of every tenant (`x-farthing-scope`).
    """

    key: str = ""
    model: str = ""
    scope: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    stored_before_s: float | None = None
    namespace: str = ""

    def matches(self, labels: Labelled) -> bool:
        """Whether every part but the key is the entry's."""
        return (
            (not self.scope or labels.scope == self.scope)
            and (not self.namespace or labels.namespace == self.namespace)
            and (not self.model or self.model in (labels.model_requested, labels.model_served))
            and (self.stored_before_s is None or labels.stored_s < self.stored_before_s)
            and all(has_tag(labels.tags, name, value) for name, value in self.tags)
        )


def has_tag(tags: Iterable[tuple[str, str]], name: str, value: str) -> bool:
    """Whether a request's tags hold this one: the whole value, or one of those that it lists (`source=a|b`)."""
    return any(name == one and (value == held or value in held.split("|")) for one, held in tags)


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

    @property
    def healthy(self) -> bool:
        """Whether the last operation worked, as far as is known without asking anybody."""
        ...

    async def get(self, key: str, now_s: float) -> Entry | None:
        """The entry, or None where there is none, it has expired, or its bytes fail their checksum."""
        ...

    async def get_many(self, keys: Sequence[str], now_s: float) -> list[Entry | None]:
        """`get` for each key, in one round trip where there is one to make."""
        ...

    def held(self, key: str, now_s: float) -> Entry | None:
        """The entry, if it lies ready in this process's memory; else None, which says nothing of `get`. Never waits,
        never raises; one object for as long as it is the same entry."""
        ...

    async def put(self, entry: Entry) -> None:
        """Keep the entry under its key, replacing what was there; visible to `get` when this returns."""
        ...

    async def put_many(self, entries: Sequence[Entry]) -> None:
        """`put` for each, in one round trip where there is one to make. Where it raises, some may have been kept."""
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
