"""The one record that replicas share, over a real server and over a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import SystemClock
from farthing.proxy.errors import StoreFault
from farthing.proxy.experiment_book import Record, RecordArm
from farthing.proxy.experiment_shared import SharedRecords
from tests.fakes.valkey import ValkeyProcess
from tests.fakes.valkey_many import ValkeyCluster

ARMS = [RecordArm("a", "p-1", 0.5), RecordArm("b", "p-2", 0.5)]


def record(at_s: float, declared: str = "d1", name: str = "trial") -> Record:
    return Record.begin(name, declared, {"unit": "user"}, ARMS, at_s)


@pytest.fixture(params=["server", "cluster"])
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[SharedRecords]:
    with ValkeyProcess() if request.param == "server" else ValkeyCluster(replicas=False) as server:
        store = RedisStore(server.url, deadline_ms=5000, clock=SystemClock())
        yield SharedRecords(store, "t")
        await store.close()


async def test_the_first_to_begin_is_right_and_so_is_the_first_to_end(shared: SharedRecords) -> None:
    first, second = record(1.0), record(2.0)
    assert await shared.look("trial", declared="d1") == (None, False, False)
    assert await shared.begin(first, "") == first
    assert await shared.begin(second, "") == first, "somebody was quicker"
    assert await shared.begin(first, "") == first, "sent twice"
    found = await shared.look("trial", declared="d1", going=first.id)
    assert (found.record, found.alive, found.ended) == (first, True, False)

    assert await shared.end(replace(second, state="stopped"), for_good=True) == first, "another one's end"
    over = replace(first, state="decided", why="better", ended_s=3.0, reading={"at": 3.0})
    assert await shared.end(over, for_good=True) == over
    assert await shared.end(replace(first, state="stopped", why="late"), for_good=True) == over
    found = await shared.look("trial", declared="d1", going=first.id)
    assert (found.record, found.alive, found.ended) == (over, False, True)

    other = record(4.0, "d2")
    assert await shared.begin(other, "") == over, "it comes after one that it doesn't know"
    assert await shared.begin(other, first.id) == other
    found = await shared.look("trial", declared="d1")
    assert (found.record, found.ended) == (other, True), "what has ended once is remembered"
    assert (await shared.look("other")).record is None


async def test_the_history_stays_at_home_and_a_hold_out_may_begin_anew(shared: SharedRecords) -> None:
    one = record(1.0, name="holdout")
    one.points = [[1.0, {"b": [0.0, None, None]}]]
    await shared.begin(one, "")
    assert (await shared.end(replace(one, state="ended"), for_good=False) or one).points == []
    assert not (await shared.look("holdout", declared="d1")).ended


async def test_what_is_no_record_is_a_fault_of_the_store() -> None:
    with ValkeyProcess() as server:
        store = RedisStore(server.url, deadline_ms=5000, clock=SystemClock())
        shared = SharedRecords(store, "t")
        await shared.begin(record(1.0), "")
        server.command("HSET {t:x:trial}:record body nonsense")
        with pytest.raises(StoreFault, match="can't be read"):
            await shared.look("trial")
        server.kill()
        with pytest.raises(StoreFault):
            await shared.begin(record(2.0), "")
        await store.close()
