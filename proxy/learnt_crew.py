"""What policies learn where farthing is several processes: the keeper learns from all, the others decide by what it
wrote.

Rules of this file:
1. Evidence has one owner. A worker that isn't the keeper decides on a copy, and tells the keeper each decision and each
   label; the keeper takes the same decision again on its own, which counts it, and learns from the label. So nothing is
   counted twice, and nothing is overwritten.
2. A copy is as old as the keeper's last writing (some two seconds), and is never learnt into. A verdict carries its
   epoch: a label of one that the keeper has left behind counts for nothing.
3. What is told while the keeper is away waits for the next one (hub.py), which begins with what the last one wrote at
   its end. A keeper that is killed takes along what it had learnt since it last wrote.
4. A policy beside the one in use (a candidate's, an arm's) tells the keeper too; its copy is not renewed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import structlog

from farthing.policies.reuse import Candidate, Label, Policy, RouteKey, Verdict
from farthing.proxy.config_section import Section
from farthing.proxy.crew import Crew
from farthing.proxy.every import Every
from farthing.proxy.learnt import Learnt, Recipe, Sharing, load, named_after, observes
from farthing.proxy.learnt_told import AWAY, Deciding, decided, forgotten, labelled, take
from farthing.proxy.tasks import TaskGroup

__all__ = ["Copied", "Copy", "Kept"]

log = structlog.get_logger("farthing.learnt")

S = TypeVar("S", bound=Section)
_LOOK_EVERY_S = 0.5
_WRITE_EVERY_S = 2.0


class Copy(Deciding):
    """A Policy that decides as the keeper's did when it was written. `tell`: the keeper, of a decision or a label.
    `observes`: the keeper can't tell other replicas, so nothing is served."""

    def __init__(self, inner: Policy, tell: Callable[[list[Any]], None], *, observes: bool = False) -> None:
        super().__init__(inner)
        self._tell = tell
        self.observes = observes

    def decide(self, route: RouteKey, candidate: Candidate, chance: float, *, may_audit: bool = True) -> Verdict:
        """See reuse.Policy; the keeper decides it once more."""
        if self.observes:
            return AWAY
        self._tell(decided(route, candidate, chance, may_audit=may_audit))
        return self.inner.decide(route, candidate, chance, may_audit=may_audit)

    def serves(self, route: RouteKey) -> bool:
        """See reuse.Policy."""
        return not self.observes and self.inner.serves(route)

    def learn(self, route: RouteKey, candidate: Candidate, verdict: Verdict, label: Label) -> None:
        """See reuse.Policy; the keeper does it."""
        self._tell(labelled(route, candidate, verdict, label))

    def forget(self, route: RouteKey) -> None:
        """See reuse.Policy; the keeper does it."""
        self._tell(forgotten(route))


class Copied(Learnt[S]):
    """Learnt of a worker that isn't the keeper: read from the keeper's file, and never written."""

    def __init__(self, folder: Path, tasks: TaskGroup, recipe: Recipe[S], crew: Crew) -> None:
        super().__init__(folder, tasks.spawn, recipe)
        self._peers = crew.peers
        self._read_ns: int | None = None
        self._looks = Every(_LOOK_EVERY_S, tasks, self._look, f"look what is learnt of {recipe.about}")

    async def use(self, settings: S) -> Policy:
        """Learnt.use."""
        if self._now is None or self._now[0] != settings:
            self._read_ns = self._written_ns(settings)
            self._now = (settings, await self._copy(settings))
        return self._now[1]

    async def beside(self, settings: S) -> Policy:
        """Learnt.beside."""
        if self._now is None or self._now[0] == settings:
            return await self.use(settings)
        return await self._copy(settings)

    async def close(self) -> None:
        """Look no more."""
        self._looks.stop()

    async def _copy(self, settings: S) -> Copy:
        named = named_after(settings)

        def tell(what: list[Any]) -> None:
            self._peers.tell(told_as(self._recipe), [named, *what], to="keeper")

        policy, observing = await self._read(settings)
        return Copy(policy, tell, observes=observing)

    async def _read(self, settings: S) -> tuple[Policy, bool]:
        path = self._folder / self._recipe.file(settings)
        return await asyncio.to_thread(
            lambda: (load(path, self._recipe, settings, aside=False), observes(path))
        )  # fmt: skip

    async def _look(self) -> None:
        if self._now is None:
            return
        settings, policy = self._now
        written_ns = self._written_ns(settings)
        if written_ns == self._read_ns or not isinstance(policy, Copy):
            return
        self._read_ns = written_ns
        policy.inner, policy.observes = await self._read(settings)

    def _written_ns(self, settings: S) -> int | None:
        try:
            return (self._folder / self._recipe.file(settings)).stat().st_mtime_ns
        except OSError:
            return None


class Kept(Learnt[S]):
    """The keeper's Learnt: it takes in what the others tell, and writes often."""

    every_s = _WRITE_EVERY_S

    def __init__(
        self,
        folder: Path,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        recipe: Recipe[S],
        crew: Crew,
        sharing: Sharing | None = None,
    ) -> None:
        super().__init__(folder, spawn, recipe, sharing)
        crew.peers.when_told(told_as(recipe), self._take)

    async def use(self, settings: S) -> Policy:
        """Learnt.use; the others are told at once where nothing may be served yet."""
        policy = await super().use(settings)
        if self._sharing is not None:
            await self._write()
        return policy

    def _take(self, said: list[Any]) -> None:
        named, *word = said
        policy = next((policy for settings, policy in self._all() if named_after(settings) == named), None)
        if policy is not None:  # else it is of a configuration that isn't in use here (any more)
            take(policy, word)

    def _all(self) -> list[tuple[S, Policy]]:
        return [*([] if self._now is None else [self._now]), *self._beside]


def told_as(recipe: Recipe[Any]) -> str:
    """Under which name the workers speak of it."""
    return f"learnt of {recipe.about}"
