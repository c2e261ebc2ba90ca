"""Policies and experiments in a worker that isn't the keeper: whatever the keeper has decided is done here too, at once
where it tells so, and within half a second where it has written it down. Nothing is decided here, and nothing is
written.

What the keeper began under another configuration file than this worker has is not followed: while workers are replaced
one after the other, the last one that goes is the keeper.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from farthing.policies.rollout import At
from farthing.proxy.config_experiments import ExperimentSection
from farthing.proxy.errors import FarthingError
from farthing.proxy.every import Every
from farthing.proxy.experiment_book import Record
from farthing.proxy.experiments import Experiments, Going
from farthing.proxy.lanes import Lanes
from farthing.proxy.rollouts import TOLD, Gate, Rollouts
from farthing.proxy.versions import Book, Standing

__all__ = ["FollowedExperiments", "FollowedRollouts", "ReadBook"]

log = structlog.get_logger("farthing.policy")

_LOOK_EVERY_S = 0.25


class ReadBook(Book):
    """The keeper's versions, standing and log, which are only read."""

    def note(self, at_s: float, what: str, version: str, before: str = "", why: str = "") -> None:
        """The keeper does."""

    def _put(self, name: str, value: Any) -> None:
        """The keeper does."""


class FollowedRollouts(Rollouts):
    """See the module."""

    def __init__(self, lanes: Lanes, book: Book, standing: Standing, gate: Gate | None = None) -> None:
        super().__init__(lanes, book, standing, gate)
        self._seen: Standing | None = None
        self._known_s = 0.0
        self._looks = Every(_LOOK_EVERY_S, lanes.state.tasks, self.follow, "follow policies")
        if lanes.state.crew is not None:
            lanes.state.crew.peers.when_told(TOLD, self._told)

    async def close(self) -> None:
        """Look no more."""
        self._looks.stop()

    async def follow(self) -> None:
        """Do what the keeper has written down since the last look."""
        found = await asyncio.to_thread(self.book.standing)
        if found is None or found == self._seen:
            return
        self._seen = found
        await self._take_over(found)

    def _told(self, about: Mapping[str, Any]) -> None:
        self.lanes.state.tasks.spawn(self._take_over(Standing(**about)), "follow policies")

    async def _take_over(self, found: Standing) -> None:
        async with self._lock:
            if found.declared != self.standing.declared or found.saved_s < self._known_s:
                return  # of another configuration; or older than what was told
            self._known_s = found.saved_s
            try:
                await self._be(found)
            except FarthingError as error:
                log.error("the keeper's policy can't be had here", active=found.active, fault=str(error))

    async def _be(self, found: Standing) -> None:
        kept, going = found.rollout, self.going
        if found.active != self.standing.active:
            lane = await self.lanes.build(await self.config_of(found.active))
            self._end()
            self.lanes.take(lane)
            log.info("policy is active", version=found.active, before=self.standing.active)
        elif going is not None and (kept is None or kept["salt"] != going.salt):
            self._end()
            self.lanes.close()
        self.standing = replace(found)
        if kept is not None and self.going is None:
            await self.resume(kept)
        elif kept is not None and self.going is not None and kept["step"] != self.going.at.step:
            self.going.at = At(int(kept["step"]), float(kept["step_since_s"]))
            self.lanes.split = self._split(self.going)

    def _later(self, wait_s: float = 0.0) -> None:
        """The guard is the keeper's."""

    def _incident(self, kind: str, what: str, why: str, policy: str, evidence: Mapping[str, Any] | None = None) -> None:
        """The keeper's word counts; here is only told what can't be done."""
        log.error("what the keeper rolls out can't be had here", what=what, why=why, policy=policy)


class FollowedExperiments(Experiments):
    """See the module."""

    def __init__(self, lanes: Lanes, policies: Rollouts, folder: Path) -> None:
        super().__init__(lanes, policies, folder)
        self._written_down = False
        self._looks = Every(_LOOK_EVERY_S, lanes.state.tasks, self.follow, "follow experiments")

    async def close(self) -> None:
        """Look no more."""
        self._closed = True
        self._looks.stop()

    async def follow(self) -> None:
        """End what the keeper has ended, and begin what it has begun."""
        config = self.lanes.active.config
        if not (self.going or config.experiments or config.holdout.share):
            return
        if config.store.url.get_secret_value() and not self._written_down:
            # What is said here is written down for the keeper, who tells the other replicas.
            self._written_down = True
            state = self.lanes.state
            await asyncio.to_thread(state.outcomes.keep_changes, state.randomness.token(8))
        self.records = await asyncio.to_thread(self._book.all)
        running = {one.id for one in self.records if one.state == "running"}
        known = {going.record.id for going in self.going.values()}
        if running == known:
            return
        async with self._lock:
            for name, going in list(self.going.items()):
                if going.record.id not in running:
                    self.going.pop(name)
            self._arrange()
        await self.apply()

    async def _tried(self, name: str, section: ExperimentSection | None) -> None:
        # Whether it runs is the keeper's to say; only one that it runs is begun here.
        if any(one.name == name and one.state == "running" for one in self.records):
            await super()._tried(name, section)

    async def _go(self, going: Going, *, resumed: bool) -> None:
        if not resumed:
            return  # the keeper's record is another one's: of another configuration
        going.part.lanes = await self._lanes_of(going.configs)
        self.going[going.part.name] = going

    async def _end(self, going: Going, state: str, why: str) -> None:
        self.going.pop(going.part.name, None)
        self._arrange()

    async def _lost(self, record: Record, why: str, state: str = "ended") -> None:
        """The keeper says what becomes of records."""

    def _later(self) -> None:
        """The keeper looks at what is found out."""
