"""Tidy's place in the pipeline: what goes upstream, with fewer tokens and the same value."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from farthing.compress.plan import plan
from farthing.compress.tidy import Tidied, tidy
from farthing.proxy.exchange import GO_ON, Exchange, Quiet, Verdict

__all__ = ["TidyStage"]

_OFF_LOOP_BYTES = 65_536  # tidying more than this takes milliseconds, so it leaves the event loop


@dataclass(slots=True)
class TidyStage(Quiet):
    """Removes JSON white space inside tool results. Bodies that have no canonical form are left alone."""

    enabled: bool
    name: str = field(default="tidy", init=False)
    hard: bool = field(default=False, init=False)

    def on_request(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Put the shorter body in the place of the one to be sent."""
        if not ex.optimise or ex.exact is None or ex.payload is None or ex.body is None:
            return GO_ON
        if ex.plain and not ex.controls.compress:
            return GO_ON  # without a tool's message there is no result to tidy
        chosen = plan(self.enabled, ex.controls.compress)
        if chosen.reason:
            ex.decide(self.name, "plan", chosen.reason)
        if "tidy" not in chosen.steps:
            return GO_ON
        work = partial(tidy, ex.endpoint, ex.payload, ex.body)
        return self._aside(ex, work) if len(ex.body) > _OFF_LOOP_BYTES else self._put(ex, work())

    async def _aside(self, ex: Exchange, work: Callable[[], Tidied]) -> Verdict:
        return self._put(ex, await asyncio.to_thread(work))

    def _put(self, ex: Exchange, tidied: Tidied) -> Verdict:
        if tidied.edits:
            ex.body_out = tidied.body
            ex.compress = self.name
            ex.decide(self.name, "shortened", f"{tidied.edits} tool results, {tidied.chars_saved} characters")
        return GO_ON
