"""What may go wrong with money that is kept in one place: a full server, words that come late, debts that are old."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
import structlog
from redis.asyncio import Redis

from farthing.cache.store_redis import RedisStore
from farthing.policies.bucket import AHEAD_S, Buckets, Rate, Take
from farthing.policies.budget import KEPT_S, Budget, Want
from farthing.proxy.budgets import Reserved
from farthing.proxy.budgets_local import LocalAccounts
from farthing.proxy.budgets_redis import _BUCKETS, RedisAccounts
from farthing.proxy.budgets_shared import SharedAccounts
from farthing.proxy.clock import FakeClock
from farthing.proxy.tasks import TaskGroup
from tests.contract.test_accounts import ALL, DAY_S, DOLLAR, Bench, now
from tests.fakes.valkey import ValkeyProcess
from tests.fakes.valkey_many import ValkeyCluster

KEY = "farthing:{spend}:a:a"


@pytest.fixture
async def redis(tmp_path: Path, clock: FakeClock, valkey: ValkeyProcess) -> AsyncIterator[Bench]:
    valkey.command("FLUSHALL")
    async with AsyncExitStack() as stack:
        made = Bench("redis", tmp_path, clock, valkey, stack)
        yield made
        await made.tasks.drain(5)


async def test_a_full_server_takes_answers_and_no_money(tmp_path: Path, clock: FakeClock) -> None:
    """As deployment asks for it: what has an expiry goes when memory is short, the longest unused first."""
    with ValkeyProcess("--maxmemory", "8mb", "--maxmemory-policy", "volatile-lru") as server:
        async with AsyncExitStack() as stack:
            bench = Bench("redis", tmp_path, clock, server, stack)
            one = await bench.another()
            accounts = [bench.want(f"a{number}") for number in range(20)]
            for want in accounts:
                await bench.reserve(one, want.account, DOLLAR, want)
                await bench.settle(one, want.account, DOLLAR, want)
            async with Redis.from_url(server.url) as client:
                for start in range(0, 12_000, 1000):
                    pipe = client.pipeline(transaction=False)
                    for number in range(start, start + 1000):
                        pipe.set(f"farthing:e:{{{number}}}", b"x" * 1024, ex=3600)
                    await pipe.execute()
                assert int((await client.info("stats"))["evicted_keys"]) > 1000

            assert [(await bench.reserve(one, "more", 1, want)).refused for want in accounts] == [0] * 20
            assert await bench.standing(one) == {want.account: (DOLLAR, 0) for want in accounts}


async def test_a_server_that_may_forget_budgets_is_told_of(clock: FakeClock) -> None:
    for policy, told in (("allkeys-lru", 1), ("volatile-lru", 0), ("noeviction", 0)):
        with ValkeyProcess("--maxmemory", "8mb", "--maxmemory-policy", policy) as server:
            store = RedisStore(server.url, deadline_ms=5000, clock=clock)
            with structlog.testing.capture_logs() as logs:
                await RedisAccounts(store, clock=clock, spawn=TaskGroup().spawn).warn_of_eviction()
            await store.close()
        assert [line.get("maxmemory_policy") for line in logs] == [policy] * told


async def test_of_a_cluster_every_node_that_may_forget_budgets_is_told_of(clock: FakeClock) -> None:
    with ValkeyCluster(replicas=False) as cluster:
        for node in cluster.nodes:
            node.command("CONFIG SET maxmemory 8mb maxmemory-policy allkeys-lru")
            store = RedisStore(cluster.url, deadline_ms=5000, clock=clock)
            with structlog.testing.capture_logs() as logs:
                await RedisAccounts(store, clock=clock, spawn=TaskGroup().spawn).warn_of_eviction()
            await store.close()
            node.command("CONFIG SET maxmemory-policy volatile-lru")
            assert [line.get("maxmemory_policy") for line in logs] == ["allkeys-lru"], node.port


async def test_accounts_go_two_days_after_their_window_by_the_servers_clock(
    redis: Bench, clock: FakeClock, valkey: ValkeyProcess
) -> None:
    one = await redis.another()
    clock.wall_s = time.time() - 4 * 86_400  # a window that ended three days ago
    await redis.reserve(one, "h", 5)
    assert valkey.command(f"TTL {KEY}") == b":-1\r\n"
    clock.wall_s = time.time()
    await redis.reserve(one, "h2", 5, redis.want("b"))
    assert valkey.command(f"EXISTS {KEY} {KEY.replace(':a:', ':z:', 1)}") == b":0\r\n"
    clock.wall_s += 30 * 86_400  # a replica whose clock is a month ahead
    await redis.reserve(one, "h3", 5, redis.want("c"))
    clock.wall_s -= 30 * 86_400
    assert (await redis.standing(one))["b"] == (0, 5)


async def test_an_account_of_an_older_farthing_is_kept_on(
    redis: Bench, clock: FakeClock, valkey: ValkeyProcess
) -> None:
    valkey.command(f"HSET {KEY} spent {DOLLAR} held 0")
    valkey.command(f"EXPIRE {KEY} 1000")
    one = await redis.another()

    assert (await redis.reserve(one, "h", 1)).refused == 0
    await redis.settle(one, "unchecked", 3, reserved=False)
    assert valkey.command(f"TTL {KEY}") == b":-1\r\n"
    assert await redis.standing(one) == {"a": (DOLLAR + 3, 0)}


async def test_what_was_given_up_is_not_reserved_when_it_comes_late(redis: Bench) -> None:
    """The server hung: whoever asked has gone, and the words come in whichever order."""
    one = await redis.another()
    await redis.settle(one, "h", 0)
    assert await redis.reserve(one, "h", DOLLAR) == Reserved()
    assert await redis.standing(one) == {}
    await redis.settle(one, "h2", 7, reserved=False)
    await redis.reserve(one, "h2", DOLLAR // 2)
    assert await redis.standing(one) == {"a": (7, 0)}


async def test_a_sum_without_a_reservation_is_added_once_though_the_reservation_came(redis: Bench) -> None:
    one = await redis.another()
    await redis.reserve(one, "h", 10)
    for _ in range(3):
        await redis.settle(one, "h", 4, reserved=False)
    assert await redis.standing(one) == {"a": (4, 0)}


async def test_many_accounts_are_all_told(redis: Bench) -> None:
    one = await redis.another()
    await asyncio.gather(*(redis.reserve(one, f"h{n}", n, redis.want(f"a{n}")) for n in range(1001)))
    assert await redis.standing(one) == {f"a{n}": (0, n) for n in range(1001)}


async def test_what_changes_while_sums_are_written_is_written_too(tmp_path: Path, clock: FakeClock) -> None:
    """A kill then finds all but the last tenth of a second in the file, though no request follows."""
    path, tasks = tmp_path / "spend.db", TaskGroup()
    one = LocalAccounts(path, clock, tasks.spawn)
    want = Want("a", "", int(clock.now_s()) + 86_400, Budget("a", DOLLAR, "day", ALL))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")  # a slow disk
        one.reserve("h1", (want,), 5, clock.now_s())
        await asyncio.sleep(0.3)
        one.reserve("h2", (want,), 6, clock.now_s())
        other.execute("rollback")
        while len(tasks):
            await asyncio.sleep(0.01)
        assert other.execute("select held from accounts").fetchall() == [(11,)]
    await one.close()


class Waits:
    """A timer that goes off when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, Callable[[], None]]] = []
        self.cancelled = 0

    def later(self, seconds: float, do: Callable[[], None]) -> Waits:
        self.asked.append((seconds, do))
        return self

    def cancel(self) -> None:
        self.cancelled += 1


async def test_a_disk_that_fails_is_tried_again_at_growing_pauses(tmp_path: Path, clock: FakeClock) -> None:
    """As it was when it failed, too: by then an account in which nothing is left is forgotten here, and what it held
    would count as spent after a restart."""
    path, tasks, waits = tmp_path / "spend.db", TaskGroup(), Waits()

    async def written() -> None:
        while len(tasks):
            await asyncio.sleep(0.01)

    one = LocalAccounts(path, clock, tasks.spawn, waits.later)
    wants = [Want(name, "", int(clock.now_s()) + 86_400, Budget(name, DOLLAR, "day", ALL)) for name in "ab"]
    one.reserve("h", wants[:1], 5, clock.now_s())
    await written()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("alter table accounts rename to elsewhere")
        one.settle("h", wants[:1], 0, lambda moved: None, reserved=True)
        await written()
        clock.advance(61)  # when it looks next, it forgets what is idle
        for _ in range(6):
            one.reserve(f"h{len(waits.asked)}", wants[1:], 1, clock.now_s())
            assert not len(tasks)  # it waits for the disk, whoever asks
            waits.asked[-1][1]()
            await written()
        assert [seconds for seconds, _ in waits.asked] == [1, 2, 4, 8, 10, 10, 10]
        other.execute("alter table elsewhere rename to accounts")
        waits.asked[-1][1]()
        await written()
        assert other.execute("select account, spent, held from accounts order by account").fetchall() == [
            ("a", 0, 0),
            ("b", 0, 6),
        ]
        other.execute("alter table accounts rename to elsewhere")
        one.reserve("again", wants[1:], 1, clock.now_s())
        await written()
        assert waits.asked[7][0] == 1
        await one.close()
    assert (len(waits.asked), waits.cancelled) == (8, 1)


async def test_a_debt_is_not_forgotten_because_nobody_asks(tmp_path: Path, clock: FakeClock) -> None:
    rate = Rate("slow", "tokens", 60, ALL)
    one = SharedAccounts(tmp_path / "spend.db", clock, TaskGroup().spawn, first=True)
    assert await one.take([Take("b", 6000, rate, "")], clock.now_s()) == (-1, 0.0)
    clock.advance(600)  # 600 of 5,940 are paid
    await one.take([Take("another", 1, rate, "")], clock.now_s())  # whoever asks sweeps

    place, wait_s = await one.take([Take("b", 1, rate, "")], clock.now_s())
    assert (place, wait_s) == (0, pytest.approx(5341.0))
    await one.close()


@pytest.mark.parametrize("crew", [False, True])
async def test_what_was_spent_outlives_a_start_while_the_clock_is_ahead(
    tmp_path: Path, clock: FakeClock, *, crew: bool
) -> None:
    """By less than two days: what ended longer ago is forgotten at a start."""
    tasks, want = TaskGroup(), Want("a", "", int(clock.now_s()) + 3600, Budget("a", DOLLAR, "day", ALL))

    def started() -> LocalAccounts | SharedAccounts:
        path = tmp_path / "spend.db"
        if crew:
            return SharedAccounts(path, clock, tasks.spawn, first=True)
        return LocalAccounts(path, clock, tasks.spawn)

    one = started()
    await now(one.reserve("h", (want,), DOLLAR, clock.now_s()))
    one.settle("h", (want,), DOLLAR, lambda moved: None, reserved=True)
    await tasks.drain(5)
    await one.close()
    for ahead_s, known in ((KEPT_S, [DOLLAR]), (KEPT_S + 3600, [])):
        clock.wall_s += ahead_s
        one = started()
        assert await one.standing(clock.now_s()) == []
        await one.close()
        clock.wall_s -= ahead_s
        one = started()
        assert [standing.spent for standing in await one.standing(clock.now_s())] == known
        await one.close()


async def test_a_bucket_that_was_stamped_ahead_goes_on_from_now_and_goes_in_time(
    tmp_path: Path, clock: FakeClock
) -> None:
    path, slow = tmp_path / "spend.db", Rate("slow", "tokens", 60, ALL)
    one = SharedAccounts(path, clock, TaskGroup().spawn, first=True)
    for bucket in "xyz":
        assert await one.take([Take(bucket, 60, slow, "")], clock.now_s() + DAY_S) == (-1, 0.0)

    assert await one.take([Take("x", 6, slow, "")], clock.now_s()) == (0, pytest.approx(6.0))
    clock.advance(6)
    assert await one.take([Take("x", 6, slow, "")], clock.now_s()) == (-1, 0.0)
    for passed_s, left in ((60, ["w", "x", "y", "z"]), (121, ["w"])):  # whoever asks sweeps
        clock.advance(passed_s)
        await one.take([Take("w", 1, slow, "")], clock.now_s())
        with closing(sqlite3.connect(path)) as file:
            assert [name for (name,) in file.execute("select bucket from buckets order by bucket")] == left
    await one.close()


async def test_the_script_of_buckets_does_what_the_policy_says(redis: Bench) -> None:
    """Over clocks that go on, jump and come back; refusals among it, and amounts that come back."""
    one, buckets, rng, now_s, served = await redis.another(), Buckets(), random.Random(7), 1e9, 0
    assert isinstance(one, RedisAccounts)
    rates = [Rate(name, "tokens", per_min, ALL) for name, per_min in (("x", 60), ("y", 100), ("z", 6000))]
    for _ in range(600):
        now_s += rng.choice((0, rng.uniform(0, 4), rng.uniform(-12, 20), rng.uniform(-100, 40), rng.uniform(-1e5, 1e5)))
        chosen = rng.sample(rates, rng.randint(1, 3))
        takes = [Take(rate.name, rng.randint(0, rate.per_min * 5 // 4), rate, "") for rate in chosen]
        mode, back = rng.choice(("take", "take", "give")), rng.randint(-20, 40)
        arguments: list[object] = [mode, repr(now_s), repr(AHEAD_S)]
        for take in takes:
            arguments += [take.amount if mode == "take" else back, take.rate.per_min]
        place, wait, _ = await one._eval(_BUCKETS, [f"b:{take.bucket}" for take in takes], arguments)
        if mode == "take":
            told = buckets.take(takes, now_s)
            served += told[0] < 0
            assert (place, float(wait)) == (told[0], pytest.approx(told[1], abs=1e-5))
        else:
            buckets.give(takes, back, now_s)
    assert 100 < served < 300
    for bucket, level in buckets.levels.items():
        kept = await one._server.run("read", lambda client, bucket=bucket: client.hmget(f"b:{bucket}", "held", "at"))
        assert tuple(map(float, kept)) == pytest.approx(tuple(level))


async def test_replicas_whose_clocks_differ_fill_no_bucket_at_each_turn(redis: Bench) -> None:
    """They go by the server's clock. One that lost it (it slept) fills a bucket once at most, and then has it again."""
    rate, replicas = Rate("burst", "requests", 60, ALL), []
    for wall_s in (1e9, 3e9):
        redis.clock = FakeClock(wall_s)
        replicas.append((await redis.another(), redis.clock))

    async def served(rounds: int) -> int:
        answers = [
            await now(one.take([Take("b", 10, rate, "")], clock.now_s()))
            for _ in range(rounds)
            for one, clock in replicas
        ]
        return sum(place < 0 for place, _ in answers)

    assert await served(10) == 6
    replicas[0][1].wall_s += 1e8
    assert await served(5) == 0
    replicas[1][1].mono_s += 3600
    assert 0 < await served(20) <= 6
    assert await served(5) == 0


async def test_what_dead_workers_reserved_is_spent_and_forgotten_in_time(tmp_path: Path, clock: FakeClock) -> None:
    path, tasks = tmp_path / "spend.db", TaskGroup()
    want = Want("a", "", int(clock.now_s()) + 3600, Budget("a", DOLLAR, "day", ALL))
    one = SharedAccounts(path, clock, tasks.spawn, first=True, hold_s=100.0)
    await one.reserve("lost", (want,), 5, clock.now_s())
    other = want._replace(account="b", ends_s=int(clock.now_s()) + 86_400)
    lost, over = ("a", 5, 0), KEPT_S - 60
    for passed_s, left in (
        (101, [lost, ("b", 0, 1)]),
        (3600, [lost, ("b", 1, 1)]),
        (over, [lost, ("b", 2, 1)]),
        (60, [("b", 2, 2)]),
    ):
        clock.advance(passed_s)
        await one.reserve(f"h{passed_s}", (other,), 1, clock.now_s())
        with closing(sqlite3.connect(path)) as file:
            assert file.execute("select account, spent, held from accounts order by account").fetchall() == left
    with closing(sqlite3.connect(path)) as file:
        assert "lost" not in [hold for (hold,) in file.execute("select hold from holds")]
    await one.close()


async def test_over_a_cluster(clock: FakeClock) -> None:
    """All of it lies in one slot, the accounts that are swept too."""
    with ValkeyProcess("--cluster-enabled", "yes") as node:
        node.command("CLUSTER ADDSLOTSRANGE 0 16383")
        async with asyncio.timeout(20):
            while b"cluster_state:ok" not in node.command("CLUSTER INFO"):
                await asyncio.sleep(0.05)
        tasks, url = TaskGroup(), node.url.replace("redis://", "redis+cluster://").removesuffix("/0")
        server = RedisStore(url, deadline_ms=5000, clock=clock)
        one = RedisAccounts(server, clock=clock, spawn=tasks.spawn)
        wants = [Want(name, "", int(clock.now_s()) + 86_400, Budget(name, DOLLAR, "day", ALL)) for name in "ab"]
        old = Want("old", "", int(time.time()) - 3 * 86_400, wants[0].budget)
        assert await one.reserve("h0", (old,), 5, clock.now_s()) == Reserved()
        assert await one.reserve("h", wants, DOLLAR // 2, clock.now_s()) == Reserved()
        assert (await one.reserve("h2", wants, DOLLAR, clock.now_s())).refused == 0
        one.settle("h", wants, 7, lambda moved: None, reserved=True)
        await tasks.drain(5)
        assert {(found.account, found.spent, found.held) for found in await one.standing(clock.now_s())} == {
            ("a", 7, 0),
            ("b", 7, 0),
        }
        assert node.command("EXISTS farthing:{spend}:a:old") == b":0\r\n"
        await one.warn_of_eviction()
        await server.close()
