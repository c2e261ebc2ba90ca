"""A cross-encoder's place in the pipeline: loaded aside, bounded, and silent where it can't tell."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from structlog.testing import capture_logs

from farthing.cache.second_opinion import OpinionUnavailable, SecondOpinion
from farthing.proxy.second_stage import CrossEncoderStage, Said

EX: Any = None  # it costs nothing, so it doesn't matter whose request it is


class Opinion:
    """Says how long the candidate is, when it may."""

    name = "length"

    def __init__(self, model: str) -> None:
        self.may = threading.Event()
        self.may.set()

    def scores(self, text: str, candidates: Sequence[str]) -> list[float]:
        self.may.wait(5)
        return [1 / len(one) for one in candidates]


async def test_it_judges_once_it_is_loaded() -> None:
    stage = CrossEncoderStage("m", Opinion)
    assert (await stage.ask(EX, "a", "bb")).probability is None
    await stage.open()
    assert await stage.ask(EX, "a", "bb") == Said(0.5)
    stage.close()
    assert (await stage.ask(EX, "a", "bb")).probability is None


async def test_what_is_missing_is_said_once_and_then_nothing_is_judged() -> None:
    def missing(model: str) -> SecondOpinion:
        raise OpinionUnavailable(f"no {model} here")

    stage = CrossEncoderStage("m", missing)
    with capture_logs() as logs:
        await stage.open()
    assert [entry["reason"] for entry in logs] == ["no m here"]
    assert (await stage.ask(EX, "a", "b")).reason == "the cross-encoder is not loaded"
    stage.close()


async def test_its_own_trouble_is_no_verdict() -> None:
    stage = CrossEncoderStage("m", Opinion)
    await stage.open()
    assert await stage.ask(EX, "a", "") == Said(None, "the cross-encoder failed: ZeroDivisionError")
    stage.close()


async def test_beyond_a_small_queue_it_refuses() -> None:
    opinion = Opinion("m")
    opinion.may.clear()
    stage = CrossEncoderStage("m", lambda model: opinion)
    await stage.open()
    waiting = [asyncio.create_task(stage.ask(EX, "a", "b")) for _ in range(16)]
    await asyncio.sleep(0)
    assert (await stage.ask(EX, "a", "b")).reason == "the cross-encoder is busy"
    opinion.may.set()
    assert await asyncio.gather(*waiting) == [Said(1.0)] * 16
    assert await stage.ask(EX, "a", "b") == Said(1.0)
    stage.close()
