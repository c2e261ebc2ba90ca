"""State that replicas agree upon, over real servers: whatever is cut off, all have the same in the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from farthing.cache.store_redis import RedisStore
from farthing.proxy.agreed import Agreed
from farthing.proxy.agreed_pieces import PIECE_BYTES
from farthing.proxy.clock import SystemClock
from tests.fakes.valkey import ValkeyProcess
from tests.fakes.valkey_many import ValkeyCluster

NEVER_S = 1e9
SMALL = 10  # bytes


class Sums:
    """A machine that minds the order: what was said last, and how much was said in all. `seen`: own events that hadn't
    come back when it was told where all stand."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.seen: list[list[Any]] = []
        self.own = 0

    def apply(self, event: Any, *, own: bool) -> None:
        self.said.append(event)
        self.own += own

    def slices(self) -> Iterator[Any]:
        for at in range(0, len(self.said), 7):
            yield self.said[at : at + 7]

    async def put(self, slices: Sequence[Any]) -> None:
        self.said = [one for part in slices for one in part]

    async def stands(self, slices: Sequence[Any], waiting: Callable[[], list[Any]]) -> None:
        self.seen.append(waiting())


@asynccontextmanager
async def replica(
    url: str, name: str, *, mark_every_s: float = NEVER_S, piece_bytes: int = SMALL, deadline_ms: float = 2_000
) -> AsyncIterator[tuple[Agreed, Sums]]:
    """One that is driven step by step. States lie in several pieces, unless told otherwise."""
    store = RedisStore(url, deadline_ms=deadline_ms, clock=SystemClock(), threshold=2, pause_s=0.02)
    machine = Sums()
    agreed = Agreed(store, "t", machine, teller=name, noise=name, clock=SystemClock(), mark_every_s=mark_every_s,
                    piece_bytes=piece_bytes)  # fmt: skip
    try:
        yield agreed, machine
    finally:
        await store.close()


async def reach(*all: Agreed, times: int = 2) -> None:
    """Let them all have what the others said; a server that has just come back is asked until it answers."""
    for _ in range(times):
        for one in all:
            async with asyncio.timeout(30):
                while await one.exchange() or not one.state.reached:
                    await asyncio.sleep(0.01)


@pytest.fixture
def server() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as running:
        yield running


async def test_all_apply_the_same_in_the_same_order(server: ValkeyProcess) -> None:
    async with (
        replica(server.url, "a", piece_bytes=PIECE_BYTES) as (one, here),
        replica(server.url, "b", piece_bytes=PIECE_BYTES) as (other, there),
        replica(server.url, "c", piece_bytes=PIECE_BYTES) as (third, late),
    ):
        await reach(one, other)
        for number in range(300):
            (one if number % 3 else other).tell(["n", number])
            if number % 50 == 0:
                await reach(one, times=1)
        await reach(one, other)
        assert len(here.said) == 300
        assert here.said == there.said
        assert (here.own, there.own) == (200, 100)
        await reach(third)
        assert late.said == here.said


async def test_over_a_cluster(tmp_path: object) -> None:
    with ValkeyCluster(replicas=False) as cluster:
        async with (
            replica(cluster.url, "a", mark_every_s=0.0) as (one, here),
            replica(cluster.url, "b") as (other, there),
        ):
            await reach(one, other)
            one.tell(1)
            other.tell(2)
            await reach(one, other)
            assert sorted(here.said) == [1, 2]
            assert here.said == there.said


async def test_who_comes_later_takes_the_state_and_the_log_is_cut(server: ValkeyProcess) -> None:
    async with replica(server.url, "a", mark_every_s=0.0) as (one, here):
        for number in range(40):
            one.tell(number)
            await reach(one, times=1)
        assert int(server.command("XLEN {farthing:a:t}:log").strip(b":\r\n")) < 10
        async with replica(server.url, "b") as (other, there):
            await reach(other)
            assert there.said == here.said == list(range(40))
            assert other.state.taken == 1


async def test_who_was_away_for_longer_than_the_log_reaches_back_takes_the_state(server: ValkeyProcess) -> None:
    async with replica(server.url, "a", mark_every_s=0.0) as (one, here), replica(server.url, "b") as (other, there):
        await reach(one, other)
        other.tell("mine")
        for number in range(40):
            one.tell(number)
            await reach(one, times=1)
        await reach(other, one)
        assert there.said == here.said == [*range(40), "mine"]
        assert other.state.taken == 2
        assert there.seen[-1] in ([], ["mine"])


async def test_what_was_told_while_the_server_was_away_comes_once(server: ValkeyProcess) -> None:
    async with replica(server.url, "a") as (one, here), replica(server.url, "b") as (other, there):
        await reach(one, other)
        server.freeze()
        one.tell("while away")
        asking = asyncio.create_task(one.exchange())
        await asyncio.sleep(0.1)
        asking.cancel()  # sent, perhaps; it is told again
        server.thaw()
        await reach(one, other)
        assert here.said == there.said == ["while away"]


async def test_a_server_that_lost_everything_is_given_what_was_known(server: ValkeyProcess) -> None:
    async with replica(server.url, "a") as (one, here), replica(server.url, "b") as (other, there):
        await reach(one, other)
        one.tell(1)
        other.tell(2)
        await reach(one, other)
        before = list(here.said)
        server.kill()
        one.tell(3)
        await one.exchange()
        assert not one.state.reached
        server.start()
        await reach(one, other)
        other.tell(4)
        await reach(other, one)
        assert here.said == there.said == [*before, 3, 4]


async def test_one_that_differs_takes_the_state_that_is_kept(server: ValkeyProcess) -> None:
    async with replica(server.url, "a", mark_every_s=0.0) as (one, here), replica(server.url, "b") as (other, there):
        await reach(one, other)
        one.tell(1)
        await reach(one, other)
        there.said.append("what nobody said")
        one.tell(2)
        await reach(one, other, times=3)
        assert there.said == here.said == [1, 2]
        assert other.state.differed == 1


async def test_who_joins_an_emptied_server_waits_for_those_who_know(server: ValkeyProcess) -> None:
    async with replica(server.url, "a") as (one, here):
        one.tell("known")
        await reach(one)
        server.command("FLUSHALL")
        async with replica(server.url, "b") as (other, there):
            joining = asyncio.create_task(other.exchange())
            await reach(one)
            await joining
            await reach(other, one)
            assert there.said == here.said == ["known"]


async def test_what_cant_wait_any_longer_is_counted(server: ValkeyProcess) -> None:
    server.kill()
    async with replica(server.url, "a") as (one, _):
        for number in range(20_001):
            one.tell(number)
        assert one.full
        assert (one.waiting, one.state.dropped) == (20_000, 1)


@pytest.mark.parametrize("piece_bytes", [SMALL, PIECE_BYTES])
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_all_have_the_same(server: ValkeyProcess, seed: int, piece_bytes: int) -> None:
    """Tells, exchanges, marks, cut-off exchanges and flushes in any order; nothing is there twice."""
    chance = random.Random(seed)
    async with (
        replica(server.url, f"a{seed}", mark_every_s=0.0, piece_bytes=piece_bytes) as (one, here),
        replica(server.url, f"b{seed}", mark_every_s=0.0, piece_bytes=piece_bytes) as (other, there),
    ):
        all, told = (one, other), 0
        await reach(*all)
        for _ in range(120):
            who = chance.choice(all)
            match chance.choice(("tell", "tell", "tell", "exchange", "exchange", "cut")):
                case "tell":
                    told += 1
                    who.tell(told)
                case "exchange":
                    await who.exchange()
                case "cut":
                    asking = asyncio.create_task(who.exchange())
                    await asyncio.sleep(chance.random() * 0.002)
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)
        await reach(*all, times=3)
        assert here.said == there.said
        assert sorted(here.said) == list(range(1, told + 1))


async def test_who_marked_and_was_away_keeps_nothing_where_a_later_mark_is_kept(server: ValkeyProcess) -> None:
    """Else the kept state would be older than what the log reaches back to, and nobody could join any more."""
    async with replica(server.url, "a") as (one, here), replica(server.url, "b") as (other, there):
        await reach(one, other)
        one.tell(1)
        await reach(one, other)
        about = "{farthing:a:t}:about"
        server.command("XADD {farthing:a:t}:log * m a")  # its mark, as if it had stalled there
        server.command(f"HSET {about} last {last_of(server)}")
        await reach(other)
        other.tell(2)
        await other.exchange()
        server.command("XADD {farthing:a:t}:log * m b")
        server.command(f"HSET {about} last {last_of(server)}")
        await reach(other)
        kept = server.command(f"HGET {about} at")
        await reach(one, other)
        assert server.command(f"HGET {about} at") == kept
        async with replica(server.url, "c") as (third, late):
            await reach(third)
            assert third.state.current
            assert late.said == here.said == there.said == [1, 2]


@pytest.mark.parametrize("lost", ["log", "state", "about"])
async def test_a_server_that_lost_a_part_is_given_all_of_it(server: ValkeyProcess, lost: str) -> None:
    async with replica(server.url, "a") as (one, here), replica(server.url, "b") as (other, there):
        await reach(one, other)
        for number in range(3):
            one.tell(number)
        await reach(one, other)
        server.command(f"DEL {{farthing:a:t}}:{lost}")
        async with replica(server.url, "c") as (third, late):
            await asyncio.gather(*(reach(each) for each in (one, other, third)))
            third.tell(3)
            await reach(third, one, other)
            assert here.said == there.said == late.said == [0, 1, 2, 3]


async def test_a_damaged_state_is_replaced(server: ValkeyProcess) -> None:
    async with replica(server.url, "a") as (one, here):
        one.tell("known")
        await reach(one)
        server.command("SET {farthing:a:t}:state damaged")
        async with replica(server.url, "b") as (other, there):
            assert not await other.exchange()
            assert not other.state.reached
            await reach(other)
            assert other.state.current
            await reach(one, other)
            assert here.said == there.said


async def test_all_of_what_was_begun_goes_by_itself(server: ValkeyProcess) -> None:
    """Nobody tells anything any more of what has ended meanwhile."""
    async with replica(server.url, "a") as (one, _):
        await reach(one)
        one.tell(1)
        for _ in range(2):
            ours = server.command("KEYS {farthing:a:t}:*").split(b"\r\n")[2::2]
            assert len(ours) == (2 if not one.state.applied else 4)
            assert all(int(server.command(f"TTL {key.decode()}")[1:]) > 0 for key in ours)
            await reach(one)


async def test_what_had_come_back_and_is_read_again_is_no_longer_its_own(server: ValkeyProcess) -> None:
    """A view that is made anew from the kept state hasn't taken it in yet."""
    async with replica(server.url, "a", mark_every_s=0.0) as (one, here), replica(server.url, "b") as (other, there):
        await reach(one, other)
        one.tell(1)
        await reach(one, other)
        other.tell(2)
        await reach(other, one, times=1)
        owned = there.own
        there.said.append("what nobody said")
        one.tell(3)
        await reach(one, other, times=3)
        assert there.said == here.said
        assert (there.own, there.said.count(2)) == (owned, 1)


def last_of(server: ValkeyProcess) -> str:
    """The id of the log's last entry."""
    return server.command("XREVRANGE {farthing:a:t}:log + - COUNT 1").split(b"\r\n")[3].decode()
