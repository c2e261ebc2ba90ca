"""Experiments and hold-outs where replicas share a store: one record, one salt, one state of all sums.

Rules of this file:
1. Whoever begins one first writes its record (experiment_shared.py); the others take it, and with it the salt. So a
   unit is in the same arm at every replica.
2. Whoever ends one writes that, and the first to do so is right; every replica looks each second.
3. While the server is away what runs goes on, by the salt it has, and so does what a replica that starts then ran
   before, by its own record. Nothing is begun then, and what ended is written, or heard of, when the server is back.
4. A replica whose configuration or policies differ from those of the one that runs takes no part, and says so; it ends
   it only where it ran it itself, or no replica has for a minute.
5. What is counted is what all agree upon (experiment_agreed.py); each tells what its own files hold
   (experiment_telling.py).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from farthing.proxy.config_experiments import HOLDOUT
from farthing.proxy.errors import StoreFault
from farthing.proxy.every import Every
from farthing.proxy.experiment_agreed import FORM, AgreedSums
from farthing.proxy.experiment_book import Record
from farthing.proxy.experiment_data import Data
from farthing.proxy.experiment_kept import keep_agreed, kept_agreed
from farthing.proxy.experiment_placing import Placing, past_of
from farthing.proxy.experiment_shared import SharedRecords, Standing
from farthing.proxy.experiment_telling import Telling
from farthing.proxy.experiment_total import Sums
from farthing.proxy.experiments import Experiments, Going, Shape, Wish, changed, has_ended
from farthing.proxy.lanes import Lanes
from farthing.proxy.rollouts import Rollouts
from farthing.proxy.whole_file import write_whole

if TYPE_CHECKING:
    from farthing.proxy.agreed import Agreed
    from farthing.proxy.agreement import Agreement

__all__ = ["SharedExperiments"]

log = structlog.get_logger("farthing.experiments")

_TELL_EVERY_S = 0.25
_KEEP_EVERY_S = 300.0
_PATIENCE = 4
_STEPS_AT_ONCE = 50
_NAME_BYTES = 8
_UNIT_BYTES = 9
_NAME_FILE = "replica"


@dataclass(slots=True)
class Joined:
    """What one that runs is fed by. `gaps`: when this replica's requests took no part; the last one has no end until
    the parts are set."""

    machine: AgreedSums
    agreed: Agreed
    telling: Telling
    gaps: list[list[float]]
    looks: Every | None = None
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def step(self) -> None:
        """Tell what there is."""
        async with self.busy:
            for _ in range(_STEPS_AT_ONCE):
                if self.agreed.full or self.agreed.closed or not await self.telling.step():
                    break

    async def close(self) -> None:
        """Tell what can be told at once, and follow no more."""
        if self.looks is not None:
            self.looks.stop()
        async with self.busy:
            for _ in range(_STEPS_AT_ONCE):
                if not await self.telling.step():
                    break
        await self.agreed.close()


class SharedExperiments(Experiments):
    """See the module. `agreement`: the way to the others."""

    def __init__(self, lanes: Lanes, policies: Rollouts, folder: Path, agreement: Agreement) -> None:
        super().__init__(lanes, policies, folder)
        self._agreement = agreement
        self._shared = SharedRecords(agreement.store)
        self.joined: dict[str, Joined] = {}
        self._unwritten: list[Record] = []
        self._closed_gaps: dict[str, list[list[float]]] = {}  # by id, that the files don't have so yet
        self._looked: dict[str, tuple[str, str, bool]] = {}  # by name: what stood when it was tried last
        self._patience: dict[str, int] = {}  # looks, by name, before one is begun that the server may have lost
        self._replica = ""
        self._began_s = 0.0
        self._answering = False  # requests may have come since `_began_s`

    async def open(self) -> None:
        """Experiments.open."""
        self._began_s = self._now_s()
        await super().open()
        self._answering = True

    async def apply(self, *, rebuild: bool = False) -> None:
        """Experiments.apply."""
        await super().apply(rebuild=rebuild)
        while self._closed_gaps:
            id, gaps = self._closed_gaps.popitem()
            await asyncio.to_thread(self._write_gaps, id, gaps)

    async def close(self) -> None:
        """Experiments.close: what was written and not told yet is told, where that goes at once."""
        self._closed = True
        ledger = self.lanes.state.ledger
        if ledger is not None and self.joined:
            await asyncio.to_thread(ledger.flush)
        for joined in list(self.joined.values()):
            await joined.close()
        await super().close()

    def _own_name(self) -> str:
        """By which the others know whose rows they have heard of: as long as this state directory lasts."""
        path = self._book.folder / _NAME_FILE
        with suppress(OSError, UnicodeDecodeError):
            if name := path.read_text("ascii").strip():
                return name
        name = self._token()
        try:
            write_whole(path, (f"{name}\n".encode(),))
        except OSError as error:
            log.warning("a replica's name can't be written: at its next start it has another", error=error.strerror)
        return name

    def _token(self) -> str:
        return self.lanes.state.randomness.token(_NAME_BYTES)

    # -- one record

    async def _stands(self, wish: Wish) -> tuple[Record, bool] | None:
        """Experiments._stands, over all replicas."""
        self._looked.pop(wish.name, None)
        try:
            return await self._stands_for_all(wish)
        except StoreFault as fault:
            why = self._hindered(wish)
            last = self._last(wish.name)
            if not why and last is not None and last.state == "running" and wish.goes_on(last):
                return last, True  # should the others have ended it, that is found when they can be asked
            self.waiting[wish.name] = why or f"the other replicas can't be asked whether it runs: {fault}"
            self._patience[wish.name] = _PATIENCE
            return None

    async def _stands_for_all(self, wish: Wish) -> tuple[Record, bool] | None:
        declared = "" if wish.by_arms else wish.declared
        found = await self._shared.look(wish.name, declared=declared)
        stands, seen = found.record, _seen_as(found)
        if stands is None:
            stands = await self._put_back(wish)
        if stands is None and self._patience.get(wish.name, 0) > 0:
            self._patience[wish.name] -= 1
            self.waiting[wish.name] = "the store was away: who runs it may have to put it back first"
            return None
        self._patience.pop(wish.name, None)
        mine = self._mine(stands)
        if stands is not None and stands.state == "running" and mine is not None and mine.state != "running":
            stands = await self._shared.end(mine, for_good=not wish.by_arms)  # the server has forgotten it
        await self._let_go(wish.name, stands)
        if stands is not None and stands.state == "running" and not wish.goes_on(stands):
            if mine is None and found.alive:
                self._wait(wish.name, "it runs at other replicas, with another declaration or other policies", seen)
                return None
            await self._lost(mine or stands, changed(wish))
            stands = (await self._shared.look(wish.name)).record
        if stands is not None and stands.state != "running" and wish.is_of(stands):
            self._wait(wish.name, has_ended(wish, stands), seen)
            return None
        if (stands is None or stands.state != "running") and found.ended:
            self._wait(wish.name, "it has ended at the replicas: change its declaration to begin another", seen)
            return None
        if why := self._hindered(wish):
            self._wait(wish.name, why, seen)
            return None
        if stands is None or stands.state != "running":
            before = self._last(wish.name)
            goes_on = before is not None and before.state == "running" and wish.goes_on(before)
            begun = before if goes_on and before is not None else self._new(wish)
            stands = await self._shared.begin(begun, "" if stands is None else stands.id)
            if not (stands.state == "running" and wish.goes_on(stands)):
                self.waiting[wish.name] = "another replica was quicker, with another declaration or other policies"
                return None
            await self._let_go(wish.name, stands)
        self._looked[wish.name] = (stands.id, stands.state, True)  # should it fail here, not to be tried at each look
        mine = self._mine(stands)
        return (stands, False) if mine is None else (mine, True)

    async def _put_back(self, wish: Wish) -> Record | None:
        """Where the server has lost everything: what has ended here has ended."""
        last = self._last(wish.name)
        if last is None or last.state == "running" or not wish.is_of(last):
            return None
        await self._shared.begin(last, "")
        return await self._shared.end(last, for_good=not wish.by_arms)

    def _mine(self, stands: Record | None) -> Record | None:
        """The same as it is written down here."""
        return None if stands is None else next((one for one in self.records if one.id == stands.id), None)

    def _wait(self, name: str, why: str, stands: tuple[str, str, bool]) -> None:
        """Until something else stands there."""
        self.waiting[name] = why
        self._looked[name] = stands

    async def _let_go(self, name: str, stands: Record | None) -> None:
        """What is written down here as running, and isn't."""
        if stands is None:
            return
        for one in self.records:
            if one.name != name or one.state != "running":
                continue
            if one.id != stands.id:
                one.state, one.why, one.ended_s = "ended", f"the replicas share another: {stands.id}", self._now_s()
                await self._write_end(one)
            elif stands.state != "running":
                _end_like(one, stands)
                await self._write_end(one)

    # -- its sums

    async def _data(self, shape: Shape) -> Data | Sums:
        return _sums(shape)

    async def _feed(self, going: Going, *, resumed: bool) -> None:
        shape, state = going.shape, self.lanes.state
        if not self._replica:
            self._replica = await asyncio.to_thread(self._own_name)
            await asyncio.to_thread(state.outcomes.keep_changes, self._token())
        machine = AgreedSums(lambda: _sums(shape))
        kept = await asyncio.to_thread(kept_agreed, self._kept_in(going))
        if kept is not None:
            with suppress(ValueError):  # another farthing's; what the others have, or all files, is read
                await asyncio.to_thread(machine.begin_with, kept)
        kept_s = float("-inf")

        async def keep(slices: Callable[[], Sequence[Any]]) -> None:
            nonlocal kept_s
            if state.clock.now_s() - kept_s >= _KEEP_EVERY_S:
                kept_s = state.clock.now_s()
                await asyncio.to_thread(lambda: keep_agreed(self._kept_in(going), slices()))

        machine.on_stand = keep
        gaps = await asyncio.to_thread(self._gaps, going, resumed)
        agreed = self._agreement.join(f"experiment:{FORM}:{going.record.id}", machine)
        named = _named_by(state.secret)

        def new() -> Placing:
            return Placing(shape.name, shape.arms, shape.unit, shape.since_s, shape.ledger, shape.sliced, shape.rest,
                           named, gaps)  # fmt: skip

        def past() -> dict[str, tuple[float, int]]:
            found = past_of(shape.ledger, shape.wanted[0].name, shape.unit, shape.since_s, shape.days, shape.most_units)
            return {named(unit): seen for unit, seen in found.items()}

        telling = Telling(machine, new, past, agreed.tell, replica=self._replica, tag=self._token(), clock=state.clock,
                          waits=lambda: agreed.waiting > 0)  # fmt: skip
        joined = self.joined[going.record.id] = Joined(machine, agreed, telling, gaps)
        joined.looks = Every(_TELL_EVERY_S, state.tasks, joined.step, f"tell of the experiment {shape.name}")

    def _gaps(self, going: Going, resumed: bool) -> list[list[float]]:
        """When this replica answered without taking part: before it joined, and while it waited for the server. The
        last one goes on until the parts are set (`_arrange`); in the file, of a process that ended before it wrote
        when that was, until the next one began. Blocks.

        What it answered then was given no arm, or one by another salt.
        """
        found: list[list[float]] = []
        with suppress(OSError, ValueError):
            kept = orjson.loads(self._gaps_in(going.record.id).read_bytes())
            found = [[float(start), float(self._began_s if end is None else end)] for start, end in kept]
        if resumed and not self._answering:
            return found  # it answers nobody before the parts are set
        found.append([self._began_s if resumed else going.record.since_s, float("inf")])
        self._write_gaps(going.record.id, found)
        return found

    def _write_gaps(self, id: str, gaps: list[list[float]]) -> None:
        """Keep them, where there are some. Blocks."""
        if not gaps:
            return
        path = self._gaps_in(id)
        try:
            write_whole(path, (orjson.dumps(gaps),))  # what has no end is null there
        except OSError as error:
            log.warning("it can't be written when a replica took no part", file=str(path), error=error.strerror)

    def _gaps_in(self, id: str) -> Path:
        return self._book.folder / f"{id}.gaps"

    async def _starve(self, going: Going) -> None:
        joined = self.joined.pop(going.record.id)
        self._closed_gaps.pop(going.record.id, None)
        await joined.close()
        with suppress(StoreFault):  # it goes by itself, later
            await joined.agreed.forget()
        for path in (self._kept_in(going), self._gaps_in(going.record.id)):
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _keep(self, going: Going) -> None:
        """It is kept where all agree, and here now and then (`_feed`)."""

    async def _read(self, going: Going) -> dict[str, Any]:
        """Experiments._read; what was read last stands until it is known what all agree upon."""
        if self.joined[going.record.id].machine.epoch == 0 and going.record.reading is not None:
            return going.record.reading
        return await super()._read(going)

    def _seen(self, going: Going) -> Data | Sums:
        return self.joined[going.record.id].machine.sums.still()

    def _may_judge(self, going: Going) -> bool:
        return self.joined[going.record.id].agreed.state.current

    def _kept_in(self, going: Going) -> Path:
        return self._book.folder / f"{going.record.id}.agreed"

    # -- ending

    async def _is_ours_to_end(self, going: Going, state: str, why: str) -> bool:
        asked = replace(going.record, state=state, why=why, ended_s=self._now_s())
        try:
            stands = await self._shared.end(asked, for_good=going.part.name != HOLDOUT)
        except StoreFault:
            return True  # it is written when the server is back
        return stands is None or stands.id != asked.id or (stands.state, stands.why) == (state, why)

    async def _lost(self, record: Record, why: str, state: str = "ended") -> None:
        """Experiments._lost, for all; who has ended it before is right."""
        asked = replace(record, state=state, why=why, ended_s=self._now_s())
        stands = None
        try:
            stands = await self._shared.end(asked, for_good=record.name != HOLDOUT)
        except StoreFault:
            self._unwritten.append(record)
        _end_like(record, stands if stands is not None and _is_end_of(stands, record) else asked)
        await self._write_end(record)

    # -- looking

    def _arrange(self) -> None:
        super()._arrange()
        now_s = self._now_s()  # the next request takes part: nobody is given a turn before this
        for going in self.going.values():
            gaps = self.joined[going.record.id].gaps
            if gaps and gaps[-1][1] == float("inf"):
                gaps[-1][1] = now_s
                self._closed_gaps[going.record.id] = gaps
        config = self.lanes.active.config
        wanted = config.experiments or config.holdout.share or self._unwritten
        if wanted and self._timer is None and not self._closed:
            self._later()

    async def _look(self) -> None:
        try:
            async with self._lock:
                again = await self._look_around()
            if again:
                await self.apply()
        except StoreFault:
            pass  # the way there says so, once
        finally:
            await super()._look()

    async def _look_around(self) -> bool:
        """End what others have ended; whether something that waits is to be tried again. Raises StoreFault."""
        for record in list(self._unwritten):
            stands = await self._shared.end(record, for_good=record.name != HOLDOUT)
            self._unwritten.remove(record)
            if stands is not None and _is_end_of(stands, record):
                _end_like(record, stands)
                await asyncio.to_thread(self._book.save, record)
        for name, going in list(self.going.items()):
            await self._look_at(name, going)
        config = self.lanes.active.config
        declared = [*(one.name for one in config.experiments), *([HOLDOUT] if config.holdout.share else [])]
        again = False
        for name in declared:
            if name not in self.going:
                found = await self._shared.look(name)
                seen, mine = _seen_as(found), self._mine(found.record)
                again = again or self._looked.get(name) != seen or self._patience.get(name, 0) > 0
                # Ended here, and put back by one that hasn't heard of that, after the server had lost everything.
                again = again or (mine is not None and mine.state != "running" and seen[1] == "running")
                self._looked[name] = seen
        return again

    async def _look_at(self, name: str, going: Going) -> None:
        record = going.record
        stands = (await self._shared.look(name, going=record.id)).record
        if stands is None:
            await self._shared.begin(record, "")  # the server has lost it
        elif stands.id == record.id and stands.state == "running":
            return
        elif stands.id == record.id:
            _end_like(record, stands)
            await self._end(going, stands.state, stands.why)
        elif stands.state == "running" and _same(stands, record) and stands.since_s > record.since_s:
            await self._shared.begin(record, stands.id)  # begun while the server had lost it: the older one stands
        else:
            await self._end(going, "ended", f"the replicas share another: {stands.id}")


def _sums(shape: Shape) -> Sums:
    return Sums(shape.name, shape.arms, shape.unit, shape.since_s, shape.wanted, shape.most_units, rest=shape.rest)


def _same(one: Record, other: Record) -> bool:
    return one.declared == other.declared and one.arms == other.arms


def _is_end_of(stands: Record, record: Record) -> bool:
    return stands.id == record.id and stands.state != "running"


def _end_like(record: Record, stands: Record) -> None:
    """It has ended, as `stands` says."""
    record.state, record.why, record.ended_s = stands.state, stands.why, stands.ended_s
    record.reading = stands.reading or record.reading


def _seen_as(found: Standing) -> tuple[str, str, bool]:
    """What has to change before what waits is tried again."""
    record = found.record
    return ("", "", False) if record is None else (record.id, record.state, found.alive)


def _named_by(secret: bytes) -> Callable[[str], str]:
    """What units are called in the shared store, where no user's name is to stand: the same at every replica that has
    the same secret."""

    def name(unit: str) -> str:
        said = unit.encode(errors="surrogateescape")
        return hashlib.blake2b(said, key=secret[:64], digest_size=_UNIT_BYTES).hexdigest()

    return name
