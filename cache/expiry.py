"""What expires when: records in buckets of time, so that adding, removing and finding the expired each cost the same
however many there are. Pure.

A bucket is a doubly linked list through two arrays. Not a dict: its table stays as large as it was at its fullest, and
nearly all records are evicted long before their bucket's time comes. Not links in the records: in rings they would wait
for the garbage collector, with their answers.
"""

from __future__ import annotations

import heapq
import math
from array import array

from farthing.cache.disk import Record

__all__ = ["Expiries"]

_BUCKET_S = 15
# Later expiries wait in the last bucket and are looked at again then: this bounds how many buckets there can be.
_HORIZON = 7 * 86_400 // _BUCKET_S
_NONE = -1
_FEW = 64


class Expiries:
    """Records by the time when they expire, to within 15 seconds: never early."""

    def __init__(self) -> None:
        # By place: the record, and the places before and after it in its bucket.
        self._records: list[Record | None] = []
        self._before, self._after = array("q"), array("q")
        self._free: list[int] = []
        self._first: dict[int, int] = {}  # of each bucket that isn't empty
        self._order: list[int] = []  # a heap of these buckets, and of some that are empty by now

    def __len__(self) -> int:
        return len(self._records) - len(self._free)

    def add(self, record: Record, now_s: float) -> None:
        """File the record, which isn't in; its `bucket` and `place` are ours."""
        last = int(now_s // _BUCKET_S) + _HORIZON
        bucket = last if record.expires_s >= last * _BUCKET_S else math.ceil(record.expires_s / _BUCKET_S)
        after = self._first.get(bucket, _NONE)
        if after == _NONE:
            self._open(bucket)
        if self._free:
            place = self._free.pop()
            self._records[place], self._before[place], self._after[place] = record, _NONE, after
        else:
            place = len(self._records)
            self._records.append(record)
            self._before.append(_NONE)
            self._after.append(after)
        if after != _NONE:
            self._before[after] = place
        self._first[bucket] = place
        record.bucket, record.place = bucket, place

    def discard(self, record: Record) -> None:
        """Take the record out, if it is in."""
        place = record.place
        if not 0 <= place < len(self._records) or self._records[place] is not record:
            return
        before, after = self._before[place], self._after[place]
        if after != _NONE:
            self._before[after] = before
        if before != _NONE:
            self._after[before] = after
        elif after != _NONE:
            self._first[record.bucket] = after
        else:
            del self._first[record.bucket]
        self._records[place] = None
        self._free.append(place)
        record.place = _NONE

    def due(self, now_s: float, limit: int) -> tuple[list[Record], bool]:
        """Take out up to `limit` records of the buckets whose time has come: those that have expired, and whether
        there is more to look at."""
        expired: list[Record] = []
        looked = 0
        while self._order and (bucket := self._order[0]) * _BUCKET_S <= now_s:
            while (place := self._first.get(bucket, _NONE)) != _NONE:
                if looked == limit:
                    return expired, True
                looked += 1
                record = self._records[place]
                assert record is not None, "a bucket has records only"
                self.discard(record)
                if record.expires_s <= now_s:
                    expired.append(record)
                else:
                    self.add(record, now_s)
            if self._order and self._order[0] == bucket:  # else they were put in order anew, without it
                heapq.heappop(self._order)
        return expired, False

    def _open(self, bucket: int) -> None:
        """Put a bucket in order; where most of those in it have emptied, only those that haven't stay."""
        if len(self._order) > 2 * len(self._first) + _FEW:
            self._order = sorted(self._first)
        heapq.heappush(self._order, bucket)
