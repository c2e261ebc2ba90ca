"""Begins, watches and ends experiments and hold-outs: the one place that takes parts out of the traffic.

Rules of this file:
1. What the configuration declares is begun once. What has ended stays ended until its declaration changes; a hold-out
   begins anew with every new active policy.
2. An arm is a version, and stays it: where the active policy changes under an arm that is `active`, the experiment
   ends.
3. Nothing is begun while a policy is rolled out, and no policy is rolled out while an experiment runs: each would be
   the other's noise. A hold-out hinders neither.
4. What the program ends of its own accord is an incident.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from farthing.policies.assign import Unit
from farthing.policies.version import SECTIONS
from farthing.proxy.build import Services
from farthing.proxy.config import Config, read_toml
from farthing.proxy.config_experiments import HOLDOUT, ExperimentSection, bounds_of, kind_of
from farthing.proxy.errors import FarthingError
from farthing.proxy.experiment_book import Record, RecordArm, Records, hash_of
from farthing.proxy.experiment_data import Data, Wanted, before_start
from farthing.proxy.experiment_kept import forget, keep, restore
from farthing.proxy.experiment_reading import Plan, plan_of, power, reading, verdict_of
from farthing.proxy.experiment_text import record_text
from farthing.proxy.experiment_total import Sums
from farthing.proxy.header_facts import HeaderBook
from farthing.proxy.holdout import arms_of, holdout_plan
from farthing.proxy.holdout import declared as holdout_declared
from farthing.proxy.lanes import Lanes, Part
from farthing.proxy.rollouts import Rollouts
from farthing.proxy.student_pins import pinned
from farthing.proxy.versions import policy_version, with_sections

__all__ = ["Experiments", "Going", "Shape", "Wish", "changed", "has_ended"]

log = structlog.get_logger("farthing.experiments")

_LOOK_EVERY_S = 1.0
_SAVE_EVERY_S = 30.0
_KEEP_SUMS_EVERY_S = 300.0
_POINT_EVERY_S = 900.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What the configuration wants to run. `by_arms`: it begins anew where the arms' versions are others."""

    name: str
    declared: str
    declaration: dict[str, Any]
    arms: list[RecordArm]
    by_arms: bool = False

    def is_of(self, record: Record) -> bool:
        """Whether the record is of this declaration."""
        return record.declared == self.declared and not (self.by_arms and record.arms != self.arms)

    def goes_on(self, record: Record) -> bool:
        """Whether the record, if it runs, is of this and no other arms."""
        return record.declared == self.declared and record.arms == self.arms


@dataclass(frozen=True, slots=True)
class Shape:
    """What sums are made of: see Data. `days`: before the start, that the covariate is of."""

    name: str
    arms: tuple[str, ...]
    unit: Unit
    since_s: float
    wanted: tuple[Wanted, ...]
    most_units: int
    ledger: Path
    sliced: tuple[str, ...] = ()
    rest: bool = False
    days: float = 0.0


@dataclass(slots=True)
class Going:
    """One that runs."""

    record: Record
    plan: Plan
    shape: Shape
    data: Data | Sums
    part: Part
    configs: tuple[Config | None, ...]
    saved_s: float = float("-inf")
    kept_s: float = float("-inf")


class Experiments:
    """All of them. `going`: by name; `waiting`: why one that is declared doesn't run."""

    def __init__(self, lanes: Lanes, policies: Rollouts, folder: Path) -> None:
        self.lanes = lanes
        self.going: dict[str, Going] = {}
        self.waiting: dict[str, str] = {}
        self.records: list[Record] = []
        self._policies = policies
        self._book = Records(folder)
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        policies.hindered = self._hinders
        lanes.changed = self._on_change

    async def open(self) -> None:
        """Go on with what ran when this process's predecessor ended, and begin what is new."""
        config = self.lanes.active.config
        if config.experiments or config.holdout.share or self._book.folder.is_dir():
            self.records = await asyncio.to_thread(self._book.all)
        await self.apply()

    async def close(self) -> None:
        """Look no more, and write what is known."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for going in self.going.values():
            await asyncio.to_thread(self._book.save, going.record)
            await self._keep(going)

    async def apply(self, *, rebuild: bool = False) -> None:
        """Make what runs what the configuration declares. `rebuild`: other sections of it have changed."""
        async with self._lock:
            config = self.lanes.active.config
            declared = {one.name: one for one in config.experiments}
            self.waiting = {}
            for name, going in list(self.going.items()):
                why = await self._outlived(going, config, declared.get(name))
                if why:
                    await self._end(going, "ended", why)
                elif rebuild:
                    await self._rebuild(going)
            for name, section in declared.items():
                if name not in self.going:
                    await self._tried(name, section)
            if config.holdout.share and HOLDOUT not in self.going:
                await self._tried(HOLDOUT, None)
            self._arrange()

    async def stop(self, name: str, why: str) -> Record | None:
        """End one that runs; None where there is none of that name."""
        async with self._lock:
            going = self.going.get(name)
            if going is None:
                return None
            await self._read(going)
            await self._end(going, "stopped", why or "an operator asked")
            return going.record

    # -- beginning and ending

    async def _tried(self, name: str, section: ExperimentSection | None) -> None:
        try:
            if section is None:
                await self._hold_out()
            else:
                await self._begin(section)
        except (FarthingError, sqlite3.Error, OSError) as error:
            self.waiting[name] = str(error) or type(error).__name__
            log.warning("an experiment can't be begun", name=name, fault=self.waiting[name])

    async def _begin(self, section: ExperimentSection) -> None:
        config = self.lanes.active.config
        configs = [await self._config_of(arm.policy, config) for arm in section.arms]
        declared = self._declared(section, configs)
        arms = [
            RecordArm(arm.name, policy_version(one), arm.share)
            for arm, one in zip(section.arms, configs, strict=True)
        ]  # fmt: skip
        declaration = section.model_dump(mode="json") | {"power": power(section)}
        stands = await self._stands(Wish(section.name, declared, declaration, arms))
        if stands is None:
            return
        record, resumed = stands
        plan = plan_of(section)
        named = tuple(arm.name for arm in arms)
        shape = Shape(section.name, named, section.unit, record.since_s, _wanted(plan), section.most_units,
                      config.state_dir / "ledger.db", section.slices, days=section.covariate_days)  # fmt: skip
        tag = section.where.tag.partition("=")
        await self._go(Going(record, plan, shape, await self._data(shape), Part(
            section.name, record.salt, section.unit, plan.shares, named, (), self.lanes.state.randomness,
            HeaderBook(products=config.compat.aliases), (tag[0], tag[2]) if tag[0] else None, section.where.tenant,
            section.where.endpoint, section.where.model,
        ), tuple(configs)), resumed=resumed)  # fmt: skip

    async def _hold_out(self) -> None:
        config = self.lanes.active.config
        section = config.holdout
        made = arms_of(config, section.arms)
        if not made:
            self.waiting[HOLDOUT] = "no optimiser is on: there is nothing to hold out"
            return
        share = section.share / len(made)
        parts = [("on", config, 1 - section.share), *((name, one, share) for name, one in made)]
        arms = [RecordArm(name, policy_version(one), part) for name, one, part in parts]
        wish = Wish(HOLDOUT, holdout_declared(section), section.model_dump(mode="json"), arms, by_arms=True)
        stands = await self._stands(wish)
        if stands is None:
            return
        record, resumed = stands
        plan = holdout_plan(tuple(arm.share for arm in arms), compared=bool(section.compared))
        named = tuple(arm.name for arm in arms)
        shape = Shape(HOLDOUT, named, section.unit, record.since_s, _wanted(plan), section.most_units,
                      config.state_dir / "ledger.db", rest=True)  # fmt: skip
        part = Part(HOLDOUT, record.salt, section.unit, plan.shares, named, (), self.lanes.state.randomness,
                    HeaderBook(products=config.compat.aliases), compared=section.compared)  # fmt: skip
        configs = (None, *(one for _, one in made))
        await self._go(Going(record, plan, shape, await self._data(shape), part, configs), resumed=resumed)

    async def _stands(self, wish: Wish) -> tuple[Record, bool] | None:
        """The record of what is to run, and whether it did before; None: it has to wait, and `waiting` says why."""
        last = self._last(wish.name)
        if last is not None and last.state != "running" and wish.is_of(last):
            self.waiting[wish.name] = has_ended(wish, last)
            return None
        resumed = last if last is not None and wish.goes_on(last) and last.state == "running" else None
        if last is not None and last.state == "running" and resumed is None:
            await self._lost(last, changed(wish))
        if why := self._hindered(wish):
            self.waiting[wish.name] = why
            return None
        return resumed or self._new(wish), resumed is not None

    def _new(self, wish: Wish) -> Record:
        return Record.begin(wish.name, wish.declared, wish.declaration, wish.arms, self._now_s())

    def _last(self, name: str) -> Record | None:
        """The one that runs by its record, or ran last."""
        found = [one for one in self.records if one.name == name]
        return next((one for one in found if one.state == "running"), found[-1] if found else None)

    def _hindered(self, wish: Wish) -> str:
        """Why it can't begin or go on now; ''."""
        if wish.name == HOLDOUT:
            return ""
        if self._policies.going is not None:
            return "a policy is being rolled out: it begins when that has ended"
        if len({arm.version for arm in wish.arms}) < len(wish.arms):
            return "two of its arms have the same policy now"
        return ""

    async def _data(self, shape: Shape) -> Data | Sums:
        """Sums that know nothing but the past before the start."""
        before = await asyncio.to_thread(
            before_start, shape.ledger, shape.wanted[0].name, shape.unit, shape.since_s, shape.days, shape.most_units
        )  # fmt: skip
        return Data(shape.name, shape.arms, shape.unit, shape.since_s, shape.wanted, shape.most_units, shape.ledger,
                    shape.sliced, before, shape.rest)  # fmt: skip

    async def _go(self, going: Going, *, resumed: bool) -> None:
        for one in going.configs:
            if one is not None and not resumed:
                await asyncio.to_thread(self._policies.book.keep, one, self._now_s(), f"experiment {going.part.name}")
        going.part.lanes = await self._lanes_of(going.configs)
        if not resumed:
            self.records.append(going.record)
            await asyncio.to_thread(self._book.save, going.record)
        await self._feed(going, resumed=resumed)
        self.going[going.part.name] = going
        log.info("experiment goes on" if resumed else "experiment begun", name=going.part.name, id=going.record.id)

    async def _feed(self, going: Going, *, resumed: bool) -> None:
        """From now on its sums follow what happens."""
        data = going.data
        assert isinstance(data, Data)
        if resumed:
            await asyncio.to_thread(restore, self._sums(going), data)
        state = self.lanes.state
        state.listeners.append(data.on_rows)
        state.outcomes.listeners.append(data.on_changes)

    async def _starve(self, going: Going) -> None:
        """They follow no more, and aren't kept."""
        data, held = going.data, self.lanes.state
        assert isinstance(data, Data)
        held.listeners.remove(data.on_rows)
        held.outcomes.listeners.remove(data.on_changes)

    async def _keep(self, going: Going) -> None:
        """Write the sums down."""
        if isinstance(going.data, Data):
            await asyncio.to_thread(keep, self._sums(going), going.data, self._now_s())

    async def _lanes_of(self, configs: tuple[Config | None, ...]) -> tuple[Services | None, ...]:
        active = self.lanes.active
        return tuple([None if one is None else await self.lanes.build(one, beside=active) for one in configs])

    async def _rebuild(self, going: Going) -> None:
        """The same policies under the other sections of the configuration as they are now."""
        config = self.lanes.active.config
        going.configs = tuple(None if one is None else with_sections(config, _given(one)) for one in going.configs)
        going.part.lanes = await self._lanes_of(going.configs)

    async def _outlived(self, going: Going, config: Config, section: ExperimentSection | None) -> str:
        """Why one that runs must end; '' where it may go on."""
        if going.part.name == HOLDOUT:
            if not config.holdout.share or holdout_declared(config.holdout) != going.record.declared:
                return "[holdout] has changed"
            return "" if going.record.arms[0].version == policy_version(config) else "the active policy has changed"
        if section is None:
            return "it was taken out of the configuration"
        try:
            configs = [await self._config_of(arm.policy, config) for arm in section.arms]
        except FarthingError as error:
            return str(error)
        if self._declared(section, configs) != going.record.declared:
            return "its declaration has changed"
        same = [policy_version(one) for one in configs] == [arm.version for arm in going.record.arms]
        return "" if same else "the active policy has changed"

    def _declared(self, section: ExperimentSection, configs: list[Config]) -> str:
        """Changes where the declaration does, or a file that it names."""
        versions = [
            "active" if arm.policy == "active" else policy_version(one)
            for arm, one in zip(section.arms, configs, strict=True)
        ]  # fmt: skip
        return hash_of([section.model_dump(mode="json"), versions])

    async def _config_of(self, policy: str, config: Config) -> Config:
        if policy == "active":
            return config
        if policy.startswith("p-") and not policy.endswith(".toml"):
            return await self._policies.config_of(policy)
        table = await asyncio.to_thread(read_toml, Path(policy))
        made = with_sections(config, {name: table[name] for name in table if name in SECTIONS})
        return await asyncio.to_thread(pinned, made)

    async def _end(self, going: Going, state: str, why: str) -> None:
        """From the next request on it gets none; then it is written down."""
        self.going.pop(going.part.name, None)
        self._arrange()
        await self._lost(going.record, why, state)
        await self._starve(going)
        await asyncio.to_thread(forget, self._sums(going))

    def _sums(self, going: Going) -> Path:
        return self._book.folder / f"{going.record.id}.sums"

    async def _lost(self, record: Record, why: str, state: str = "ended") -> None:
        record.state, record.why, record.ended_s = state, why, self._now_s()
        await self._write_end(record)

    async def _write_end(self, record: Record) -> None:
        state, why = record.state, record.why
        log.warning("experiment ended", name=record.name, id=record.id, state=state, why=why)
        await asyncio.to_thread(self._book.save, record, record_text(record))

    def _arrange(self) -> None:
        """Hold-outs first: what is left is everybody else's."""
        order = sorted(self.going.values(), key=lambda one: one.part.name != HOLDOUT)
        self.lanes.set_parts(tuple(one.part for one in order))
        if self.going and self._timer is None and not self._closed:
            self._later()

    def _hinders(self) -> str:
        names = [name for name in self.going if name != HOLDOUT]
        return f"the experiment {names[0]} is under way" if names else ""

    def _on_change(self) -> None:
        config = self.lanes.active.config
        if not self._closed and (self.going or config.experiments or config.holdout.share):
            self.lanes.state.tasks.spawn(self.apply(), "experiments")

    # -- looking

    def _later(self) -> None:
        if not self._closed:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.lanes.state.tasks.spawn(self._look(), "experiments")

    async def _look(self) -> None:
        """Read all that run, and end those that are over."""
        async with self._lock:
            try:
                for going in list(self.going.values()):
                    told = await self._read(going)
                    verdict = verdict_of(going.plan, told)
                    if verdict.state and not self._may_judge(going):
                        continue
                    if verdict.state:
                        await self._over(going, verdict.state, verdict.why, told)
                    elif self._now_s() - going.saved_s >= _SAVE_EVERY_S:
                        going.saved_s = self._now_s()
                        await asyncio.to_thread(self._book.save, going.record)
                    if going.kept_s + _KEEP_SUMS_EVERY_S <= self._now_s() and not verdict.state:
                        going.kept_s = self._now_s()
                        await self._keep(going)
            finally:
                self._arrange()  # and look again, whatever happened

    async def _read(self, going: Going) -> dict[str, Any]:
        record, now_s = going.record, self._now_s()
        told = await asyncio.to_thread(reading, going.plan, self._seen(going), now_s, record.least_p)
        record.reading, record.least_p = told, told["shares"]["p"]
        if "candidates" in told and (not record.points or now_s - record.points[-1][0] >= _POINT_EVERY_S):
            decides = going.plan.metrics[0].metric
            record.point(now_s, {name: arm["metrics"][decides]["apart"] for name, arm in told["candidates"].items()})
        return told

    def _may_judge(self, going: Going) -> bool:
        """Whether its sums are all that is known."""
        return True

    def _seen(self, going: Going) -> Data | Sums:
        """Its sums as they are, for another thread."""
        return going.data

    async def _is_ours_to_end(self, going: Going, state: str, why: str) -> bool:
        """Whether nobody else has ended it."""
        return True

    async def _over(self, going: Going, state: str, why: str, told: Mapping[str, Any]) -> None:
        if not await self._is_ours_to_end(going, state, why):
            return
        kind = {"broken": "experiment_shares", "guardrail": "experiment_guardrail"}.get(state, "experiment_decided")
        name = going.part.name
        self.lanes.state.incidents.note(kind, f"the experiment {name} ended", why, {"experiment": name,
                                        "id": going.record.id, "shares": told["shares"]})  # fmt: skip
        await self._end(going, state, why)

    def _now_s(self) -> float:
        return self.lanes.state.clock.now_s()


def _wanted(plan: Plan) -> tuple[Wanted, ...]:
    return tuple(Wanted(one.metric, kind_of(one), bounds_of(one)) for one in plan.metrics)


def has_ended(wish: Wish, record: Record) -> str:
    """Why it isn't begun again."""
    what = "[holdout]" if wish.name == HOLDOUT else "its declaration"
    return f"it has ended ({record.state}): change {what} to begin another"


def changed(wish: Wish) -> str:
    """Why one that runs must end for it."""
    whose = "the active" if wish.name == HOLDOUT else "an arm's"
    return f"its declaration or {whose} policy has changed"


def _given(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in SECTIONS if name in Config.model_fields}
