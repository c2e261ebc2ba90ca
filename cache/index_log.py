"""What several processes, each with an index of its own, tell each other of entries: a log that only grows.

An `IndexLog` is the truth; an index is a copy that is made from a snapshot and follows from its offset. Changes are
told as states and not as steps: an entry that is named is read as it is when it is read. So a change that is seen
twice, or late, does no harm, and of many changes to one entry only the last needs to be there.

Implementations: semantic_log (SQLite, for the workers of one machine), log_redis (a stream, for replicas on several).
One contract suite runs over all of them (tests/contract/test_index_log.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from farthing.cache.semantic_disk import Row

__all__ = ["Changes", "IndexLog", "Mark", "Own", "Snapshot"]


class Mark(NamedTuple):
    """A place in the log at which all who follow it compare what they hold: of it what expires after that minute."""

    seq: int
    minute: int


class Own(NamedTuple):
    """What a log that sends later tells whoever wrote to it, so that he can say what he would hold had he sent nothing
    since. `arrived`: keys of his changes that stand in the log by now, once for each. `echoed`: entries that he changed
    last, as the log has them; None: gone. `mark`: the changes end at it."""

    arrived: Sequence[str] = ()
    echoed: Mapping[str, Row | None] = {}
    mark: Mark | None = None


class Changes(NamedTuple):
    """What others changed after an offset: entries that are `put`, in the order of the log, and keys that are `gone`.
    `offset`: until where. `lost`: it can't be told from there any more, and a snapshot must be taken."""

    put: list[Row]
    gone: list[str]
    offset: int
    lost: bool = False
    own: Own = Own()


class Snapshot(NamedTuple):
    """Everything at one moment, and the offset to follow from. `begun`: the log was begun anew, after what lies behind
    it had lost everything: who holds more keeps it, and puts it again."""

    rows: Iterable[Row]
    offset: int
    begun: bool = False
    own: Own = Own()


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
