"""Deadlines that are looked at together: they pass, they move, and they don't swallow another's cancellation."""

from __future__ import annotations

import asyncio

import pytest

from farthing.proxy.deadlines import Deadlines


async def slept(deadlines: Deadlines, limit_s: float, seconds: float) -> str:
    deadline = deadlines.begin(limit_s)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if not deadline.passed_alone():
            raise
        return "late"
    finally:
        deadlines.end(deadline)
    return "in time"


async def test_what_is_overdue_is_cancelled_and_goes_on() -> None:
    deadlines = Deadlines(every_s=0.01)
    async with asyncio.timeout(2):
        assert await asyncio.gather(slept(deadlines, 0.03, 60), slept(deadlines, 5, 0.06)) == ["late", "in time"]
        assert await slept(deadlines, 0.01, 60) == "late"


async def test_a_deadline_may_move() -> None:
    deadlines = Deadlines(every_s=0.01)
    deadline = deadlines.begin(0.02)
    for _ in range(5):
        deadline.due = deadline.now() + 0.2
        await asyncio.sleep(0.02)
    deadlines.end(deadline)
    assert not deadline.passed


async def test_another_reason_to_end_is_not_taken_for_the_deadline() -> None:
    deadlines = Deadlines(every_s=0.01)
    task = asyncio.get_running_loop().create_task(slept(deadlines, 0.02, 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_both_at_once_end_the_task() -> None:
    deadlines = Deadlines(every_s=0.01)

    async def work() -> str:
        deadline = deadlines.begin(0.0)
        try:
            await asyncio.sleep(0.05)
            while not deadline.passed:
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            if not deadline.passed_alone():
                raise
        return "went on"

    task = asyncio.get_running_loop().create_task(work())
    await asyncio.wait([task])
    assert task.cancelled()


async def test_nothing_ticks_while_nothing_runs() -> None:
    deadlines = Deadlines(every_s=0.01)
    deadlines.end(deadlines.begin(60))
    await asyncio.sleep(0.05)
    assert deadlines._timer is None
