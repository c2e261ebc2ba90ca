"""Counts a few answers a second time, to see whether the provider counts as we do (usage_drift.py).

Rules of this file: after the answer has gone, in a thread, one at a time and at most one a second; never what is long,
nor with a tokenizer whose ranks would have to be loaded first.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

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
_EVERY_S = 90.0  # of one model: of a hundred misses an hour some thirty are counted, and an alarm needs twenty
_MOST_MODELS = 50
_ID_DIGITS = 4
_COUNTED = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS})
# What is billed beside the texts, by rules that only the provider knows.
_NOT_TEXT = ("tools", "functions", "response_format", "modalities", "audio", "prediction", "n")


@dataclass(slots=True)
class DriftSample:
    """`share`: of answered misses, by the random end of their ids; and of each model one every `_EVERY_S`."""

    drift: Drift
    share: float
    tokenizer: Tokenizer
    slow: asyncio.Semaphore
    clock: Clock
    _below: str = ""
    _again_tick: float = float("-inf")
    _due: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The share as what the end of an id must be below; hexadecimal digits are below "g"."""
        share = round(self.share * 16**_ID_DIGITS)
        self._below = f"{share:0{_ID_DIGITS}x}" if share < 16**_ID_DIGITS else "g"

    def wants(self, ex: Exchange) -> bool:
        """Whether this exchange is to be counted; cheap, as it is asked of each."""
        if ex.id[-_ID_DIGITS:] >= self._below and not self._is_due(ex.model):
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

    def _is_due(self, model: str) -> bool:
        due = self._due.get(model)
        return self.share > 0 and (len(self._due) < _MOST_MODELS if due is None else self.clock.tick_s() >= due)

    def _taken(self, model: str) -> None:
        """One of the model is counted now; models that haven't come for an hour make room."""
        now_tick = self.clock.tick_s()
        self._again_tick = now_tick + _BETWEEN_S
        if model not in self._due and len(self._due) >= _MOST_MODELS:
            self._due = {name: due for name, due in self._due.items() if now_tick - due < self.drift.window_s}
        if model in self._due or len(self._due) < _MOST_MODELS:
            self._due[model] = now_tick + _EVERY_S

    async def compare(self, ex: Exchange) -> None:
        """Count it off the event loop; say so once where the counts have drifted apart."""
        call = ex.call
        if call is None or call.usage is None:
            return
        self._taken(ex.model)
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
        given = self.tokenizer.of(ex.tenant).count_request(ex.endpoint, ex.payload or {}, ex.model)
        if ex.endpoint is Endpoint.EMBEDDINGS:
            return Counted(given, theirs.tokens_in)
        # Reasoning is billed and not shown: only what was said can be counted here.
        made = self.tokenizer.of(ex.tenant).count_text_out(ex.endpoint, answer, ex.model)
        return Counted(given, theirs.tokens_in, made, theirs.output)
