"""What expires when: records in buckets of time, so that adding, removing and finding the expired each cost the same
however many there are. Pure."""

from __future__ import annotations

import heapq
import math

from farthing.cache.disk import Record

__all__ = ["Expiries"]

_BUCKET_S = 15
# Later expiries wait in the last bucket and are looked at again then: this bounds how many buckets there can be.
_HORIZON = 7 * 86_400 // _BUCKET_S


class Expiries:
    """Records by the time when they expire, to within 15 seconds: never early."""

    def __init__(self) -> None:
        self._buckets: dict[int, dict[Record, None]] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, record: Record, now_s: float) -> None:
        """File the record; its `bucket` is ours."""
        last = int(now_s // _BUCKET_S) + _HORIZON
        bucket = last if record.expires_s >= last * _BUCKET_S else math.ceil(record.expires_s / _BUCKET_S)
        record.bucket = bucket
        if bucket not in self._buckets:
            self._buckets[bucket] = {}
            heapq.heappush(self._order, bucket)
        self._buckets[bucket][record] = None

    def discard(self, record: Record) -> None:
        """Take the record out, if it is in."""
        if (records := self._buckets.get(record.bucket)) is not None:
            records.pop(record, None)

    def due(self, now_s: float, limit: int) -> tuple[list[Record], bool]:
        """Take out up to `limit` records of the buckets whose time has come: those that have expired, and whether
        there is more to look at."""
        expired: list[Record] = []
        looked = 0
        while self._order and self._order[0] * _BUCKET_S <= now_s:
            records = self._buckets[self._order[0]]
            while records:
                if looked == limit:
                    return expired, True
                looked += 1
                record, _ = records.popitem()
                if record.expires_s <= now_s:
                    expired.append(record)
                else:
                    self.add(record, now_s)
            del self._buckets[heapq.heappop(self._order)]
        return expired, False
