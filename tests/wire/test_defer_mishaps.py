"""What goes wrong on a batch's way: nothing is paid for twice, nothing stays with the provider, none waits for ever."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.clock import FakeClock
from farthing.proxy.defer_books import Books
from farthing.proxy.defer_store import DeferStore
from farthing.proxy.errors import StoreFault
from farthing.proxy.exchange import Exchange
from tests.fakes.batches import BatchUpstream, batching
from tests.fakes.proxying import Proxied, chat
from tests.fakes.upstream import Script
from tests.wire.test_defer import DAY, HERE, books, deferring, result, until

DAY_S = 86_400.0


@pytest.fixture
async def up() -> AsyncIterator[BatchUpstream]:
    async with batching() as one:
        yield one


async def sent(proxy: Proxied, up: BatchUpstream, clock: FakeClock | None = None) -> str:
    """The id of a request that is in a batch."""
    id: str = (await proxy.post(chat("wait for me"), **DAY)).json()["id"]
    for _ in range(200):
        told = (await proxy.client.get(f"{HERE}/{id}")).json()
        if up.batches and told["batch_id"]:
            return id
        if clock is not None:
            clock.advance(0.1)
        await asyncio.sleep(0.02)
    raise AssertionError(told)


async def test_a_batch_api_that_stays_away_keeps_nobody_beyond_the_deadline(up: BatchUpstream, tmp_path: Path) -> None:
    clock, up.polls = FakeClock(), 10**6
    async with deferring(up, tmp_path, clock=clock) as proxy:
        id = await sent(proxy, up, clock)
        up.refuses = 503
        clock.advance(DAY_S + 1)
        await asyncio.sleep(0.1)
        assert not up.calls, "as long as a provider may take to break it off"
        clock.advance(601)
        await until(proxy, id, "completed")
        assert (await result(proxy, id)).status_code == 200
    assert len(up.calls) == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_is_not_taken_for_a_while_does_not_give_a_batch_up(
    up: BatchUpstream, tmp_path: Path, status: int
) -> None:
    up.polls = 4
    async with deferring(up, tmp_path) as proxy:
        id = await sent(proxy, up)
        up.refuses, before = status, len(up.asked)
        while len(up.asked) < before + 2:
            await asyncio.sleep(0.02)
        up.refuses = 0
        await until(proxy, id, "completed")
        await books(proxy, up, 1)
    assert len(up.batched) == 1 and not up.calls


@pytest.mark.parametrize("status", [400, 409])
async def test_a_batch_that_has_just_ended_when_it_is_broken_off_brings_its_answers(
    up: BatchUpstream, tmp_path: Path, status: int
) -> None:
    up.polls, up.ends_when_cancelled = 10**6, status
    async with deferring(up, tmp_path) as proxy:
        id = (await proxy.post(chat("now"), x_farthing_defer="1s")).json()["id"]
        await until(proxy, id, "completed")
        await books(proxy, up, 1)
    assert "POST /v1/batches/batch_1/cancel" in up.asked
    assert len(up.batched) == 1 and not up.calls


async def test_what_was_uploaded_for_a_batch_that_is_refused_is_removed(up: BatchUpstream, tmp_path: Path) -> None:
    up.refuse_create = 400
    async with deferring(up, tmp_path) as proxy:
        id = (await proxy.post(chat(), **DAY)).json()["id"]
        await until(proxy, id, "completed")
        while up.files:
            await asyncio.sleep(0.02)
    assert [call for call in up.asked if call.startswith("DELETE")] == ["DELETE /v1/files/file-1"]


async def test_an_answer_that_stands_there_twice_is_booked_once(up: BatchUpstream, tmp_path: Path) -> None:
    up.repeats = 2
    async with deferring(up, tmp_path) as proxy:
        id = await sent(proxy, up)
        await until(proxy, id, "completed")
        [row] = await proxy.rows(1)
        desk = proxy.services.state.deferred
        assert desk is not None
        while (standing := await desk.standing()) is None or standing["batches"]:
            await asyncio.sleep(0.02)
        assert proxy.services.state.total.read(proxy.services.state.clock.now_s()) == row["cost_usd"]


async def test_who_may_wait_is_sent_again_where_the_upstream_is_busy(up: BatchUpstream, tmp_path: Path) -> None:
    up.refuse_create = 400
    up.script(Script(status=429), Script(status=503))
    async with deferring(up, tmp_path, upstream__retries=0) as proxy:
        id = (await proxy.post(chat(), **DAY)).json()["id"]
        assert (await until(proxy, id, "completed"))["status_code"] == 200
        assert (await result(proxy, id)).status_code == 200
        [row] = await books(proxy, up, 1)
    assert [call.status for call in up.calls] == [429, 503, 200]
    assert row["status"] == 200


async def test_at_its_deadline_it_gets_what_the_upstream_says_then(up: BatchUpstream, tmp_path: Path) -> None:
    up.refuse_create = 400
    up.default = Script(status=503)
    async with deferring(up, tmp_path, upstream__retries=0) as proxy:
        id = (await proxy.post(chat(), x_farthing_defer="1s")).json()["id"]
        assert (await until(proxy, id, "completed"))["status_code"] == 503
        await proxy.rows(1)
    assert len(up.calls) > 2


async def test_one_that_waits_to_be_sent_again_can_be_cancelled(up: BatchUpstream, tmp_path: Path) -> None:
    up.refuse_create = 400
    up.default = Script(status=503)
    async with deferring(up, tmp_path, upstream__retries=0, defer__poll_s=60) as proxy:
        id = (await proxy.post(chat(), **DAY)).json()["id"]
        while not up.calls:
            await asyncio.sleep(0.02)
        for _ in range(100):
            if (await proxy.client.delete(f"{HERE}/{id}")).json()["status"] == "cancelled":
                break
            await asyncio.sleep(0.02)
        else:
            raise AssertionError("it can't be cancelled")
        [row] = await proxy.rows(1)
    assert (row["outcome"], row["cost_usd"], len(up.calls)) == ("abandoned", 0, 1)


async def test_embeddings_of_many_texts_make_several_batches(up: BatchUpstream, tmp_path: Path) -> None:
    up.polls = 10**6
    async with deferring(up, tmp_path, defer__flush_s=0.3) as proxy:
        for first in (0, 3000):
            asked = {"model": "m", "input": [str(number) for number in range(first, first + 3000)]}
            assert (await proxy.post(asked, "/v1/embeddings", **DAY)).status_code == 202
        while len(up.batches) < 2:
            await asyncio.sleep(0.02)
    assert [len(made.lines) for made in up.batches.values()] == [1, 1]


async def test_what_was_sent_directly_is_booked_at_its_full_price_after_a_crash(
    up: BatchUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book, faults = Books.direct, [StoreFault("cut off")]

    async def fails_once(self: Books, own: Exchange, why: str) -> None:
        if faults:
            raise faults.pop()
        await book(self, own, why)

    monkeypatch.setattr(Books, "direct", fails_once)
    up.refuse_create = 400
    async with deferring(up, tmp_path) as proxy:
        id = (await proxy.post(chat(), **DAY)).json()["id"]
        await until(proxy, id, "completed")
        [row] = await books(proxy, up, 1)
    assert len(up.calls) == 1 and not faults
    assert row["cost_usd"] == row["baseline_usd"] > 0


def failing_once(monkeypatch: pytest.MonkeyPatch, name: str) -> list[StoreFault]:
    """The next call of the store's method of that name fails; what is returned is empty once it has."""
    plain, faults = getattr(DeferStore, name), [StoreFault("the disk is full")]

    async def called(self: DeferStore, *given: Any, **named: Any) -> Any:
        if faults:
            raise faults.pop()
        return await plain(self, *given, **named)

    monkeypatch.setattr(DeferStore, name, called)
    return faults


@pytest.mark.parametrize("way", ["batch", "directly"])
async def test_an_answer_that_the_disk_does_not_take_at_first_is_neither_lost_nor_asked_for_again(
    up: BatchUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    faults = failing_once(monkeypatch, "answer")
    up.refuse_create = 400 if way == "directly" else 0
    async with deferring(up, tmp_path) as proxy:
        id = (await proxy.post(chat(), **DAY)).json()["id"]
        await until(proxy, id, "completed")
        assert (await result(proxy, id)).status_code == 200
        [row] = await books(proxy, up, 1)
    assert not faults and len(up.calls) + len(up.batched) == 1
    assert row["cost_usd"] > 0 and row["outcome"] == "completed"


async def test_a_batch_that_the_disk_does_not_know_is_not_made(
    up: BatchUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults, up.polls = failing_once(monkeypatch, "write"), 10**6
    async with deferring(up, tmp_path, defer__poll_s=0.1) as proxy:
        await sent(proxy, up)
        with closing(sqlite3.connect(tmp_path / "deferred.db")) as conn:
            [(name, batch)] = conn.execute("select batches.name, batch from requests, batches").fetchall()
    assert not faults and name == batch and len(up.batches) == 1


async def test_what_a_batch_charges_that_nobody_can_ask_about_is_unknown_not_nothing(
    up: BatchUpstream, tmp_path: Path
) -> None:
    clock, up.polls = FakeClock(), 10**6
    async with deferring(up, tmp_path, clock=clock) as proxy:
        id = await sent(proxy, up, clock)
    clock.advance(DAY_S + 1)
    async with deferring(up, tmp_path, clock=clock) as proxy:
        told = await until(proxy, id, "failed")
        [row] = await proxy.rows(1)
    assert told["error"]["code"] == "credential_lost"
    assert (row["outcome"], row["cost_usd"]) == ("failed", None)
