"""What several processes, each with an index of its own, tell each other of entries: a log that only grows.

An `IndexLog` is the truth; an index is a copy that is made from a snapshot and follows from its offset. Changes are
told as states and not as steps: an entry that is named is read as it is when it is read. So a change that is seen
twice, or late, does no harm, and of many changes to one entry only the last needs to be there.

Implementations: semantic_log (SQLite, for the workers of one machine). One contract suite runs over all of them
(tests/contract/test_index_log.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol, runtime_checkable

from farthing.cache.semantic_disk import Row

__all__ = ["Changes", "IndexLog", "Snapshot"]


class Changes(NamedTuple):
    """What others changed after an offset: entries that are `put`, in the order of the log, and keys that are `gone`.
    `offset`: until where. `lost`: it can't be told from there any more, and a snapshot must be taken."""

    put: list[Row]
    gone: list[str]
    offset: int
    lost: bool = False


class Snapshot(NamedTuple):
    """Everything at one moment, oldest first, and the offset to follow from."""

    rows: list[Row]
    offset: int


@runtime_checkable
class IndexLog(Protocol):
    """See the module. Used by one thread. Faults of what lies behind it are told in the log and never raised: then
    nothing is kept, and `since` tells of no change."""

    def snapshot(self) -> Snapshot:
        """All entries."""
        ...

    def put(self, row: Row) -> None:
        """Append: this entry, in the place of what was under its key."""
        ...

    def delete(self, entry_keys: Iterable[str]) -> None:
        """Append: these go."""
        ...

    def clear(self) -> None:
        """Append: everything goes."""
        ...

    def since(self, offset: int) -> Changes:
        """What others appended after that."""
        ...

    def close(self) -> None:
        """Let go; idempotent."""
        ...
