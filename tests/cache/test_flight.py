"""A flight: one writer, many readers, nobody delayed by a slow one, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any

import pytest
from multidict import CIMultiDict

from farthing.cache.flight import CutOff, Flight, Flights, Frame, Reader
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


class Glass:
    """Takes frames until it is full."""

    def __init__(self, full_at: int = 10**9) -> None:
        self.got = b""
        self.full_at = full_at

    def take(self, frame: Frame) -> bool:
        self.got += frame.body
        return len(self.got) < self.full_at


async def test_a_reader_that_has_read_all_is_handed_what_comes_without_a_turn_of_its_own() -> None:
    air, glass = flight(), Glass()
    reader = air.reader()
    air.open(HEAD)
    await air.write(b"a")
    pouring = await soon(reader.pour(glass.take))
    assert glass.got == b"a"
    await air.write(b"b")
    await air.write(b"c")
    assert (glass.got, reader.position) == (b"abc", 3)
    air.end()
    await pouring

    assert await reader.next() is None


async def test_one_that_has_enough_gets_no_more_until_it_asks_again() -> None:
    air, glass = flight(), Glass(full_at=2)
    reader = air.reader()
    pouring = await soon(reader.pour(glass.take))
    for body in (b"a", b"b", b"c"):
        await air.write(body)
    assert glass.got == b"ab"
    await pouring
    air.end()
    glass.full_at = 10
    await reader.pour(glass.take)

    assert glass.got == b"abc"


async def test_what_goes_wrong_with_a_reader_is_its_own_affair() -> None:
    air, other = flight(), Glass()
    bad, good = air.reader(), air.reader()

    def gone(frame: Frame) -> bool:
        raise ConnectionResetError(frame.body.decode())

    broken, pouring = await soon(bad.pour(gone)), await soon(good.pour(other.take))
    await air.write(b"a")
    await air.write(b"b")
    with pytest.raises(ConnectionResetError, match="a"):
        await broken
    air.end()
    await pouring

    assert other.got == b"ab"


async def test_a_reader_that_was_cancelled_is_handed_nothing_more_and_its_leaving_is_noticed() -> None:
    air, glass = flight(), Glass()
    air.task = await soon(asyncio.sleep(60))
    reader = air.reader()
    pouring = await soon(reader.pour(glass.take))
    await air.write(b"a")
    pouring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pouring
    await air.write(b"b")
    assert glass.got == b"a"
    reader.close()

    with pytest.raises(asyncio.CancelledError):
        await air.task


async def test_a_fault_comes_after_what_was_handed_over() -> None:
    air, glass = flight(), Glass()
    reader = air.reader()
    pouring = await soon(reader.pour(glass.take))
    await air.write(b"half")
    air.fail(UpstreamFault("cut", phase="body"))
    await pouring
    with pytest.raises(UpstreamFault):
        await reader.next()

    assert glass.got == b"half"


@pytest.mark.parametrize("seed", range(30))
async def test_however_readers_read_each_gets_every_byte_in_order(seed: int) -> None:
    chance, limit = Random(seed), 40
    air = flight(limit=limit)
    air.open(HEAD)

    async def read(reader: Reader) -> bytes:
        got = Glass()
        while (frame := await reader.next()) is not None:
            got.take(frame)
            if chance.random() < 0.3:
                await asyncio.sleep(0)
            if chance.random() < 0.7:
                got.full_at = len(got.got) + chance.randint(1, 30)
                await reader.pour(got.take)
        return got.got

    reading = [await soon(read(air.reader())) for _ in range(chance.randint(1, 3))]
    sent = [bytes([65 + chance.randrange(26)]) * chance.randint(1, 9) for _ in range(60)]
    for number, body in enumerate(sent):
        await air.write(body)
        if not air.overflown and number < 4 and chance.random() < 0.3:
            reading.append(await soon(read(air.reader())))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        assert air.held_bytes <= limit + 9
    air.end()
    given = [one for one in await asyncio.gather(*reading, return_exceptions=True) if not isinstance(one, CutOff)]

    assert given and set(given) == {b"".join(sent)}
