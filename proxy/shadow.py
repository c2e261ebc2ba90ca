"""A request sent once more in the background, in another form, to see whether its answer is as good."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from farthing.cache.stage_exact import unfit
from farthing.policies.opinion import Opinion
from farthing.proxy.branch import CARRIED
from farthing.proxy.errand import Errands
from farthing.proxy.exchange import Call, Controls, Exchange

if TYPE_CHECKING:
    from farthing.proxy.routing import Plan

__all__ = ["Shadows"]

_MOST_COMPARED_BYTES = 2**20
# A request has two at most, and more than so many are not begun: what they cost is known only when they end.
_AT_ONCE = 8


@dataclass(slots=True)
class Shadows:
    """`compare`: whether two answers, as the upstream's bytes, say the same. `ready`: whether it knows all that it is
    going to know; before that it is in doubt, which would count against an answer."""

    errands: Errands
    compare: Callable[[bytes, bytes], Awaitable[Opinion]]
    ready: Callable[[], bool]
    under_way: int = 0

    def may(self, ex: Exchange) -> bool:
        """Whether one more may be sent, and paid for."""
        return self.under_way < _AT_ONCE and self.ready() and self.errands.may(ex.model)

    async def ask(
        self, ex: Exchange, body: bytes, form: str, *, unrouted: Controls | None = None, plan: Plan | None = None
    ) -> Call:
        """Send `body` in the name of `ex`, and write the row. `form`: '' for the request as it came. `unrouted`: to the
        model that was asked for, whoever answered the client, under these controls. `plan`: that way, whoever did."""
        shadow = self.errands.begin(ex.original)
        for name in CARRIED:
            setattr(shadow, name, getattr(ex, name))
        if unrouted is not None:
            shadow.plan = shadow.variant = None
            shadow.controls = unrouted
        if plan is not None:
            shadow.plan = plan
        shadow.body_out, shadow.compress = body, "" if unrouted is not None or plan is not None else form
        self.under_way += 1
        try:
            return await self.errands.run(shadow, f"{form or 'whole'} shadow of {ex.id}")
        finally:
            self.under_way -= 1

    async def worse(self, ex: Exchange, whole: Call | None, short: Call | None) -> float | None:
        """1 where the short request's answer doesn't say what the whole one's says, or that is in doubt; 0 where it
        does; None where one of them is no answer: an upstream's bad hour says nothing about the form."""
        one, other = self._answer(ex, whole), self._answer(ex, short)
        return None if one is None or other is None else float((await self.compare(one, other)).wrong)

    async def differ(self, ex: Exchange, answer: bytes, call: Call) -> float | None:
        """The same of an answer that came from wherever, against what a call brought."""
        other = self._answer(ex, call)
        if other is None or len(answer) > _MOST_COMPARED_BYTES:
            return None
        return float((await self.compare(answer, other)).wrong)

    def comparable(self, ex: Exchange) -> bool:
        """Whether the client got an answer that another can be compared with."""
        return self._answer(ex, ex.call) is not None

    def _answer(self, ex: Exchange, call: Call | None) -> bytes | None:
        fit = call is not None and not unfit(call, ex.endpoint, _MOST_COMPARED_BYTES)
        return call.answer if fit and call is not None else None
