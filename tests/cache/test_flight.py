"""A flight: one writer, many readers, nobody delayed by a slow one, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from multidict import CIMultiDict

from farthing.cache.flight import CutOff, Flight, Flights, Reader
from farthing.proxy.errors import UpstreamFault
from farthing.proxy.exchange import Call, Head


def flight(limit: int = 1000, *, stream: bool = True) -> Flight:
    return Flight(Call("f"), stream=stream, limit_bytes=limit)


HEAD = Head(200, CIMultiDict())


async def drink(reader: Reader, sips: int | None = None) -> bytes:
    got = b""
    count = 0
    async for frame in reader.frames():
        got += frame.body
        count += 1
        if sips is not None and count >= sips:
            break
    return got


async def soon(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.get_running_loop().create_task(work)
    await asyncio.sleep(0)
    return task


async def test_every_reader_gets_every_byte_also_one_that_joins_late() -> None:
    air = flight()
    early = await soon(drink(air.reader()))
    air.open(HEAD)
    await air.write(b"ab")
    await air.write(b"cd")
    late = await soon(drink(air.reader()))
    await air.write(b"ef")
    air.end()

    assert await early == await late == b"abcdef"
    assert air.body() == b"abcdef"


async def test_the_head_is_awaited_and_a_fault_reaches_everybody() -> None:
    air = flight()
    first, second = air.reader(), air.reader()
    waiting = [await soon(first.head()), await soon(second.head())]
    air.fail(UpstreamFault("gone", phase="connect"))

    for task in waiting:
        with pytest.raises(UpstreamFault, match="gone"):
            await task
    assert not air.joinable


async def test_a_break_comes_after_the_bytes_that_came_before_it() -> None:
    air = flight()
    reader = air.reader()
    air.open(HEAD)
    await air.write(b"half")
    air.fail(UpstreamFault("cut", phase="body"))
    got = b""
    with pytest.raises(UpstreamFault):
        async for frame in reader.frames():
            got += frame.body

    assert got == b"half"


async def test_the_writer_waits_for_a_lone_slow_reader_and_holds_no_more_than_the_buffer() -> None:
    air = flight(limit=10)
    reader = air.reader()
    air.open(HEAD)

    async def pour() -> None:
        for _ in range(100):
            await air.write(b"12345")
        air.end()

    writing = await soon(pour())
    await asyncio.sleep(0.01)
    assert not writing.done()
    assert air.held_bytes <= 15
    assert await drink(reader) == b"12345" * 100
    await writing
    assert air.overflown
    assert air.body() is None
    assert not air.joinable


async def test_a_reader_that_is_behind_alone_is_cut_off_and_the_others_go_on() -> None:
    air = flight(limit=10)
    fast, slow = air.reader(), air.reader()
    air.open(HEAD)
    drinking = await soon(drink(fast))
    for _ in range(50):
        await air.write(b"12345")
        await asyncio.sleep(0)
    air.end()

    assert await drinking == b"12345" * 50
    with pytest.raises(CutOff):
        await drink(slow)


async def test_when_the_last_reader_leaves_the_work_is_cancelled_and_not_before() -> None:
    air = flight()
    air.task = await soon(asyncio.sleep(60))
    first, second = air.reader(), air.reader()
    first.close()
    first.close()
    await asyncio.sleep(0)
    assert not air.task.cancelling()
    second.close()

    with pytest.raises(asyncio.CancelledError):
        await air.task
    assert not air.joinable


async def test_leaving_an_ended_flight_cancels_nothing() -> None:
    air = flight()
    air.task = await soon(asyncio.sleep(0.01))
    reader = air.reader()
    air.open(HEAD)
    air.end()
    reader.close()

    await air.task


def test_streams_join_only_streams_and_whole_answers_join_either() -> None:
    board = Flights()
    stream, whole = flight(stream=True), flight(stream=False)
    board.add("me", "k", stream)

    assert board.find("me", "k", stream=True) is stream
    assert board.find("me", "k", stream=False) is stream
    assert board.find("you", "k", stream=True) is None
    assert board.find("me", "other", stream=True) is None
    board.remove("me", "k", stream)
    board.add("me", "k", whole)
    assert board.find("me", "k", stream=True) is None
    assert board.find("me", "k", stream=False) is whole


def test_an_old_flight_does_not_remove_a_newer_one() -> None:
    board = Flights()
    old, new = flight(), flight()
    board.add("me", "k", old)
    board.add("me", "k", new)
    board.remove("me", "k", old)

    assert board.find("me", "k", stream=True) is new
    board.remove("me", "k", new)
    assert len(board) == 0
