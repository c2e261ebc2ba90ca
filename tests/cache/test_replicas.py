"""Replicas over one real server: they hold the same, and say so, whatever happens to them or to it."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from farthing.cache import log_redis_wire
from farthing.cache.log_redis import RedisLog
from farthing.cache.log_redis_wire import Names
from farthing.cache.semantic import SemanticCache
from tests.fakes.replicas import a_log
from tests.fakes.valkey import ValkeyProcess

DIM = 8
LATER_S = 4e9
MARK_S = 0.02


class Hashed:
    """An embedder without a model: a text's vector is drawn from its hash."""

    name, dim, batch, max_tokens = "hashed", DIM, 1, 100

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        drawn = [np.random.default_rng(list(hashlib.sha256(text.encode()).digest())).normal(size=DIM) for text in texts]
        return np.array([one / np.linalg.norm(one) for one in drawn], np.float32)

    def count(self, text: str) -> int:
        return len(text.split())


class Replica:
    """A cache and its log, driven as build_semantic drives them."""

    def __init__(
        self, server: ValkeyProcess, name: str, max_entries: int = 1000, url: str = "", **settings: object
    ) -> None:
        self.log: RedisLog = a_log(url or server.url, name, dim=DIM, embedder="hashed", mark_every_s=MARK_S, **settings)
        self.cache = SemanticCache.open(None, Hashed(), max_entries=max_entries, replicas=self.log)

    def add(self, key: str, text: str = "", expires_s: float = LATER_S) -> None:
        assert self.cache.add("scope", text or f"what is the capital of {key}", key, expires_s)

    async def step(self) -> None:
        """One exchange, and what it brought."""
        await self.log.exchange()
        self.cache.follow()

    def found(self, text: str) -> str | None:
        return self.cache.lookup("scope", "r", text, 0.0).entry_key


async def settle(*replicas: Replica) -> None:
    """Until all have everything, and have compared it."""
    async with asyncio.timeout(20):
        for _ in range(6):
            for one in replicas:
                await one.step()
            await asyncio.sleep(MARK_S)
        while any(one.log.lag or one.log.state.compared.compared < len(replicas) - 1 for one in replicas):
            for one in replicas:
                await one.step()
            await asyncio.sleep(MARK_S)


def agree(*replicas: Replica) -> bool:
    """Whether they hold the same, and know it."""
    said = [one.log.state.compared for one in replicas]
    assert [one.others for one in said] == [len(replicas) - 1] * len(replicas)
    same = len({one.cache.keys() for one in replicas}) == 1
    assert same is not any(one.differing for one in said), "the digests and the sets say the same"
    return same


@pytest.fixture
def server() -> Iterator[ValkeyProcess]:
    with ValkeyProcess("--stream-node-max-entries", "1") as server:
        yield server


@pytest.fixture
async def three(server: ValkeyProcess) -> AsyncIterator[list[Replica]]:
    replicas = [Replica(server, name) for name in "xyz"]
    yield replicas
    for one in replicas:
        await one.log.store.close()


async def test_what_one_puts_all_find_and_what_one_removes_none_does(three: list[Replica]) -> None:
    one, other, third = three
    one.add("France")
    other.add("Spain")
    await settle(*three)
    assert agree(*three) and third.cache.keys() == {"France", "Spain"}
    assert third.found("what is the capital of France") == "France"

    third.cache.remove(["France"])
    await settle(*three)
    assert agree(*three) and one.cache.keys() == {"Spain"}

    other.cache.clear()
    one.add("Peru")
    await settle(*three)
    assert agree(*three) and third.cache.keys() <= {"Peru"}  # cleared before or after: for all alike


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in (2, 3))])
async def test_under_changes_that_never_rest_all_converge_and_the_digests_agree(
    server: ValkeyProcess, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes come between what is fetched and what is taken over too, and now and then everything goes."""
    monkeypatch.setattr(log_redis_wire, "CHUNKS", 3)  # of 256 that a snapshot asks for all but four would be empty
    three = [Replica(server, name, logged=60) for name in "xyz"]
    draw = random.Random(seed)
    differed = compared = 0

    def change(one: Replica, step: int) -> None:
        match draw.choices(["add", "remove", "clear"], [30, 10, 1])[0]:
            case "add":
                one.add(draw.choice("abcd"), f"question {draw.randrange(50)} of {step}")
            case "remove":
                one.cache.remove([draw.choice("abcd")])
            case _:
                one.cache.clear()

    for step in range(600):
        one = draw.choice(three)
        change(one, step)
        if draw.random() < 0.6:
            await one.log.exchange()
            for _ in range(draw.randrange(3)):
                change(one, step)
            one.cache.follow()
        differed += any(one.log.state.compared.differing for one in three)
        compared += one.log.state.compared.compared
    await settle(*three)

    assert differed == 0 and compared > 0, "compared while they were at it, and equal at every mark"
    assert agree(*three)
    for one in three:
        await one.log.store.close()


async def test_a_replica_that_starts_later_or_was_away_catches_up(three: list[Replica], server: ValkeyProcess) -> None:
    one, other, away = three
    one.add("France")
    await settle(*three)
    for number in range(30):
        other.add(f"{number}")
    other.cache.remove(["3"])
    away.add("Chile")
    await settle(one, other, away)
    assert agree(*three) and away.log.state.snapshots == 1, "followed, not begun anew"

    late = Replica(server, "late")
    await settle(*three, late)
    assert agree(*three, late) and len(late.cache) == 31
    await late.log.store.close()


async def test_who_was_away_while_the_log_was_cut_takes_the_snapshot(server: ValkeyProcess) -> None:
    one, away = Replica(server, "x", logged=10), Replica(server, "y", logged=10)
    one.add("France")
    await settle(one, away)
    for number in range(40):
        one.add(f"{number}")
        await one.step()
    one.cache.remove(["France"])
    await one.step()
    await settle(one, away)

    assert agree(one, away) and len(away.cache) == 40
    assert (one.log.state.snapshots, away.log.state.snapshots) == (1, 2)
    names = Names("t", "hashed")
    assert int(server.command(f"XLEN {names.stream}")[1:]) <= 11
    for replica in (one, away):
        await replica.log.store.close()


async def test_an_outage_costs_nobody_a_wait_and_loses_nothing(server: ValkeyProcess) -> None:
    three = [Replica(server, name, deadline_ms=200) for name in "xyz"]
    one, other, _ = three
    one.add("France")
    await settle(*three)
    with capture_logs() as lines:
        server.freeze()
        for replica in three:
            for _ in range(3):
                await replica.step()
        assert not one.log.state.reached
        one.add("Spain")
        other.cache.remove(["France"])
        assert one.found("what is the capital of Spain") == "Spain", "its own it finds at once"
        server.thaw()
        await asyncio.sleep(0.1)
        await settle(*three)
    assert agree(*three) and one.cache.keys() == {"Spain"}
    told = [line["event"] for line in lines if line["log_level"] != "info"]
    assert told.count("the replicas' log is away: it goes on without") == 3, "one line for each replica"
    assert told.count("the replicas' log is back") == 3 and len(told) == 6
    for replica in three:
        await replica.log.store.close()


async def test_after_flushall_the_log_begins_anew_from_what_replicas_hold(
    three: list[Replica], server: ValkeyProcess
) -> None:
    one, other, _ = three
    for number in range(20):
        one.add(f"{number}")
    await settle(*three)
    before = one.log.state.generation
    server.command("FLUSHALL")
    assert len(other.cache) == 20, "the local copy stays"
    other.add("while it was empty")
    one.cache.remove(["7"])
    await settle(*three)

    assert agree(*three) and {one.log.state.generation for one in three} == {before + 1}
    assert one.cache.keys() >= {f"{number}" for number in range(20) if number != 7} | {"while it was empty"}
    late = Replica(server, "late")
    await settle(*three, late)
    assert agree(*three, late)
    await late.log.store.close()


async def test_a_difference_is_seen_told_and_mended(three: list[Replica]) -> None:
    one, other, _ = three
    for number in range(5):
        one.add(f"{number}")
    await settle(*three)
    with capture_logs() as lines:
        other.cache.take([], ["3"])  # as a fault of ours would: gone here, and nobody knows
        await settle(*three)
    await settle(*three)

    assert [line["event"] for line in lines if line["log_level"] == "error"].count(
        "replicas hold different near-duplicates: the log decides"
    ) >= 1
    assert agree(*three) and len(other.cache) == 5


async def test_rows_that_are_damaged_are_passed_by(three: list[Replica], server: ValkeyProcess) -> None:
    one, *_ = three
    one.add("France")
    one.add("Spain")
    await settle(*three)
    names = Names("t", "hashed")
    server.command(f"HSET {names.chunk('France')} France damaged")
    late = Replica(server, "late")
    with capture_logs() as lines:
        await late.step()
        await late.step()
    assert late.cache.keys() == {"Spain"}
    assert lines[0]["rows"] == 1
    await late.log.store.close()


async def test_who_evicts_evicts_for_all(server: ValkeyProcess) -> None:
    replicas = [Replica(server, name, max_entries=10) for name in "xy"]
    for number in range(15):
        replicas[number % 2].add(f"{number}")
        for one in replicas:
            await one.step()
    await settle(*replicas)
    assert agree(*replicas) and len(replicas[0].cache) <= 10
    for one in replicas:
        await one.log.store.close()


async def test_what_was_removed_leaves_the_server_whole(server: ValkeyProcess) -> None:
    """The text of an entry lies in the rows and in the stream, and in neither once it is gone."""
    replicas = [Replica(server, name, outdated_s=0.05) for name in "xy"]
    one = replicas[0]
    one.add("France", "a secret of somebody's")
    one.add("Spain", "of no account")
    await settle(*replicas)
    names = Names("t", "hashed")
    assert b"secret" in server.command(f"XRANGE {names.stream} - +")

    one.cache.remove(["France"])
    one.add("Spain", "of much account")
    await settle(*replicas)
    await asyncio.sleep(0.1)
    await settle(*replicas)
    stream = server.command(f"XRANGE {names.stream} - +")
    assert b"secret" not in stream and b"no account" not in stream and b"of much account" in stream
    assert b"secret" not in server.command(f"HGETALL {names.chunk('France')}")
    assert agree(*replicas)
    late = Replica(server, "late")
    await settle(*replicas, late)
    assert agree(*replicas, late) and late.cache.keys() == {"Spain"}
    for replica in (*replicas, late):
        await replica.log.store.close()


async def test_over_a_cluster() -> None:
    with ValkeyProcess("--cluster-enabled", "yes") as node:
        node.command("CLUSTER ADDSLOTSRANGE 0 16383")
        async with asyncio.timeout(20):
            while b"cluster_state:ok" not in node.command("CLUSTER INFO"):
                await asyncio.sleep(0.05)
        url = node.url.replace("redis://", "redis+cluster://").removesuffix("/0")
        replicas = [Replica(node, name, url=url, outdated_s=0.05) for name in "xy"]
        for number in range(20):
            replicas[number % 2].add(f"{number}")
        await settle(*replicas)
        replicas[0].cache.remove(["3"])
        await settle(*replicas)
        assert agree(*replicas) and len(replicas[1].cache) == 19
        replicas[1].cache.clear()
        await settle(*replicas)
        assert agree(*replicas) and len(replicas[0].cache) == 0
        for one in replicas:
            await one.log.store.close()
