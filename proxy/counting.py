"""Tokens by our own count, where nobody else has told them: of prompts sent shorter, of answers without usage.

Rules of this file: counting happens in a thread, when the client has its answer, and of an answer in the store once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

from farthing.compress.decided import first_new
from farthing.compress.places import turns_of, up_to
from farthing.proxy.counterfactual import loads
from farthing.proxy.exchange import Endpoint, Exchange, Served
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage, UsageSource

__all__ = ["Counting", "changed", "must_count_prompt", "needs_counting"]

_MOST_REMEMBERED = 10_000


@dataclass(slots=True)
class Counting:
    """Counts, and remembers what answers in the store would have used. `slow`: at most so many counts at a time."""

    tokenizer: Tokenizer
    slow: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    _stored: OrderedDict[tuple[str, float], Usage] = field(default_factory=OrderedDict, init=False)

    def of_stored(self, served: Served) -> Usage | None:
        """What was counted of an answer in the store when it was served before; None where nothing was.

        A near-duplicate's asker had a prompt of its own, so there it is counted each time.
        """
        return None if served.reuse else self._stored.get((served.entry_key, served.stored_s))

    async def answer(self, ex: Exchange, usage: Usage | None) -> None:
        """Count what is still to be counted of an exchange, and write it where it is known from then on.

        `usage`: what its answer used, as far as that is known; where it isn't, its call has it afterwards, or what it
        was served.
        """
        async with self.slow:
            counted = await asyncio.to_thread(self._count, ex, usage)
        if usage is not None or counted is None:
            return
        if ex.served is not None:
            # Counted is the client's own prompt, whole: nothing is to be added that another's was sent without.
            ex.served = replace(ex.served, usage=counted, tokens_saved=0)
            if not ex.served.reuse:
                self._remember((ex.served.entry_key, ex.served.stored_s), counted)
        elif ex.call is not None:
            ex.call.usage = counted

    async def prompt(self, ex: Exchange) -> None:
        """Count what the request was sent without, once; for its row, and for who gets its answer too."""
        if must_count_prompt(ex):
            async with self.slow:
                await asyncio.to_thread(self._count_prompt, ex)

    def _remember(self, place: tuple[str, float], usage: Usage) -> None:
        self._stored[place] = usage
        if len(self._stored) > _MOST_REMEMBERED:
            self._stored.popitem(last=False)

    def _count(self, ex: Exchange, usage: Usage | None) -> Usage | None:
        """In a thread: of what went upstream, and of what had come back so far."""
        if ex.payload is None:
            return usage
        if must_count_prompt(ex):
            self._count_prompt(ex)
        if not needs_counting(ex, usage):
            return usage  # told, or nothing was billed
        call, served = ex.call, ex.served
        if served is not None:
            answer, saved, tier = served.uncounted, 0, ""
        else:
            assert call is not None  # `needs_counting`
            answer, tier = call.answer or b"", call.tier
            saved = ex.tokens_saved if ex.leads else call.tokens_saved
        output = self.tokenizer.of(ex.tenant).count_text_out(ex.endpoint, answer, ex.model) if answer else 0
        tokens_in = self._tokens_in(ex, ex.payload) - saved
        return Usage(fresh=max(0, tokens_in), output=output, source=UsageSource.COUNTED, tier=tier)

    def _count_prompt(self, ex: Exchange) -> None:
        ex.counted = True
        if ex.payload is None or ex.body_out is None:
            return
        whole, short = ex.payload, loads(ex.body_out)
        saved = self._tokens_in(ex, whole) - self._tokens_in(ex, short)
        old = first_new(ex.endpoint, turns_of(ex.endpoint, whole))
        if old:
            whole, short = (up_to(ex.endpoint, payload, old) for payload in (whole, short))
            ex.tokens_before = self._tokens_in(ex, short)
            ex.saved_before = self._tokens_in(ex, whole) - ex.tokens_before
        ex.tokens_saved = saved
        if ex.call is not None:
            ex.call.tokens_saved = saved

    def _tokens_in(self, ex: Exchange, payload: dict[str, Any]) -> int:
        return self.tokenizer.of(ex.tenant).count_request(ex.endpoint, payload, ex.model)


def changed(ex: Exchange) -> bool:
    """Whether other tokens went upstream than the client's, so that both have to be counted."""
    if not ex.leads:
        return ex.call is not None and ex.call.shortened
    return bool(ex.compress) or ex.retrieval is not None


def must_count_prompt(ex: Exchange) -> bool:
    """Whether what its request was sent without is still to be counted."""
    return ex.leads and not ex.counted and changed(ex)


def needs_counting(ex: Exchange, usage: Usage | None) -> bool:
    """Whether an answer was billed, or would have been, whose usage the upstream has not told."""
    if usage is not None or ex.endpoint is Endpoint.OTHER:
        return False
    if ex.served is not None:
        return bool(ex.served.uncounted)
    call = ex.call
    return call is not None and (200 <= call.status < 300 or (call.silent and ex.leads))
