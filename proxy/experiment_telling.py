"""Tells the other replicas what this one's own files hold for an experiment (experiment_own.py), from where the state
that all agree upon (experiment_agreed.py) says that it stands.

Rules of this file:
1. What was told counts when it has come back. Where it came back and didn't count, or didn't come back for long, the
   state decides: it is read again from there.
2. Some events are under way at once, one after the other; not more, so what waits lies in the files and not in memory.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import structlog

from farthing.proxy.clock import Clock
from farthing.proxy.experiment_agreed import AgreedSums, Word
from farthing.proxy.experiment_own import OwnRows, Placements, Said, own_words
from farthing.proxy.experiment_placing import Known, Placing
from farthing.proxy.experiment_total import ROW_METRICS
from farthing.proxy.outcomes import FILE, Told
from farthing.proxy.outcomes import Word as OneWord

__all__ = ["Telling"]

log = structlog.get_logger("farthing.experiments")

_PLACED_AT_ONCE = 10  # an event is applied at one go, on the event loop
_READ_AT_ONCE = 1_000
_PASSED_AT_ONCE = 5_000  # rows of others, after which the place is told though nothing was found
_PAST_AT_ONCE = 100
_UNDER_WAY = 400
_PATIENCE_S, _MOST_PATIENCE_S = 30.0, 600.0
_ASK_AGAIN_S = 60.0
_LOOKED_UP_AT_ONCE = 500

Past = Callable[[], dict[str, tuple[float, int]]]


class Telling:
    """Of one experiment, by one replica. `new`: a Placing that knows nothing; `past`: what units did before the start,
    as sum and count (blocks); `tell`: appends to the log; `tag`: a name that no other process of this replica has;
    `waits`: whether what was told isn't in the log yet."""

    def __init__(
        self,
        machine: AgreedSums,
        new: Callable[[], Placing],
        past: Past,
        tell: Callable[[Any], None],
        *,
        replica: str,
        tag: str,
        clock: Clock,
        waits: Callable[[], bool] = lambda: False,
        at_once: int = _PLACED_AT_ONCE,
    ) -> None:
        self._machine = machine
        self._new = new
        self._past = past
        self._tell = tell
        self._replica = replica
        self._tag = tag
        self._clock = clock
        self._waits = waits
        self._at_once = at_once
        self._number = 0
        self._out: set[str] = set()
        self._epoch = -1
        self._at: dict[str, Any] = {}
        self._rows = OwnRows(new(), None)
        self._words_read: Any = None
        self._passed = 0  # rows of others since the last place that was told
        self._metrics = sorted({one.name for one in machine.sums.wanted} - set(ROW_METRICS))
        self._told_past: list[tuple[str, float, int]] | None = None
        self._asked: set[str] = set()
        self._asked_s = float("-inf")
        self._moved_s = clock.tick_s()
        self._patience_s = _PATIENCE_S
        self._failing = False
        machine.heard = self._heard

    @property
    def all_told(self) -> bool:
        """Whether nothing is under way."""
        return not self._out

    async def step(self) -> bool:
        """Tell what there is, as much as may be under way; whether there may be more to tell at once."""
        if self._machine.epoch == 0:
            return False
        if self._machine.epoch != self._epoch or self._waited_enough():
            self._again()
        if len(self._out) >= _UNDER_WAY:
            return False
        try:
            more = await self._tell_past()
            more = await self._tell_rows() or more
            more = await self._tell_words() or more
            await self._tell_found()
        except (sqlite3.Error, OSError) as error:
            if not self._failing:
                log.error("an experiment's rows can't be told to the other replicas", error=str(error))
            self._failing, self._epoch = True, -1  # read again from where the state stands
            return False
        self._failing = False
        return more

    def _again(self) -> None:
        """Go on from where the state says that we stand."""
        self._epoch = self._machine.epoch
        self._out.clear()
        self._asked.clear()
        self._at = {kind: of.get(self._replica) for kind, of in self._machine.at.items()}
        self._rows = OwnRows(self._new(), self._at["rows"])
        self._words_read = self._at["words"]
        self._passed = 0
        self._moved_s = self._clock.tick_s()

    def _waited_enough(self) -> bool:
        now_s = self._clock.tick_s()
        if self._waits():
            self._moved_s = now_s
        if not self._out or now_s - self._moved_s < self._patience_s:
            return False
        self._patience_s = min(2 * self._patience_s, _MOST_PATIENCE_S)
        return True

    def _heard(self, replica: str, tag: str, counted: bool) -> None:
        """An event came back, to all."""
        if replica != self._replica or tag not in self._out:
            return
        self._out.discard(tag)
        self._moved_s, self._patience_s = self._clock.tick_s(), _PATIENCE_S
        if not counted:
            self._epoch = -1

    def _say(self, kind: str, *told: Any) -> None:
        self._number += 1
        tag = f"{self._tag} {self._number}"
        if not self._out:
            self._moved_s = self._clock.tick_s()
        self._out.add(tag)
        self._tell([kind, self._replica, tag, *told])

    def _go_on(self, kind: str, end: Any, *told: Any) -> None:
        self._say(kind, self._at[kind], end, *told)
        self._at[kind] = end

    async def _tell_past(self) -> bool:
        """Units in order, so that it can be gone on with from any of them."""
        at = self._at["past"]
        if at is not None and at[1]:
            return False
        epoch = self._epoch
        if self._told_past is None:
            found = await asyncio.to_thread(self._past)
            self._told_past = sorted((unit, total, count) for unit, (total, count) in found.items())
        if not self._stands(epoch):
            return False
        left = [one for one in self._told_past if at is None or one[0] > at[0]]
        some = left[:_PAST_AT_ONCE]
        done = len(some) == len(left)
        self._go_on("past", [some[-1][0] if some else "", done], [list(one) for one in some])
        if done:
            self._told_past = None
        return not done

    async def _tell_rows(self) -> bool:
        epoch = self._epoch
        found: Placements | None = await asyncio.to_thread(self._rows.more, _READ_AT_ONCE)
        if found is None or not self._stands(epoch):
            return False
        self._passed += found.passed
        if not found.placed and self._passed < _PASSED_AT_ONCE:
            return found.full
        self._passed = 0
        for at in range(0, max(1, len(found.placed)), self._at_once):
            some = found.placed[at : at + self._at_once]
            last = at + self._at_once >= len(found.placed)
            self._go_on("rows", found.end if last else some[-1].place, [one.placed for one in some])
        for id in found.ids:  # who waits for one of these needn't wait until all are asked again
            self._asked.difference_update(self._machine.waiting_for(id))
        return found.full

    async def _tell_words(self) -> bool:
        epoch, placing = self._epoch, self._rows.placing
        read = await asyncio.to_thread(self._read_words, placing)
        if read is None or not self._stands(epoch):
            return False
        found, known = read
        self._words_read = found.end
        at = self._at["words"]
        if not found.said and at is not None and at[2] is None:
            return False  # of other metrics
        placed: list[list[Any]] = []
        unknown: list[list[Any]] = []
        for key, told in found.said:
            mine = known.get(told.request_id)
            if mine is not None:
                placed.append([mine.whose, *self._word(told)])
            elif told.request_id not in known:
                unknown.append([f"{self._replica} {key}", *self._word(told)])
        self._go_on("words", found.end, placed, unknown)
        return True

    def _word(self, told: Told) -> Word:
        """As the others are told it: names of events may be anybody's, too."""
        named = self._rows.placing.named

        def plain(words: Sequence[OneWord]) -> list[list[Any]]:
            return [[named(event) if event else "", value, at_s] for event, value, at_s in words]

        return [told.request_id, told.metric, plain(told.before), plain(told.after)]

    def _read_words(self, placing: Placing) -> tuple[Said, dict[str, Known | None]] | None:
        path = placing.ledger.with_name(FILE)
        found = own_words(path, self._words_read, self._metrics, placing.since_s, self._at_once)
        return None if found is None else (found, placing.known({one.request_id: None for _, one in found.said}))

    async def _tell_found(self) -> None:
        """What others heard of our requests, and we before their rows were written."""
        epoch, now_s = self._epoch, self._clock.tick_s()
        if now_s - self._asked_s >= _ASK_AGAIN_S:
            self._asked_s = now_s
            self._asked.clear()
        pool = self._machine.pool
        asked = list(islice((key for key in pool if key not in self._asked), _LOOKED_UP_AT_ONCE))
        if not asked:
            return
        self._asked.update(asked)
        ids = {pool[key][0]: None for key in asked}
        known = await asyncio.to_thread(self._rows.placing.known, ids)
        if not self._stands(epoch):
            return
        told = []
        for key in asked:
            word = self._machine.pool.get(key)
            if word is not None and word[0] in known:
                mine = known[word[0]]
                told.append([key, None if mine is None else mine.whose])
        for at in range(0, len(told), self._at_once):
            self._say("found", told[at : at + self._at_once])

    def _stands(self, epoch: int) -> bool:
        """Whether what was read meanwhile may be told."""
        return self._epoch == epoch == self._machine.epoch
