"""A cascade's tries: a cheaper variant's whole answer, held back until it is accepted or not.

What is checked is `policies/accept.py`'s; more samples and a judge are asked here, and billed as all else.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from functools import partial

import orjson
import structlog

from farthing.cache.reshape import assemble
from farthing.policies.accept import Accept, consistent, judge_question, refused, same_by_construction, spoken
from farthing.policies.judge import decided, probability
from farthing.policies.variant import Variant
from farthing.proxy.exchange import Endpoint, Exchange
from farthing.proxy.legs import Legs, Tried

__all__ = ["Tries"]

_OFF_LOOP_BYTES = 65_536
_MOST_TOLD = 64
_MOST_JUDGED_CHARS = 16_000
_SURE = 0.5  # of a judge's yes
_NAME = re.compile(r"[\w.\[\]-]{1,64}")  # of an error or a field: anything else may be what the client wrote

log = structlog.get_logger("farthing.route")


@dataclass(frozen=True, slots=True)
class Tries:
    """Asks, checks, and lets go on what is accepted."""

    legs: Legs

    async def accepted(self, ex: Exchange, variant: Variant, accept: Accept) -> bool:
        """Whether the variant's answer is accepted, and has gone on to the client."""
        if accept.agree > 1 and (reason := same_by_construction(ex.payload or {}, variant.params)):
            ex.decide("route", "escalated", f"{variant.name}: not asked, its samples would be alike ({reason})")
            return False
        tried = await self.legs.held(ex, variant)
        answered = tried.fault is None and tried.sink.status == 200
        try:
            reason = await self._refused(ex, tried, accept) if answered else tried.said
        except asyncio.CancelledError:
            await self.legs.beside(ex, tried)
            raise
        if reason:
            ex.decide("route", "escalated", f"{variant.name}: {reason}")
            await self.legs.beside(ex, tried)
            return False
        ex.decide("route", "accepted", variant.name)
        self.legs.serves(ex, tried)
        try:
            await tried.sink.release(ex.sink)
        finally:
            self.legs.finish(ex, tried)
        return True

    async def _refused(self, ex: Exchange, tried: Tried, accept: Accept) -> str:
        payload, answer = ex.payload, self._whole(tried)
        assert payload is not None
        if answer is None:
            return "too long, or not to be read"
        check = partial(refused, accept, answer, payload)
        try:
            reason = await asyncio.to_thread(check) if len(answer) > _OFF_LOOP_BYTES else check()
        except Exception as error:  # noqa: BLE001 - an answer that can't be checked isn't accepted
            return f"the check failed: {type(error).__name__}"
        if not reason and accept.agree > 1:
            reason = await self._inconsistent(ex, tried, answer, accept.agree)
        if not reason and accept.judge:
            reason = await self._misjudged(ex, answer, self.legs.routing.variants[accept.judge], accept)
        return reason

    async def _inconsistent(self, ex: Exchange, tried: Tried, answer: bytes, samples: int) -> str:
        """Ask the same variant again: do all say the same?"""
        assert isinstance(tried.leg, Variant)
        answers = [answer]
        for _ in range(samples - 1):
            again = await self.legs.held(ex, tried.leg)
            other = self._whole(again) if again.sink.status == 200 and again.fault is None else None
            await self.legs.beside(ex, again)
            if other is None:
                return "another sample failed"
            answers.append(other)
        alike = await asyncio.to_thread(consistent, answers)
        return "" if alike else f"{samples} samples differ"

    async def _misjudged(self, ex: Exchange, answer: bytes, judge: Variant, accept: Accept) -> str:
        assert ex.payload is not None
        if ex.endpoint is not Endpoint.CHAT:
            return "judges are asked of chat completions only"
        asked = spoken(ex.payload)
        if len(asked) + len(answer) > _MOST_JUDGED_CHARS:
            return "too long to be judged"
        question = judge_question(judge.model, asked, answer, accept.judge_max_tokens)
        judged = await self.legs.held(ex, judge, question)
        answered = judged.fault is None and judged.sink.status == 200
        value = judged.call.value if answered else None
        await self.legs.beside(ex, judged)
        if answered and decided(value):
            return "" if probability(value) > _SURE else "the judge says no"
        reason = "the judge says neither yes nor no" if answered else f"the judge can't be asked: {_why(judged)}"
        self._tell(judge, reason)
        return reason

    def _tell(self, judge: Variant, reason: str) -> None:
        """Log it, once for each reason under one configuration: until then nothing shows but that all escalate."""
        told = self.legs.routing.judges_told
        if (judge.name, reason) not in told and len(told) < _MOST_TOLD:
            told.add((judge.name, reason))
            log.warning("a cascade's answers aren't judged, and escalate", judge=judge.name, why=reason)

    @staticmethod
    def _whole(tried: Tried) -> bytes | None:
        """The answer as one JSON value, if it is complete."""
        call = tried.call
        if not call.complete or call.answer is None or tried.sink.overflown:
            return None
        return assemble(call.answer, tried.own.endpoint) if call.event_stream else call.answer


def _why(judged: Tried) -> str:
    """Its failure: the status, and what of the error is a name. Its words may hold what the client wrote."""
    if judged.fault is not None:
        return judged.said
    told = []
    try:
        error = orjson.loads(judged.sink.body() or b"{}")["error"]
        told = [one for name in ("code", "param") if isinstance(one := error.get(name), str) and _NAME.fullmatch(one)]
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return " ".join([str(judged.sink.status), *told])
