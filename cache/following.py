"""How a semantic cache follows an IndexLog: a file of this machine's workers, or the replicas' log.

What the cache itself puts and removes is in its memory at once, and in the file or the log then. `FollowingReplicas`
also keeps the digest by which replicas compare what they hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from farthing.cache.digest import Ahead, Digest, Entry, Stamp, stamp_of
from farthing.cache.index_log import IndexLog
from farthing.cache.semantic_disk import Row

if TYPE_CHECKING:
    from farthing.cache.log_redis import RedisLog

__all__ = ["Copy", "Following", "FollowingFile", "FollowingReplicas"]

_TOLD_AT_ONCE = 1_000
_TAKEN_AT_ONCE = 1_000


class Copy(Protocol):
    """What follows: SemanticCache."""

    def keys(self) -> frozenset[str]:
        """Of all entries."""
        ...

    def row(self, entry_key: str) -> Row | None:
        """An entry."""
        ...

    def stamp(self, entry_key: str) -> Stamp | None:
        """Its part of a digest."""
        ...

    def take(self, rows: Iterable[Row], gone: Iterable[str]) -> int:
        """Let these be and those go; how many of those were there."""
        ...


class Following(Protocol):
    """Told of every change of the copy; all on one thread."""

    def begin(self, copy: Copy) -> None:
        """Hold what there is."""
        ...

    def follow(self, copy: Copy) -> int:
        """Take over what the others changed; how many entries that were."""
        ...

    def inserted(self, entry: Entry) -> None:
        """The copy has it now, whoever put it."""
        ...

    def dropped(self, entry: Entry) -> None:
        """The copy has it no more."""
        ...

    def put(self, row: Row) -> None:
        """The cache itself put this, and told `inserted`."""
        ...

    def removed(self, entries: Sequence[Entry]) -> None:
        """The cache itself removed these, and told `dropped`."""
        ...

    def cleared(self) -> None:
        """The cache itself removed everything, and told nothing else."""
        ...


class FollowingFile:
    """The workers' file. The cache writes it itself, as its disk."""

    def __init__(self, log: IndexLog) -> None:
        self._log = log
        self._offset = 0

    def begin(self, copy: Copy) -> None:
        """Following.begin."""
        self._again(copy)

    def follow(self, copy: Copy) -> int:
        """Following.follow."""
        changes = self._log.since(self._offset)
        if changes.lost:
            return self._again(copy)
        self._offset = changes.offset
        copy.take(changes.put, changes.gone)
        return len(changes.gone) + len(changes.put)

    def _again(self, copy: Copy) -> int:
        rows, self._offset, *_ = self._log.snapshot()
        changed, seen = _held(copy, rows, Ahead())
        return changed + copy.take([], copy.keys() - seen)

    def inserted(self, entry: Entry) -> None:
        """Following.inserted."""

    def dropped(self, entry: Entry) -> None:
        """Following.dropped."""

    def put(self, row: Row) -> None:
        """Following.put."""

    def removed(self, entries: Sequence[Entry]) -> None:
        """Following.removed."""

    def cleared(self) -> None:
        """Following.cleared."""


class FollowingReplicas:
    """The replicas' log. Until its first snapshot has come the copy holds only what it put itself."""

    def __init__(self, log: RedisLog) -> None:
        self._log = log
        self._offset = 0
        self._digest = Digest()
        self._ahead = Ahead()
        self._untold: deque[str] = deque()  # what the log has lost, to be put again

    def begin(self, copy: Copy) -> None:
        """Following.begin."""

    def follow(self, copy: Copy) -> int:
        """Following.follow: to the end of what has been fetched, with a digest at every mark."""
        self._tell_again(copy)
        followed = 0
        while True:
            changes = self._log.since(self._offset)
            if changes.lost:
                return followed + self._again(copy)
            self._offset = changes.offset
            self._ahead.arrived(changes.own.arrived)
            for key, row in changes.own.echoed.items():
                self._ahead.said(key, None if row is None else stamp_of(row))
            gone = [key for key in changes.gone if not self._ahead.said(key, None)]
            put = [row for row in changes.put if not self._ahead.said(row.entry_key, stamp_of(row))]
            copy.take(put, gone)
            followed += len(gone) + len(put)
            if changes.own.mark is None:
                return followed
            self._log.say(*self._digest.after(changes.own.mark.minute, self._ahead.pairs(copy.stamp)))

    def inserted(self, entry: Entry) -> None:
        """Following.inserted."""
        self._digest.add(stamp_of(entry))

    def dropped(self, entry: Entry) -> None:
        """Following.dropped."""
        self._digest.drop(stamp_of(entry))

    def put(self, row: Row) -> None:
        """Following.put."""
        self._ahead.mine(row.entry_key, None)  # what was there has been removed before
        self._log.put(row)

    def removed(self, entries: Sequence[Entry]) -> None:
        """Following.removed."""
        for entry in entries:
            self._ahead.mine(entry.entry_key, stamp_of(entry))
        self._log.delete([entry.entry_key for entry in entries])

    def cleared(self) -> None:
        """Following.cleared."""
        self._digest.clear()
        self._untold.clear()
        self._log.clear()

    def _again(self, copy: Copy) -> int:
        """Be what the log says, but for what is under way to it."""
        snapshot = self._log.snapshot()
        self._offset = snapshot.offset
        self._ahead.arrived(snapshot.own.arrived)
        changed, seen = _held(copy, snapshot.rows, self._ahead)
        self._ahead.said_nothing(seen)
        more = [key for key in copy.keys() - seen if key not in self._ahead]
        if not snapshot.begun:
            return changed + copy.take([], more)
        for key in more:
            self._ahead.mine(key, None)
        self._untold.extend(more)
        return changed

    def _tell_again(self, copy: Copy) -> None:
        for _ in range(min(_TOLD_AT_ONCE, self._log.room, len(self._untold))):
            key = self._untold.popleft()
            row = copy.row(key)
            if row is None:  # gone meanwhile
                self._log.delete([key])
            else:
                self._log.put(row)


def _held(copy: Copy, rows: Iterable[Row], ahead: Ahead) -> tuple[int, set[str]]:
    """Let the copy hold these, but for what is ahead: how many it didn't, and all their keys."""
    seen: set[str] = set()
    changed: list[Row] = []
    count = 0
    for row in rows:
        key = row.entry_key
        seen.add(key)
        if key in ahead:
            ahead.said(key, stamp_of(row))
            continue
        ours = copy.stamp(key)
        if ours is None or ours != stamp_of(row):
            changed.append(row)
            count += 1
            if len(changed) >= _TAKEN_AT_ONCE:
                copy.take(changed, [])
                changed = []
    copy.take(changed, [])
    return count, seen
