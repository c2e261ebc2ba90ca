"""The compressor's place in the pipeline: what goes upstream, with fewer tokens.

Tidy is done here and now; what takes longer, or has to be proved, is proxy/compressing.py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from farthing.compress.forms import Form
from farthing.compress.plan import Plan, plan
from farthing.compress.rewrite import Rewritten
from farthing.compress.tidy import Tidied, tidy
from farthing.proxy.compressing import Compressing
from farthing.proxy.exchange import GO_ON, Exchange, Quiet, Verdict

__all__ = ["CompressStage"]

_OFF_LOOP_BYTES = 65_536  # tidying more than this takes milliseconds, so it leaves the event loop


@dataclass(slots=True)
class CompressStage(Quiet):
    """Bodies that have no canonical form are left alone. `squeeze`: its mode. `beyond`: what recodes and squeezes;
    None: only tidy. `count`: counts what a request was sent without, before its answer is kept and its row written."""

    tidy: bool
    squeeze: str = "off"
    beyond: Compressing | None = None
    count: Callable[[Exchange], Awaitable[None]] | None = None
    name: str = field(default="compress", init=False)
    hard: bool = field(default=False, init=False)

    def on_request(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Put the shorter body in the place of the one to be sent."""
        beyond = self.beyond
        if not ex.optimise or ex.exact is None or ex.payload is None or ex.body is None:
            if beyond is not None:
                beyond.noted.passed_by(ex.tenant)
            return GO_ON
        if ex.plain and not ex.controls.compress and (beyond is None or not (beyond.marks or beyond.keeping)):
            return GO_ON  # without a tool's message there is no result to shorten
        chosen = plan(tidy=self.tidy, squeeze=self.squeeze, asked=ex.controls.compress)
        if chosen.reason:
            ex.decide(self.name, "plan", chosen.reason)
        if beyond is not None and chosen.may("recode"):
            return self._beyond(ex, beyond, chosen)
        if beyond is not None:
            beyond.noted.passed_by(ex.tenant)
        if not chosen.tidy:
            return GO_ON
        work = partial(tidy, ex.endpoint, ex.payload, ex.body)
        return self._aside(ex, work) if len(ex.body) > _OFF_LOOP_BYTES else self._put(ex, work())

    def on_end(self, ex: Exchange) -> Awaitable[None] | None:
        """Let the difference that the form made be looked at, and counted."""
        if ex.shortening is not None and self.beyond is not None:
            self.beyond.ended(ex)
        return None if self.count is None or ex.call is None or not ex.call.shortened else self.count(ex)

    async def _beyond(self, ex: Exchange, beyond: Compressing, chosen: Plan) -> Verdict:
        def reach(form: Form) -> bool:
            return chosen.may("recode" if form.keep is None else "squeeze")

        made: Rewritten | None = await beyond.run(ex, reach)
        if made is not None and made.body is not ex.body:
            ex.body_out = made.body
        return self._noted(ex)

    async def _aside(self, ex: Exchange, work: Callable[[], Tidied]) -> Verdict:
        return self._put(ex, await asyncio.to_thread(work))

    def _put(self, ex: Exchange, tidied: Tidied) -> Verdict:
        if tidied.edits:
            ex.body_out = tidied.body
            ex.compress, ex.tidied = "tidy", tidied.edits
            ex.decide(self.name, "shortened", f"{tidied.edits} tool results, {tidied.chars_saved} characters")
        return self._noted(ex)

    @staticmethod
    def _noted(ex: Exchange) -> Verdict:
        """Who joins sees by the call that it isn't the client's prompt that is answered."""
        if ex.call is not None:
            ex.call.shortened = bool(ex.compress) or ex.retrieval is not None
        return GO_ON
