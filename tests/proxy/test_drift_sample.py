"""Which answers are counted a second time, and what comes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from multidict import CIMultiDict
from structlog.testing import capture_logs

from farthing.proxy.clock import FakeClock
from farthing.proxy.drift_sample import DriftSample
from farthing.proxy.exchange import CacheStatus, Exchange, Head
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage
from farthing.proxy.usage_drift import Drift
from tests.proxy.test_account import exchange

TEXT = "The quick brown fox jumps over the lazy dog. " * 20
ANSWER = orjson.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}}]})


def answered(tokens_in: int = 208, tokens_out: int = 201, **changes: Any) -> Exchange:
    ex = exchange()
    ex.id = "far-0000ffff"
    ex.payload = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": TEXT}]}
    ex.body, ex.plain, ex.model, ex.stream = orjson.dumps(ex.payload), True, "gpt-4o-mini", False
    call = ex.call
    assert call is not None
    call.usage, call.model_served = Usage(fresh=tokens_in, output=tokens_out), "gpt-4o-mini"
    call.answer, call.complete, call.head = ANSWER, True, Head(200, CIMultiDict())
    for name, value in changes.items():
        setattr(call if hasattr(call, name) and not hasattr(ex, name) else ex, name, value)
    return ex


def sample(share: float = 1.0, *, ready: bool = True) -> tuple[DriftSample, FakeClock]:
    tokenizer, clock = Tokenizer(), FakeClock()
    if ready:
        tokenizer.count("x", "gpt-4o-mini")
    return DriftSample(Drift(), share, tokenizer, asyncio.Semaphore(2), clock), clock


@pytest.mark.parametrize(
    "changes",
    [
        {"cache": CacheStatus.HIT_EXACT},
        {"leads": False},
        {"plain": False},
        {"payload": {"messages": [], "tools": []}},
        {"body_out": b"{}"},
        {"complete": False},
        {"usage": None},
        {"usage": Usage(fresh=1, audio_in=1)},
        {"answer": None},
        {"body": b"x" * 70_000},
        {"model": "gpt-4"},  # its ranks aren't loaded
        {"call": None},
    ],
)
def test_what_is_never_counted(changes: dict[str, Any]) -> None:
    on, _ = sample()
    assert on.wants(answered())
    assert not on.wants(answered(**changes))


def test_a_share_of_ids_and_one_a_second() -> None:
    on, clock = sample(0.25)
    asyncio.run(on.compare(answered()))
    clock.mono_s += 2.0
    ids = [f"far-0{n:04x}" for n in range(16**4)]
    taken = 0
    for one in ids[::16]:
        ex = answered()
        ex.id = one
        taken += on.wants(ex)
    assert taken == 16**4 // 16 // 4
    every, clock = sample(1.0)
    asyncio.run(every.compare(answered()))
    assert not every.wants(answered())
    clock.mono_s += 1.0
    assert every.wants(answered())
    none, _ = sample(0.0)
    assert not none.wants(answered())


@pytest.mark.parametrize("misses_an_hour", [100, 2_000])
def test_an_hour_of_a_small_model_is_enough_for_an_alarm(misses_an_hour: int) -> None:
    """At the share that is the default a hundred answers would give one."""
    on, clock = sample(0.01)
    counted = 0
    with capture_logs() as logs:
        for n in range(misses_an_hour):
            ex = answered(tokens_out=260)
            ex.id = f"far-0000{n * 2654435761 % 16**4:04x}"
            if on.wants(ex):
                asyncio.run(on.compare(ex))
                counted += 1
            clock.mono_s += 3600 / misses_an_hour
            clock.wall_s += 3600 / misses_an_hour
    assert [entry["event"] for entry in logs] == ["the provider counts tokens otherwise than we do"]
    assert 20 <= counted <= 3600 / 90 + misses_an_hour * 0.015


def test_many_models_are_no_burden() -> None:
    on, clock = sample(0.01)
    for n in range(200):
        on._taken(f"m{n}")
        clock.mono_s += 1.0
    assert len(on._due) == 50
    assert not on._is_due("another")
    clock.mono_s += 4000.0
    on._taken("another")
    assert [*on._due] == ["another"]


def test_no_ranks_are_loaded_for_it() -> None:
    on, _ = sample(ready=False)
    assert not on.wants(answered())


def test_a_provider_that_counts_as_we_do_and_one_that_does_not() -> None:
    on, clock = sample()
    for _ in range(25):
        asyncio.run(on.compare(answered()))
    ratio = on.drift.ratios(clock.now_s())["gpt-4o-mini"]
    assert ratio.answers == 25
    assert not ratio.alarm, ratio
    with capture_logs() as logs:
        for _ in range(25):
            asyncio.run(on.compare(answered(tokens_out=220)))
    assert [(log["model"], log["log_level"]) for log in logs] == [("gpt-4o-mini", "warning")]
    assert on.drift.ratios(clock.now_s())["gpt-4o-mini"].alarm
