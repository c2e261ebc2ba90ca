"""The semantic cache's second stage: a candidate of doubtful score is put to somebody who reads both texts.

Rules of this file:
1. It changes the score that the policy is given, and nothing else: what is proved is proved of the combined score.
2. Who can't be asked now (late, busy, no money, an error) has not judged, and then the candidate is not decided on at
   all: it is neither served nor learnt from, so that a score always means the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

import structlog

from farthing.cache.second_opinion import CrossEncoderOpinion, OpinionUnavailable, SecondOpinion
from farthing.proxy.exchange import Exchange

__all__ = ["CrossEncoderStage", "Said", "SecondStage"]

log = structlog.get_logger("farthing.semantic")
T = TypeVar("T")
_QUEUE = 16


class Said(NamedTuple):
    """The probability that two requests get the same answer; None where nobody judged, and why."""

    probability: float | None
    reason: str = ""


class SecondStage(Protocol):
    """Somebody who can be asked about a pair of texts; what is paid for it is paid for `ex`."""

    async def ask(self, ex: Exchange, text: str, other: str) -> Said:
        """Whether both get the same answer. Bound in time by who asks; a wait that is given up costs the judgement
        nothing."""
        ...


class CrossEncoderStage:
    """A cross-encoder on a thread of its own. Until it is loaded, and where it can't be, it judges nothing."""

    def __init__(self, model: str, build: Callable[[str], SecondOpinion] = CrossEncoderOpinion) -> None:
        self._model, self._build = model, build
        self._executor = ThreadPoolExecutor(1, "second opinion")
        self._opinion: SecondOpinion | None = None
        self._waiting = 0

    async def open(self) -> None:
        """Load the model; what is missing is logged, once."""
        try:
            self._opinion = await self._run(lambda: self._build(self._model))
        except OpinionUnavailable as error:
            log.warning("no second stage: candidates of doubtful score are not served", reason=str(error))

    async def ask(self, ex: Exchange, text: str, other: str) -> Said:
        """See SecondStage."""
        opinion = self._opinion
        if opinion is None:
            return Said(None, "the cross-encoder is not loaded")
        if self._waiting >= _QUEUE:
            return Said(None, "the cross-encoder is busy")
        self._waiting += 1
        try:
            (probability,) = await self._run(lambda: opinion.scores(text, [other]))
        except Exception as error:  # noqa: BLE001 - a model's own trouble costs a hit and no more
            return Said(None, f"the cross-encoder failed: {type(error).__name__}")
        finally:
            self._waiting -= 1
        return Said(probability)

    def close(self) -> None:
        """Let the thread go when it has done what waits; idempotent."""
        self._executor.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
