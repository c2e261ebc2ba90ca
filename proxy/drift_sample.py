"""Counts a few answers a second time, to see whether the provider counts as we do (usage_drift.py).

Rules of this file: after the answer has gone, in a thread, one at a time and at most one a second; never what is long,
nor with a tokenizer whose ranks would have to be loaded first.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from farthing.proxy.clock import Clock
from farthing.proxy.exchange import CacheStatus, Endpoint, Exchange
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage
from farthing.proxy.usage_drift import Counted, Drift

__all__ = ["DriftSample"]

log = structlog.get_logger("farthing.usage")

_LONGEST_BYTES = 65_536  # some 15 ms of counting
_BETWEEN_S = 1.0
_ID_DIGITS = 4
_COUNTED = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS})
# What is billed beside the texts, by rules that only the provider knows.
_NOT_TEXT = ("tools", "functions", "response_format", "modalities", "audio", "prediction", "n")


@dataclass(slots=True)
class DriftSample:
    """`share`: of answered misses, by the random end of their ids."""

    drift: Drift
    share: float
    tokenizer: Tokenizer
    slow: asyncio.Semaphore
    clock: Clock
    _below: str = ""
    _again_tick: float = float("-inf")

    def __post_init__(self) -> None:
        """The share as what the end of an id must be below; hexadecimal digits are below "g"."""
        share = round(self.share * 16**_ID_DIGITS)
        self._below = f"{share:0{_ID_DIGITS}x}" if share < 16**_ID_DIGITS else "g"

    def wants(self, ex: Exchange) -> bool:
        """Whether this exchange is to be counted; cheap, as it is asked of each."""
        if ex.id[-_ID_DIGITS:] >= self._below:
            return False
        call, body = ex.call, ex.body
        return (
            call is not None
            and body is not None
            and ex.cache in (CacheStatus.MISS, CacheStatus.BYPASS)
            and ex.leads
            and ex.plain
            and ex.endpoint in _COUNTED
            and ex.payload is not None
            and not any(name in ex.payload for name in _NOT_TEXT)
            and ex.body_out is None
            and ex.variant is None
            and call.complete
            and call.status == 200
            and call.usage is not None
            and call.usage.plain
            and not call.earlier
            and call.answer is not None
            and len(body) + len(call.answer) <= _LONGEST_BYTES
            and self.clock.tick_s() >= self._again_tick
            and not self.slow.locked()
            and self.tokenizer.ready(ex.model)
        )

    async def compare(self, ex: Exchange) -> None:
        """Count it off the event loop; say so once where the counts have drifted apart."""
        call = ex.call
        if call is None or call.usage is None:
            return
        self._again_tick = self.clock.tick_s() + _BETWEEN_S
        async with self.slow:
            counted = await asyncio.to_thread(self._count, ex, call.usage, call.answer or b"")
        model = call.model_served or ex.model
        ratio = self.drift.note(model, counted, self.clock.now_s())
        if ratio is not None:
            log.warning(
                "the provider counts tokens otherwise than we do",
                model=model,
                input=None if ratio.tokens_in is None else round(ratio.tokens_in, 4),
                output=None if ratio.tokens_out is None else round(ratio.tokens_out, 4),
                answers=ratio.answers,
            )

    def _count(self, ex: Exchange, theirs: Usage, answer: bytes) -> Counted:
        given = self.tokenizer.count_request(ex.endpoint, ex.payload or {}, ex.model)
        if ex.endpoint is Endpoint.EMBEDDINGS:
            return Counted(given, theirs.tokens_in)
        # Reasoning is billed and not shown: only what was said can be counted here.
        made = self.tokenizer.count_text_out(ex.endpoint, answer, ex.model)
        return Counted(given, theirs.tokens_in, made, theirs.output)
