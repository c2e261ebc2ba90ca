"""What must be done is done, whoever cancels."""

from __future__ import annotations

import asyncio

import pytest

from farthing.proxy.tasks import through


async def test_a_cancellation_waits_until_the_work_is_done() -> None:
    go_on, done = asyncio.Event(), False

    async def work() -> None:
        nonlocal done
        await go_on.wait()
        done = True

    waiting = asyncio.get_running_loop().create_task(through(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert done


async def test_what_the_work_raises_is_raised_cancelled_or_not() -> None:
    go_on = asyncio.Event()

    async def fails() -> None:
        await go_on.wait()
        raise ValueError("no")

    first, second = (asyncio.get_running_loop().create_task(through(fails())) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    go_on.set()
    for one in (first, second):
        with pytest.raises(ValueError, match="no"):
            await one
