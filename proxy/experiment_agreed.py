"""One experiment's sums where replicas share a store: a Machine (agreed.py), the same at every replica.

A replica tells what it has placed, together with the place in its own files up to which that goes. The state holds that
place for each replica, and an event counts only where it goes on from there.

Rules of this file:
1. So each row and each word counts once: what is told again, comes late from a process that was killed, or follows
   something that was lost, changes nothing. Whoever told it sees that, and goes on from where the state stands.
2. Any state of the past is a right one to go on from: it says itself what is missing.
3. A word about a request that its replica doesn't know waits in `pool` until the replica whose request it is says where
   it belongs. What waits too long, behind `_MOST_WAITING` others, is left out, and counted.
4. Of each event that is said of a request by a metric one word counts: what happened last, whichever replicas heard the
   others. So `said` holds what counts now, of the requests of which something was said last (`_MOST_SAID` words). Of a
   request that is forgotten there what the replica knows that tells it was said before.
5. What users did before the start is added up over replicas, whenever each tells it: it moves no unit to another arm.

Events, each with the replica's name and a tag by which it knows its own again:

    ["rows", replica, tag, from, to, placed]
    ["words", replica, tag, from, to, [[whose, *word]], [[key, *word]]]
    ["past", replica, tag, from, to, [[unit, sum, count]]]
    ["found", replica, tag, [[key, whose or null]]]

`placed`: see experiment_total.py. `whose`: arm, unit, day and slices of the request that a word is of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import structlog

from farthing.proxy.experiment_total import Sums

__all__ = ["FORM", "AgreedSums", "Word"]

log = structlog.get_logger("farthing.experiments")

FORM = 2
_MOST_WAITING = 10_000
_MOST_SAID = 20_000
_AT_ONCE = 1_000
_KINDS = ("rows", "words", "past")

Word = list[Any]
"""[request's id, metric, what the replica knew before, and after]; both are lists of [event, value, at_s]."""

_Held = dict[str, tuple[float, float]]
"""By event: its value, and when that happened."""


class AgreedSums:
    """See the module. `new`: makes sums that know nothing. `epoch`: how often the whole state was replaced; 0: what all
    agree upon was never seen. `heard`: told of every event that names a replica: its name, tag, and whether it
    counted. `lost`: words that waited too long; `forgotten`: words that counted and aren't held in `said` any more.
    `on_stand`: given the state now and then, by what gives it as `slices` does."""

    def __init__(self, new: Callable[[], Sums]) -> None:
        self._new = new
        self.sums = new()
        self.at: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}
        self.history: dict[str, list[float]] = {}
        self.pool: dict[str, Word] = {}
        self.said: dict[tuple[str, str], _Held] = {}  # what was said of last at the end
        self.lost = 0
        self.forgotten = 0
        self.epoch = 0
        self.heard: Callable[[str, str, bool], None] | None = None
        self.on_stand: Callable[[Callable[[], Sequence[Any]]], Awaitable[None]] | None = None
        self._about: dict[str, list[str]] = {}
        self._words = 0  # in `said`

    def waiting_for(self, request_id: str) -> list[str]:
        """Keys of words in the pool about this request."""
        return self._about.get(request_id, [])

    # As a Machine.

    def apply(self, event: Any, *, own: bool) -> None:
        """Machine.apply."""
        try:
            kind, replica, tag, *rest = event
            counted = self._found(rest[0]) if kind == "found" else self._next(kind, replica, *rest)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            log.warning("what another replica says of an experiment can't be understood", error=repr(error))
            return
        if self.heard is not None:
            self.heard(replica, tag, counted)

    def slices(self) -> Iterator[Any]:
        """Machine.slices."""
        yield ["about", FORM, self.at, self.lost, self.forgotten]
        for name, held in (("history", self.history), ("pool", self.pool), ("said", self.said)):
            pairs = iter(held.items())
            while some := list(islice(pairs, _AT_ONCE)):
                yield [name, some]
        for piece in self.sums.pieces():
            yield ["sums", piece]

    async def put(self, slices: Sequence[Any]) -> None:
        """Machine.put."""
        self._be(await asyncio.to_thread(self._made_of, slices))
        self.epoch += 1

    async def stands(self, slices: Callable[[], Sequence[Any]], waiting: Callable[[], list[Any]]) -> None:
        """Machine.stands."""
        if self.on_stand is not None:
            await self.on_stand(slices)

    def begin_with(self, slices: Sequence[Any]) -> None:
        """Be what was kept, before anybody is asked. Raises ValueError. Blocks for a while."""
        self._be(self._made_of(slices))

    def _be(self, other: AgreedSums) -> None:
        self.sums, self.at, self.history = other.sums, other.at, other.history
        self.pool, self._about, self.lost = other.pool, other._about, other.lost
        self.said, self._words, self.forgotten = other.said, other._words, other.forgotten

    def _made_of(self, slices: Sequence[Any]) -> AgreedSums:
        fresh = AgreedSums(self._new)
        pieces: list[list[Any]] = []
        try:
            (_, form, at, *counted), *others = slices
            if form != FORM or set(at) != set(_KINDS):
                raise ValueError(f"an experiment's sums of another form: {form}")
            fresh.at = {kind: dict(of) for kind, of in at.items()}
            fresh.lost, fresh.forgotten = counted
            for kind, held in others:
                if kind == "history":
                    fresh.history.update({unit: list(seen) for unit, seen in held})
                elif kind == "pool":
                    for key, word in held:
                        fresh._wait(key, list(word))
                elif kind == "said":
                    for (request_id, metric), words in held:
                        fresh._hold(
                            (request_id, metric), {event: (value, at_s) for event, (value, at_s) in words.items()}
                        )
                else:
                    pieces.append(held)
            fresh.sums.put_pieces(pieces)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"not an experiment's sums: {error!r}") from error
        return fresh

    # What events do.

    def _next(self, kind: str, replica: str, start: Any, end: Any, *told: Any) -> bool:
        """Take it, if it goes on from where that replica stands."""
        at = self.at[kind]
        if at.get(replica) != start:
            return False
        at[replica] = end
        if kind == "past":
            self._past(told[0])
        else:
            for one in told[0]:
                self._try(self.sums.take if kind == "rows" else self._say, one)
            for key, *word in told[1] if kind == "words" else ():
                self._wait(key, word)
        return True

    def _try(self, take: Callable[..., None], *told: Any) -> None:
        try:
            take(*told)
        except (ValueError, TypeError, KeyError, IndexError) as error:  # another farthing's; what follows counts
            log.warning("a row or word of another replica can't be understood", error=repr(error))

    def _say(self, told: Sequence[Any]) -> None:
        """A word whose request is known, after those that wait for it."""
        whose, request_id, *_ = told
        for key in list(self.waiting_for(request_id)):
            self._count(whose, self._leave(key))
        self._count(whose, told[1:])

    def _count(self, whose: Sequence[Any], word: Sequence[Any]) -> None:
        request_id, metric, before, after = word
        known: _Held = {event: (value, at_s) for event, value, at_s in before}
        held = self.said.get((request_id, metric))
        if held is None:  # what nobody has forgotten was never said, or was lost in the pool
            held = known if self.forgotten else {}
        now = dict(held)
        for event, value, at_s in after:
            if event not in now or (at_s >= now[event][1] and known.get(event) != (value, at_s)):
                now[event] = (value, at_s)
        was, stands = ([value for value, _ in of.values()] for of in (held, now))
        if was != stands:
            self.sums.take(["said", *whose, metric, was, stands])
        self._hold((request_id, metric), now)

    def _hold(self, key: tuple[str, str], words: _Held) -> None:
        self._words += len(words) - len(self.said.pop(key, ()))
        self.said[key] = words
        while self._words > _MOST_SAID:
            gone = len(self.said.pop(next(iter(self.said))))
            self._words -= gone
            self.forgotten += gone

    def _past(self, told: Sequence[Sequence[Any]]) -> None:
        changed: dict[str, float] = {}
        for unit, total, count in told:
            held = self.history.get(unit)
            if held is None and len(self.history) >= self.sums.most_units:
                continue
            seen = [total, count] if held is None else [held[0] + total, held[1] + count]
            self.history[unit] = seen
            changed[unit] = seen[0] / seen[1]
        self.sums.remember(changed)

    def _wait(self, key: str, word: Word) -> None:
        if key in self.pool:
            self._leave(key)
        self.pool[key] = word
        self._about.setdefault(word[0], []).append(key)
        if len(self.pool) > _MOST_WAITING:
            self._leave(next(iter(self.pool)))
            self.lost += 1

    def _leave(self, key: str) -> Word:
        word = self.pool.pop(key)
        keys = self._about[word[0]]
        keys.remove(key)
        if not keys:
            del self._about[word[0]]
        return word

    def _found(self, told: Sequence[Sequence[Any]]) -> bool:
        """Words of the pool, by whoever knows their requests; None: they take no part."""
        for key, whose in told:
            if key not in self.pool:
                continue  # it was found before
            for each in list(self._about[self.pool[key][0]]):  # all of its request, in the order in which they came
                word = self._leave(each)
                if whose is not None:
                    self._try(self._count, whose, word)
        return True
