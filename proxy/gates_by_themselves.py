"""Watches what gates depend on, and runs those that are due."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import structlog

from farthing.policies.gating import ON_TIME, Standing, due
from farthing.proxy.config import Config
from farthing.proxy.gate_refresh import Refresh
from farthing.proxy.gating import GateRuns
from farthing.proxy.incidents import Incidents
from farthing.proxy.row import ERRANDS, Row
from farthing.proxy.versions import policy_version

__all__ = ["GateWatch", "ModelsServed", "shown"]

TICK_S = 20.0
_MODELS, _SNAPSHOTS = 100, 20
_MODEL = "model "
_LED = '["route","routed"'  # in a row's decisions: whom it was led to says nothing of what a name stands for

log = structlog.get_logger("farthing.gates")


@dataclass(slots=True)
class ModelsServed:
    """Which models have answered for each that was asked for: told by rows, in the ledger's thread. A provider that
    serves a new snapshot under the same name has changed what every suite rests on; one that serves two by turns does
    so once."""

    served: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def observe(self, rows: Sequence[Row]) -> None:
        """Look at new rows: those that an upstream answered without a route."""
        for row in rows:
            plain = row.attempts and row.status == 200 and row.model_served and row.endpoint not in ERRANDS
            if (
                plain
                and _LED not in row.decisions
                and (row.model_requested in self.served or len(self.served) < _MODELS)
            ):
                self._add(row.model_requested, row.model_served)

    @property
    def told(self) -> dict[str, str]:
        """Each model's as a short text, by `model NAME`."""
        return {f"{_MODEL}{name}": " ".join(served) for name, served in list(self.served.items())}

    def known(self, told: Mapping[str, str]) -> None:
        """What `told` gave before a restart."""
        for name, served in told.items():
            if name.startswith(_MODEL):
                for one in served.split():
                    self._add(name.removeprefix(_MODEL), one)

    def _add(self, name: str, served: str) -> None:
        known = self.served.get(name, ())
        if served not in known and len(known) < _SNAPSHOTS:
            self.served[name] = (*known, served)


@dataclass(slots=True)
class GateWatch:
    """`active`: the configuration in force. `roll_back`: goes to the policy before, with the reason."""

    runs: GateRuns
    models: ModelsServed
    active: Callable[[], Config]
    roll_back: Callable[[str], Awaitable[object]]
    incidents: Incidents
    standings: dict[str, Standing] = field(default_factory=dict)
    changed_s: float = 0.0
    refresh: Refresh = field(default_factory=Refresh)
    _before: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for line in self.runs.latest:  # what ran before a restart needn't run again
            if line.get("seen"):
                self.standings[line["suite"]] = Standing(line["ts"], line["seen"])
                self.models.known(line["seen"])

    async def watch(self) -> None:
        """For as long as the proxy runs."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick()
            except Exception as error:  # whatever it is, the next look may do
                log.exception("gates can't be looked after", error=type(error).__name__)

    async def tick(self) -> None:
        """Run what is due now."""
        config = self.active()
        if not config.gates.suites:
            return
        now_s, seen = self.runs.clock.now_s(), self.seen(config)
        if seen != self._before:
            self._before, self.changed_s = seen, now_s
        every_s = config.gates.every_hours * 3600
        for suite in config.gates.suites:
            last = self.standings.get(str(suite))
            why = due(last, now_s, seen if config.gates.on_change else {}, every_s, self.changed_s)
            if why == ON_TIME:
                await self.refresh.before(config, suite, now_s)
            if why:
                await self._run(config, suite, why, seen)

    def seen(self, config: Config) -> dict[str, str]:
        """What suites depend on, each as a short text. A model counts once it has answered."""
        prices = f"{metadata.version('genai-prices')} {config.prices.model_dump_json()}"
        found = {"policy": policy_version(config), "prices": hashlib.sha256(prices.encode()).hexdigest()[:12]}
        return found | self.models.told

    async def _run(self, config: Config, suite: Path, why: str, seen: dict[str, str]) -> None:
        told = await self.runs.run(config, suite, why, seen)
        self.standings[str(suite)] = Standing(told["ts"], seen)
        if told["verdict"] == "ship":
            return
        self.incidents.note(
            "gate", f"the suite {suite.name} says {told['verdict']} of the policy in force", told["why"] or why,
            {"trigger": why, "rules": told["rules"]}, policy=told["policy"],
        )  # fmt: skip
        if told["verdict"] == "block" and config.gates.roll_back:
            await self._back(config, suite)

    async def _back(self, config: Config, suite: Path) -> None:
        if policy_version(self.active()) != policy_version(config):
            return  # another one answers by now
        try:
            await self.roll_back(f"the suite {suite.name} blocks it")
        except Exception as error:  # noqa: BLE001 - nothing before it, or a roll-out under way: told, and left
            log.warning("the policy that a suite blocks can't be rolled back", error=str(error))


def shown(runs: GateRuns, limit: int = 20) -> dict[str, Any]:
    """For the admin call."""
    return {"running": runs.running, "runs": list(runs.latest)[::-1][:limit]}
