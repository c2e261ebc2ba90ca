"""Large states that replicas agree upon: in pieces over real servers, whatever becomes of some of them on the way."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from farthing.proxy.agreed import Agreed
from farthing.proxy.agreed_wire import LOOK, PART, PIECE
from farthing.proxy.errors import StoreFault
from tests.chaos.link import Link
from tests.fakes.valkey import ValkeyProcess, free_port
from tests.proxy.test_agreed import SMALL, reach, replica, server

__all__ = ["server"]

TAG = "{farthing:a:t}"
DEADLINE_MS = 1_000
SLOW_S = 0.1  # for each 64 KiB and each way
LARGE = 850_000  # bytes: thirteen times as long


class Watched:
    """What one replica asks of the server, by script. `first`: is awaited before a script runs."""

    def __init__(self, agreed: Agreed) -> None:
        self.asked: Counter[str] = Counter()
        self.first: dict[str, Callable[[], Awaitable[None]]] = {}
        self._eval = agreed._eval
        agreed._eval = self._run  # type: ignore[method-assign]
        agreed._pieces._eval = self._run

    async def _run(self, script: str, keys: Any, *values: object, kind: str = "write") -> Any:
        if script in self.first:
            await self.first[script]()
        self.asked[script] += 1
        return await self._eval(script, keys, *values, kind=kind)


def names(server: ValkeyProcess) -> list[str]:
    """What is on the server of the state, without the numbers of tellers."""
    found = server.command(f"KEYS {TAG}:*").split(b"\r\n")[2::2]
    return sorted(name.decode().removeprefix(f"{TAG}:") for name in found if b":t:" not in name)


def said(count: int) -> list[str]:
    return [f"{number:04}-{random.Random(number).randbytes(9).hex()}" for number in range(count)]


async def fails() -> None:
    raise StoreFault("for once")


async def test_a_state_lies_in_pieces_and_only_what_is_whole_is_kept(server: ValkeyProcess) -> None:
    async with replica(server.url, "a", mark_every_s=0.0) as (one, here), replica(server.url, "b") as (other, there):
        for word in said(9):
            one.tell(word)
            await reach(one, times=1)
        pieces = int(server.command(f"HLEN {TAG}:state")[1:])
        lengths = {int(server.command(f"HSTRLEN {TAG}:state {number}")[1:]) for number in range(pieces - 1)}
        assert pieces > 5 and lengths == {SMALL}
        assert names(server) == ["about", "before", "log", "state"]
        assert 0 < int(server.command(f"TTL {TAG}:before")[1:]) <= 600
        await reach(other)
        assert there.said == here.said == said(9)


async def test_who_is_cut_off_half_way_goes_on_there_and_what_is_left_behind_goes_by_itself(
    server: ValkeyProcess,
) -> None:
    async with replica(server.url, "a", mark_every_s=0.0) as (one, here), replica(server.url, "b") as (other, there):
        await reach(one, other)
        watched = Watched(one)
        for word in said(9):
            one.tell(word)
        await one.exchange()
        kept = server.command(f"HMGET {TAG}:about at digest")
        while watched.asked[PIECE] < 3:
            assert await one.exchange()
        watched.first[PIECE] = fails
        assert not await one.exchange() and not one.state.reached
        one.tell("meanwhile")
        assert not await one.exchange() and not one.waiting, "what is told goes out all the same"
        (coming,) = (name for name in names(server) if name.startswith("c:"))
        assert int(server.command(f"HLEN {TAG}:{coming}")[1:]) == 3
        assert 0 < int(server.command(f"TTL {TAG}:{coming}")[1:]) <= 60
        assert server.command(f"HMGET {TAG}:about at digest") == kept
        await reach(other)
        assert there.said == [*said(9), "meanwhile"], "the others have had it from the log"

        del watched.first[PIECE]
        while server.command(f"HMGET {TAG}:about at digest") == kept:
            await one.exchange()
        assert watched.asked[PIECE] == int(server.command(f"HLEN {TAG}:state")[1:]), "each piece was sent once"
        await reach(one, other)
        async with replica(server.url, "c") as (third, late):
            await reach(third)
            assert late.said == here.said == there.said


async def test_pieces_that_were_lost_on_the_way_make_no_state(server: ValkeyProcess) -> None:
    async with replica(server.url, "a", mark_every_s=0.0) as (one, here), replica(server.url, "b") as (other, there):
        await reach(one)
        watched = Watched(one)
        kept = server.command(f"HMGET {TAG}:about at digest")
        one.tell(said(9))
        while watched.asked[PIECE] < 3:
            await one.exchange()
        (coming,) = (name for name in names(server) if name.startswith("c:"))
        server.command(f"UNLINK {TAG}:{coming}")
        while await one.exchange():
            pass
        assert server.command(f"HMGET {TAG}:about at digest") == kept
        one.tell("later")  # and the next mark keeps it
        await reach(one)
        assert server.command(f"HMGET {TAG}:about at digest") != kept
        await reach(other)
        assert there.said == here.said == [said(9), "later"]


async def test_who_reads_reads_on_while_another_one_is_kept_and_looks_again_after_the_next(
    server: ValkeyProcess,
) -> None:
    async with replica(server.url, "a", mark_every_s=0.0) as (one, here):
        one.tell(said(9))
        await reach(one)
        for times, looks in ((1, 1), (2, 2), (5, 2)):
            async with replica(server.url, f"b{times}") as (other, there):
                watched = Watched(other)

                async def meanwhile(times: int = times, watched: Watched = watched) -> None:
                    if watched.asked[PART] == 3:
                        watched.first.clear()
                        for number in range(times):
                            kept = server.command(f"HGET {TAG}:about at")
                            one.tell([times, number])
                            while server.command(f"HGET {TAG}:about at") == kept:
                                await one.exchange()

                watched.first[PART] = meanwhile
                await reach(other)
                assert there.said == here.said
                assert (watched.asked[LOOK], other.state.taken) == (looks, 1)


async def test_a_piece_that_is_gone_makes_it_be_begun_anew(server: ValkeyProcess) -> None:
    async with replica(server.url, "a") as (one, here), replica(server.url, "b") as (other, there):
        one.tell("known")
        await reach(one)
        server.command(f"HDEL {TAG}:state 1")
        assert int(server.command(f"HSET {TAG}:state x y")[1:]) == 1  # as many as before
        assert not await other.exchange()
        await reach(one, other)
        assert other.state.current and here.said == there.said


async def test_who_knows_nothing_waits_for_who_is_writing(server: ValkeyProcess) -> None:
    """However long that takes: what takes long to write is much."""
    go_on = asyncio.Event()
    async with replica(server.url, "a") as (one, here), replica(server.url, "b") as (other, there):
        one.tell("known")
        await reach(one)
        server.command("FLUSHALL")
        writes, looks = Watched(one), Watched(other)

        async def held() -> None:
            if writes.asked[PIECE]:
                await go_on.wait()

        writes.first[PIECE] = held
        writing = asyncio.create_task(one.exchange())
        async with asyncio.timeout(30):
            while "claim" not in names(server):
                await asyncio.sleep(0.01)
            joining = asyncio.create_task(other.exchange())
            while looks.asked[LOOK] < 8:
                await asyncio.sleep(0.01)
            assert not looks.asked[PIECE] and "about" not in names(server)
            go_on.set()
            await asyncio.gather(writing, joining)
        await reach(one, other)
        assert there.said == here.said == ["known"]
        assert names(server) == ["about", "state"]


async def test_who_differs_takes_what_is_kept_though_it_was_long_on_its_way(server: ValkeyProcess) -> None:
    async with replica(server.url, "a", mark_every_s=0.0) as (one, here), replica(server.url, "b") as (other, there):
        await reach(one, other)
        there.said.append("what nobody said")
        watched = Watched(one)
        watched.first[PIECE] = fails
        for number in range(3):  # marks pass meanwhile
            one.tell(number)
            for _ in range(3):
                await one.exchange()
            await reach(other, times=1)
        del watched.first[PIECE]
        await reach(one, other, times=3)
        assert there.said == here.said == [0, 1, 2]
        assert other.state.differed == 1


@pytest.mark.parametrize(
    ("piece_bytes", "passes"),
    [(4 * LARGE, False), pytest.param(65_536, True, marks=pytest.mark.long)],  # as of a state, below
)
async def test_over_a_slow_link_a_long_log_passes_a_little_at_a_time(
    server: ValkeyProcess, piece_bytes: int, passes: bool
) -> None:
    """However many events wait here, or there, more of them than a command may carry in its time."""
    link = Link(free_port(), server.port)
    await link.listen()
    url = f"redis://127.0.0.1:{link.port}/0"
    events = [random.Random(number).randbytes(28_000).hex() for number in range(20)]  # 1.1 MB
    try:
        async with (
            replica(server.url, "a", piece_bytes=65_536) as (one, here),
            replica(url, "b", piece_bytes=piece_bytes, deadline_ms=DEADLINE_MS) as (other, there),
        ):
            await reach(one, other)
            await link.become("slow", SLOW_S)
            (one if passes else other).tell("first")
            for number, event in enumerate(events):
                (one if number % 2 and passes else other).tell(event)
            await reach(one, times=1)
            if not passes:
                assert not await other.exchange() and not other.state.reached
                return
            async with asyncio.timeout(120):
                await reach(other, one, other, times=1)
            assert there.said == here.said
            assert sorted(here.said) == sorted(["first", *events])
    finally:
        await link.become("cut", 0.0)


@pytest.mark.parametrize(("piece_bytes", "passes"), [(2 * LARGE, False), (65_536, True)])
async def test_over_a_slow_link_a_large_state_passes_in_pieces(
    server: ValkeyProcess, piece_bytes: int, passes: bool
) -> None:
    """The link alone takes longer for the whole than a command may."""
    link = Link(free_port(), server.port)
    await link.listen()
    url = f"redis://127.0.0.1:{link.port}/0"
    text = random.Random(7).randbytes(LARGE).hex()  # a half of it is left, compressed
    try:
        async with replica(url, "a", piece_bytes=piece_bytes, deadline_ms=DEADLINE_MS) as (one, here):
            here.said = [text]
            await link.become("slow", SLOW_S)
            if not passes:
                assert not await one.exchange()
                assert not one.state.reached and "about" not in names(server)
                return
            async with asyncio.timeout(120):
                await reach(one, times=1)
            async with replica(url, "b", piece_bytes=piece_bytes, deadline_ms=DEADLINE_MS) as (other, there):
                async with asyncio.timeout(120):
                    await reach(other, times=1)
                assert there.said == here.said
    finally:
        await link.become("cut", 0.0)
