"""One promise about money and rates, kept in this process, over a file that several have open and a real Valkey."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import TypeVar

import pytest

from farthing.cache.store_redis import RedisStore
from farthing.policies.bucket import Rate, Take
from farthing.policies.budget import Budget, Moved, Subject, Want
from farthing.proxy.budgets import Accounts, Reserved
from farthing.proxy.budgets_local import LocalAccounts
from farthing.proxy.budgets_redis import RedisAccounts
from farthing.proxy.budgets_shared import SharedAccounts
from farthing.proxy.clock import FakeClock
from farthing.proxy.errors import StoreFault
from farthing.proxy.tasks import TaskGroup
from tests.fakes.valkey import ValkeyProcess

T = TypeVar("T")
ALL = Subject("all")
DOLLAR = 10**12
DAY_S = 86_400


async def now(answer: T | Awaitable[T]) -> T:
    return await answer if inspect.isawaitable(answer) else answer


class Bench:
    """Accounts of one kind, and others like them over the same state: replicas, or what starts after a stop."""

    def __init__(self, kind: str, path: Path, clock: FakeClock, valkey: ValkeyProcess, stack: AsyncExitStack) -> None:
        self.kind, self.path, self.clock, self.valkey, self.stack = kind, path, clock, valkey, stack
        self.tasks = TaskGroup()
        self.moved: list[Moved] = []
        self.limit = DOLLAR

    async def another(self) -> Accounts:
        if self.kind == "local":
            accounts: Accounts = LocalAccounts(self.path, self.clock, self.tasks.spawn)
        elif self.kind == "shared":
            spawn = self.tasks.spawn
            accounts = SharedAccounts(self.path, self.clock, spawn, first=False, hold_s=100.0, pauses_s=(0.01,))
        else:
            server = RedisStore(self.valkey.url, deadline_ms=5000, clock=self.clock)
            self.stack.push_async_callback(server.close)
            accounts = RedisAccounts(
                server, clock=self.clock, spawn=self.tasks.spawn, hold_s=100.0, pauses_s=(0.01, 0.01)
            )
        self.stack.push_async_callback(accounts.close)
        return accounts

    def want(self, account: str = "a", *, hard: bool = True, limit: int | None = None) -> Want:
        budget = Budget(account, self.limit if limit is None else limit, "day", ALL, hard)
        return Want(account, "", int(self.clock.now_s()) + 86_400, budget)

    async def reserve(self, accounts: Accounts, hold: str, pico: int, *wants: Want) -> Reserved:
        return await now(accounts.reserve(hold, wants or (self.want(),), pico, self.clock.now_s()))

    async def settle(self, accounts: Accounts, hold: str, pico: int, *wants: Want, reserved: bool = True) -> None:
        accounts.settle(hold, wants or (self.want(),), pico, self.moved.extend, reserved=reserved)
        await self.settled()

    async def settled(self) -> None:
        while len(self.tasks):
            await asyncio.sleep(0.01)

    async def standing(self, accounts: Accounts) -> dict[str, tuple[int, int]]:
        return {one.account: (one.spent, one.held) for one in await accounts.standing(self.clock.now_s())}


@pytest.fixture(params=["local", "shared", "redis"])
async def bench(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock, valkey: ValkeyProcess
) -> AsyncIterator[Bench]:
    if request.param == "redis":
        valkey.command("FLUSHALL")
    async with AsyncExitStack() as stack:
        made = Bench(request.param, tmp_path / "spend.db", clock, valkey, stack)
        yield made
        await made.tasks.drain(5)


async def test_reserves_refuses_and_settles(bench: Bench) -> None:
    one = await bench.another()

    assert await bench.reserve(one, "h1", 6 * DOLLAR // 10) == Reserved()
    assert await bench.reserve(one, "h2", 5 * DOLLAR // 10) == Reserved(0, 0, 6 * DOLLAR // 10)
    await bench.settle(one, "h1", 2 * DOLLAR // 10)
    assert await bench.reserve(one, "h3", 8 * DOLLAR // 10) == Reserved()
    assert await bench.standing(one) == {"a": (2 * DOLLAR // 10, 8 * DOLLAR // 10)}
    assert bench.moved == [Moved("a", 0, 2 * DOLLAR // 10)]
    assert one.seen()["a"] == (2 * DOLLAR // 10, 8 * DOLLAR // 10)


async def test_all_accounts_or_none(bench: Bench) -> None:
    one = await bench.another()
    wide, narrow, soft = bench.want("wide"), bench.want("narrow", limit=3), bench.want("soft", hard=False, limit=1)

    assert await bench.reserve(one, "h1", 5, soft, wide, narrow) == Reserved(2, 0, 0)
    assert {name: held for name, (_, held) in (await bench.standing(one)).items() if held} == {}
    assert await bench.reserve(one, "h2", 3, soft, wide, narrow) == Reserved()
    assert await bench.standing(one) == {"soft": (0, 3), "wide": (0, 3), "narrow": (0, 3)}


async def test_everything_happens_once(bench: Bench) -> None:
    one = await bench.another()
    for _ in range(3):
        assert await bench.reserve(one, "h", 10) == Reserved()
    for _ in range(3):
        await bench.settle(one, "h", 7)

    assert await bench.standing(one) == {"a": (7, 0)}
    assert bench.moved == [Moved("a", 0, 7)]


async def test_a_free_request_passes_until_the_limit_is_reached(bench: Bench) -> None:
    one = await bench.another()
    await bench.reserve(one, "h1", 0)
    await bench.settle(one, "h1", DOLLAR)

    assert (await bench.reserve(one, "h2", 0)).refused == 0


async def test_large_sums_are_kept_to_the_last_digit(bench: Bench) -> None:
    one = await bench.another()
    bench.limit = 10**6 * DOLLAR
    for number, pico in enumerate((900_000 * DOLLAR + 1, 99_999 * DOLLAR + 1)):
        await bench.reserve(one, f"h{number}", pico)
        await bench.settle(one, f"h{number}", pico)

    assert await bench.standing(one) == {"a": (999_999 * DOLLAR + 2, 0)}


async def test_never_over_with_500_at_once_over_all_replicas(bench: Bench) -> None:
    replicas = [await bench.another()] if bench.kind == "local" else [await bench.another() for _ in range(3)]
    most = 0

    async def request(number: int) -> int:
        """What it cost."""
        nonlocal most
        one, pico = replicas[number % len(replicas)], (1 + number % 7) * DOLLAR // 100
        if (await bench.reserve(one, f"h{number}", pico)).refused >= 0:
            return 0
        await asyncio.sleep(0.001 * (number % 5))
        spent, held = (await bench.standing(one))["a"]
        most = max(most, spent + held)
        cost = pico * (number % 4 + 1) // 4
        one.settle(f"h{number}", (bench.want(),), cost, bench.moved.extend, reserved=True)
        return cost

    spent = sum(await asyncio.gather(*map(request, range(500))))
    await bench.settled()

    assert 0 < spent <= DOLLAR
    assert most <= DOLLAR
    assert await bench.standing(replicas[0]) == {"a": (spent, 0)}
    assert sum(moved.after - moved.before for moved in bench.moved) == spent


async def test_sums_outlive_whoever_made_them_and_what_was_reserved_counts_as_spent(bench: Bench) -> None:
    one = await bench.another()
    await bench.reserve(one, "h1", 10)
    await bench.settle(one, "h1", 4)
    await bench.reserve(one, "lost", 5)
    await bench.settled()
    if bench.kind == "local":
        await one.close()

    other = await bench.another()
    bench.clock.advance(101)
    await bench.reserve(other, "h2", 1)
    assert await bench.standing(other) == {"a": (9, 1)}
    await bench.settle(other, "lost", 2)  # whoever made it lives after all: from then on it is what it cost
    await bench.settle(other, "lost", 2)
    assert (await bench.standing(other))["a"] == ((9, 1) if bench.kind == "local" else (6, 1))


async def test_rates_are_taken_from_all_buckets_or_none_and_come_back(bench: Bench) -> None:
    one = await bench.another()

    def takes(*amounts: int) -> Sequence[Take]:
        return [
            Take(name, amount, Rate(name, "tokens", 60, ALL), "") for name, amount in zip("xy", amounts, strict=False)
        ]

    now_s = bench.clock.now_s()
    assert await now(one.take(takes(60, 1), now_s)) == (-1, 0.0)
    place, wait_s = await now(one.take(takes(6, 59), now_s))
    assert (place, wait_s) == (0, pytest.approx(6.0, abs=1e-4))
    assert await now(one.take(takes(6, 59), now_s + 6)) == (-1, 0.0)
    one.give(takes(0), 30, now_s + 6)
    await bench.settled()
    assert (await now(one.take(takes(31), now_s + 6)))[0] == 0
    assert await now(one.take(takes(30), now_s + 6)) == (-1, 0.0)
    assert await now(one.take(takes(100), now_s + 66)) == (-1, 0.0)
    assert (await now(one.take(takes(1), now_s + 66)))[1] == pytest.approx(41.0, abs=1e-3)


async def test_a_clock_that_was_ahead_lets_nobody_wait_once_it_is_right(bench: Bench) -> None:
    """Something was asked a day and an hour ahead. Then whoever waits as it is told is served, and nobody besides."""
    one, clock = await bench.another(), bench.clock
    both = [Take(name, 60, Rate(name, "tokens", 60, ALL), "") for name in "xy"]
    assert await now(one.take(both, clock.now_s())) == (-1, 0.0)
    clock.wall_s += DAY_S + 3600
    await now(one.take(both, clock.now_s()))
    one.give(both[1:], 60, clock.now_s())
    await bench.settled()
    clock.wall_s -= DAY_S + 3600

    some = [take._replace(amount=6) for take in both]
    assert await now(one.take(some, clock.now_s())) == (0, pytest.approx(6.0, abs=1e-3))
    clock.advance(6)
    assert await now(one.take(some, clock.now_s())) == (-1, 0.0)
    assert await now(one.take(some, clock.now_s())) == (0, pytest.approx(6.0, abs=1e-3))
    assert await now(one.take([some[1]._replace(amount=54)], clock.now_s())) == (-1, 0.0)


async def test_what_was_spent_is_known_when_a_clock_that_was_ahead_is_right_again(bench: Bench) -> None:
    """Accounts of windows that are over are looked through once a minute; what is over is no longer told."""
    one, spent, clock = await bench.another(), bench.want(), bench.clock
    await bench.reserve(one, "h", DOLLAR)
    await bench.settle(one, "h", DOLLAR)
    for number, ahead_s in enumerate((DAY_S + 3600, 30 * DAY_S, 11 * 365 * DAY_S)):
        clock.wall_s += ahead_s
        for turn in range(3):
            clock.advance(61)
            await bench.reserve(one, f"h{number}.{turn}", 5, bench.want("ahead"))
            await bench.settle(one, f"h{number}.{turn}", 5, bench.want("ahead"))
        assert "a" not in await bench.standing(one)
        assert "a" not in one.seen()
        clock.wall_s -= ahead_s

        assert await bench.reserve(one, "more", 1, spent) == Reserved(0, DOLLAR, 0)
        assert (await bench.standing(one))["a"] == (DOLLAR, 0)


async def test_what_processes_reserved_that_all_died_counts_as_spent_at_once(clock: FakeClock, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        tasks = TaskGroup()
        want = Want("a", "", int(clock.now_s()) + 86_400, Budget("a", DOLLAR, "day", ALL, True))
        for turn in range(2):
            one = SharedAccounts(tmp_path / "spend.db", clock, tasks.spawn, first=True)
            stack.push_async_callback(one.close)
            await one.reserve(f"lost {turn}", (want,), 5, clock.now_s())
        local = LocalAccounts(tmp_path / "spend.db", clock, tasks.spawn)  # the same file, for one process again
        stack.push_async_callback(local.close)

        assert [(one.spent, one.held) for one in await local.standing(clock.now_s())] == [(10, 0)]


async def test_a_file_that_fails_is_told_and_settled_when_it_works_again(clock: FakeClock, tmp_path: Path) -> None:
    tasks, moved = TaskGroup(), list[Moved]()
    want = Want("a", "", int(clock.now_s()) + 86_400, Budget("a", DOLLAR, "day", ALL, True))
    one = SharedAccounts(tmp_path / "spend.db", clock, tasks.spawn, first=True, pauses_s=(0.05,) * 100)
    await one.reserve("h", (want,), 5, clock.now_s())
    with closing(sqlite3.connect(tmp_path / "spend.db", isolation_level=None)) as other:
        other.execute("alter table holds rename to elsewhere")
        with pytest.raises(StoreFault):
            await one.reserve("h2", (want,), 5, clock.now_s())
        one.settle("h", (want,), 3, moved.extend, reserved=True)
        await asyncio.sleep(0.1)
        other.execute("alter table elsewhere rename to holds")
    await tasks.drain(10)

    assert [(one.spent, one.held) for one in await one.standing(clock.now_s())] == [(3, 0)]
    assert moved == [Moved("a", 0, 3)]
    await one.close()
    with pytest.raises(StoreFault):
        await one.reserve("h3", (want,), 5, clock.now_s())


async def test_a_server_that_is_away_is_told_and_settles_when_it_is_back(clock: FakeClock, tmp_path: Path) -> None:
    with ValkeyProcess() as server:
        async with AsyncExitStack() as stack:
            bench = Bench("redis", tmp_path, clock, server, stack)
            link = RedisStore(server.url, deadline_ms=300, clock=clock, threshold=1000)
            stack.push_async_callback(link.close)
            one = RedisAccounts(link, clock=clock, spawn=bench.tasks.spawn, pauses_s=(0.2,) * 30)
            await bench.reserve(one, "h", 10)
            server.freeze()
            with pytest.raises(StoreFault):
                await bench.reserve(one, "h2", 10)
            one.settle("h", (bench.want(),), 7, bench.moved.extend, reserved=True)
            one.settle("unchecked", (bench.want(),), 3, bench.moved.extend, reserved=False)
            await asyncio.sleep(0.4)
            server.thaw()
            await bench.settled()

            assert (await bench.standing(one))["a"][0] == 10
            assert sum(moved.after - moved.before for moved in bench.moved) <= 10
            await bench.settle(one, "unchecked", 3, reserved=False)
            assert (await bench.standing(one))["a"][0] == 10
