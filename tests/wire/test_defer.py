"""Deferred requests over real servers: half the price, the same answers, nothing lost."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from tests.fakes.batches import BatchUpstream, batching
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script

PER_MTOK = ("2", "1", "8")
DAY = {"x_farthing_defer": "24h"}
HERE = "/farthing/api/deferred"
TOGETHER = {"defer__flush_s": 0.6}  # a few that come after each other make one batch on a busy machine too


@pytest.fixture
async def up() -> AsyncIterator[BatchUpstream]:
    async with batching() as one:
        yield one


def deferring(up: BatchUpstream, state_dir: Path, **settings: Any) -> AbstractAsyncContextManager[Proxied]:
    quick: dict[str, Any] = {
        "upstream__batch": True,
        "defer__flush_s": 0.05,
        "defer__poll_s": 0.02,
        "defer__min_s": 0,
    }
    return proxied(up.url, state_dir, **(quick | settings))


async def until(proxy: Proxied, id: str, *states: str, **headers: str) -> dict[str, Any]:
    for _ in range(500):
        told = await proxy.client.get(f"{HERE}/{id}", headers=headers)
        assert told.status_code == 200, told.text
        value: dict[str, Any] = told.json()
        if value["status"] in states:
            return value
        await asyncio.sleep(0.02)
    raise AssertionError(value)


async def result(proxy: Proxied, id: str) -> httpx.Response:
    return await proxy.client.get(f"{HERE}/{id}/result")


async def books(proxy: Proxied, up: BatchUpstream, count: int) -> list[dict[str, Any]]:
    """The rows; the identity holds for each, and together they cost what the upstream charged."""
    rows = await proxy.rows(count)
    assert len(rows) == count
    for row in rows:
        saved = sum(row[name] for name in row if name.startswith("saved_"))
        assert row["baseline_usd"] - row["cost_usd"] == saved, row
    assert sum(row["cost_usd"] for row in rows) == int(up.half_bill(PER_MTOK) * 10**12)
    return rows


async def test_half_the_price_for_the_same_answer(up: BatchUpstream, tmp_path: Path) -> None:
    async with deferring(up, tmp_path, **TOGETHER) as proxy:
        first = await proxy.post(chat("wait for me"), **DAY)
        second = await proxy.post(chat("and me"), **DAY)
        assert first.status_code == second.status_code == 202
        kept = first.json()
        assert kept["object"] == "farthing.deferred" and kept["status"] == "queued"
        assert first.headers["x-farthing-id"] == kept["id"]
        early = await result(proxy, kept["id"])
        done = await until(proxy, kept["id"], "completed")
        await until(proxy, second.json()["id"], "completed")
        got = await result(proxy, kept["id"])
        await proxy.rows(2)
        while up.files:
            await asyncio.sleep(0.02)
        again = await proxy.post(chat("wait for me"), **DAY)
        rows = await books(proxy, up, 3)

    assert early.status_code == 202 and early.json()["id"] == kept["id"]
    assert done["status_code"] == 200 and done["error"] is None
    assert got.status_code == 200
    assert "wait for me" in got.json()["choices"][0]["message"]["content"]
    assert len(up.batches) == 1 and up.calls == []
    assert up.files == {}  # neither prompts nor answers stay with the provider
    row = next(row for row in rows if row["id"] == kept["id"])
    assert (row["status"], row["cache"], row["cache_reason"], row["outcome"]) == (
        200,
        "bypass",
        "deferred",
        "completed",
    )
    assert row["saved_route_usd"] == row["cost_usd"] == row["baseline_usd"] // 2
    assert ["defer", "batch", "batch_1"] in json.loads(row["decisions"])
    # It is in the exact cache now, so the same request needn't wait.
    assert again.status_code == 200 and again.headers["x-farthing-cache"] == "hit-exact"


async def test_the_official_client(up: BatchUpstream, tmp_path: Path) -> None:
    async with (
        deferring(up, tmp_path) as proxy,
        AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-one", max_retries=0) as client,
    ):
        raw = await client.chat.completions.with_raw_response.create(
            model="m", messages=[{"role": "user", "content": "later"}], extra_headers={"x-farthing-defer": "24h"}
        )
        vectors = await client.embeddings.with_raw_response.create(
            model="m", input=["a", "b", "a"], extra_headers={"x-farthing-defer": "1d"}
        )
        assert raw.status_code == vectors.status_code == 202
        kept = json.loads(raw.text)
        await until(proxy, kept["id"], "completed")
        await until(proxy, json.loads(vectors.text)["id"], "completed")
        answer = await client.get(f"{proxy.url}{kept['result_url']}", cast_to=httpx.Response)
        assert answer.json()["object"] == "chat.completion"
        await proxy.rows(2)
        known = await client.embeddings.with_raw_response.create(model="m", input=["b", "a"])
        assert known.headers["x-farthing-cache"] == "hit-exact"
        await books(proxy, up, 3)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses", "/v1/embeddings"])
async def test_every_endpoint_that_a_batch_takes(up: BatchUpstream, tmp_path: Path, path: str) -> None:
    body = {"model": "m", "prompt": "p"} if path == "/v1/completions" else {"model": "m", "input": "p"}
    async with deferring(up, tmp_path) as proxy:
        id = (await proxy.post(body, path, **DAY)).json()["id"]
        await until(proxy, id, "completed")
        got = await result(proxy, id)
        direct = await proxy.post(body, path, Cache_Control="no-cache")
        rows = await books(proxy, up, 2)
    assert got.json().keys() == direct.json().keys()
    assert rows[0]["endpoint"] == path.removeprefix("/v1/")


@pytest.mark.parametrize(
    ("body", "headers", "settings", "reason"),
    [
        (chat(), {}, {"upstream__batch": False}, "the upstream has no batch API"),
        (chat(), {}, {"defer__enabled": False}, "defer.enabled is false"),
        (chat(), {}, {"defer__min_s": 100_000}, "it may wait for less than 100000 s (defer.min_s)"),
        (chat(), {"x_farthing_off": "1"}, {}, "x-farthing-off"),
        (chat(), {"OpenAI_Beta": "assistants=v2"}, {}, "a batch can't carry the header openai-beta"),
        (chat(stream=True), {}, {}, "a stream can't wait"),
        (chat(), {"Authorization": ""}, {}, "there is no credential to send it with"),
        (chat(), {}, {"defer__max_bytes": 1024, "upstream__retries": 0}, ""),
    ],
)
async def test_what_cannot_wait_is_answered_at_once(
    up: BatchUpstream, tmp_path: Path, body: Any, headers: dict[str, str], settings: dict[str, Any], reason: str
) -> None:
    async with deferring(up, tmp_path, **settings) as proxy:
        if not headers.get("Authorization", "x"):
            proxy.client.headers.pop("Authorization")
            headers = {}
        response = await proxy.post(body, **DAY, **headers)
        if not reason:
            assert response.status_code == 202
            return
        assert response.status_code == 200
        (row,) = await proxy.rows(1)
    assert ["defer", "at once", reason] in json.loads(row["decisions"])
    assert len(up.calls) == 1 and not up.asked


async def test_a_route_that_only_observes_keeps_nobody_from_waiting(up: BatchUpstream, tmp_path: Path) -> None:
    route = {"name": "r", "mode": "observe", "model": "m", "variants": ["v"]}
    async with deferring(up, tmp_path, variants=[{"name": "v", "model": "other"}], routes=[route]) as proxy:
        kept = await proxy.post(chat("wait for me"), **DAY)
        assert kept.status_code == 202
        await until(proxy, kept.json()["id"], "completed")
        await books(proxy, up, 1)


async def test_only_its_own_credential_sees_it(up: BatchUpstream, tmp_path: Path) -> None:
    up.polls = 10**6
    async with deferring(up, tmp_path, server__admin_token="admin") as proxy:
        id = (await proxy.post(chat(), **DAY)).json()["id"]
        for other in ({"Authorization": "Bearer sk-two"}, {"Authorization": "Bearer admin"}):
            for method, path in (("GET", ""), ("GET", "/result"), ("DELETE", ""), ("POST", "/cancel")):
                refused = await proxy.client.request(method, f"{HERE}/{id}{path}", headers=other)
                assert refused.status_code == 404
                assert id not in refused.text
            assert (await proxy.client.get(HERE, headers=other)).json()["data"] == []
        mine = (await proxy.client.get(HERE)).json()
        assert mine["object"] == "list" and [one["id"] for one in mine["data"]] == [id]
        assert (await proxy.client.get(f"{HERE}/{id}/x")).status_code == 404
        assert (await proxy.client.put(f"{HERE}/{id}")).status_code == 405


async def test_cancel_before_it_is_sent_costs_nothing(up: BatchUpstream, tmp_path: Path) -> None:
    async with deferring(up, tmp_path, defer__flush_s=100) as proxy:
        id = (await proxy.post(chat(), **DAY)).json()["id"]
        cancelled = await proxy.client.delete(f"{HERE}/{id}")
        gone = await result(proxy, id)
        (row,) = await books(proxy, up, 1)
    assert cancelled.json()["status"] == "cancelled"
    assert gone.status_code == 410
    assert (row["outcome"], row["cost_usd"]) == ("abandoned", 0)
    assert not up.asked


async def test_cancel_of_one_that_is_under_way_is_booked_when_it_is_known(up: BatchUpstream, tmp_path: Path) -> None:
    up.polls = 10
    async with deferring(up, tmp_path) as proxy:
        ids = [(await proxy.post(chat(text), **DAY)).json()["id"] for text in ("one", "two")]
        while not up.batches:
            await asyncio.sleep(0.02)
        await until(proxy, ids[0], "in_progress")
        assert (await proxy.client.post(f"{HERE}/{ids[0]}/cancel")).json()["status"] == "cancelled"
        await until(proxy, ids[1], "completed")
        rows = await books(proxy, up, 2)
    assert {row["outcome"] for row in rows} == {"abandoned", "completed"}
    assert all(row["cost_usd"] for row in rows)


async def test_errors_come_as_the_api_would_have_given_them(up: BatchUpstream, tmp_path: Path) -> None:
    up.statuses = {"bad": 400, "busy": 503, "lost": 0}
    async with deferring(up, tmp_path) as proxy:
        ids = [(await proxy.post(chat(text), **DAY)).json()["id"] for text in ("good", "bad", "busy", "lost")]
        for id in ids:
            await until(proxy, id, "completed")
        got = [await result(proxy, id) for id in ids]
        await books(proxy, up, 4)
    assert [one.status_code for one in got] == [200, 400, 200, 200]
    assert got[1].json()["error"]["message"] == "scripted 400"
    assert [call.json["messages"][0]["content"] for call in up.calls] == ["busy", "lost"]  # these were sent directly


@pytest.mark.parametrize("ends", ["failed", "expired"])
async def test_a_batch_that_ends_badly_leaves_nobody_without_an_answer(
    up: BatchUpstream, tmp_path: Path, ends: str
) -> None:
    up.ends, up.answers_before_end = ends, 1
    async with deferring(up, tmp_path, **TOGETHER) as proxy:
        ids = [(await proxy.post(chat(text), **DAY)).json()["id"] for text in ("one", "two", "three")]
        for id in ids:
            assert (await until(proxy, id, "completed"))["status_code"] == 200
        await books(proxy, up, 3)
    assert len(up.calls) == (3 if ends == "failed" else 1)  # an expired batch is tried once more


@pytest.mark.parametrize("where", ["refuses", "refuse_create"])
async def test_an_upstream_that_takes_no_batch_is_asked_directly(up: BatchUpstream, tmp_path: Path, where: str) -> None:
    setattr(up, where, 404)
    async with deferring(up, tmp_path) as proxy:
        id = (await proxy.post(chat(), **DAY)).json()["id"]
        await until(proxy, id, "completed")
        (row,) = await books(proxy, up, 1)
    assert ["defer", "sent directly", "batch_refused"] in json.loads(row["decisions"])


async def test_a_batch_api_that_is_away_is_tried_again(up: BatchUpstream, tmp_path: Path) -> None:
    up.refuses = 503
    async with deferring(up, tmp_path) as proxy:
        id = (await proxy.post(chat(), **DAY)).json()["id"]
        while len(up.asked) < 3:
            await asyncio.sleep(0.02)
        up.refuses = 0
        await until(proxy, id, "completed")
        await books(proxy, up, 1)
    assert up.calls == []


async def test_what_is_not_done_in_time_is_sent_directly(up: BatchUpstream, tmp_path: Path) -> None:
    up.polls = 10**6
    async with deferring(up, tmp_path) as proxy:
        id = (await proxy.post(chat(), x_farthing_defer="1s")).json()["id"]
        assert (await until(proxy, id, "completed"))["status_code"] == 200
        await books(proxy, up, 1)
    # The batch was broken off; it had answered it by then, so it wasn't asked for twice.
    assert "POST /v1/batches/batch_1/cancel" in up.asked
    assert len(up.calls) + len(up.batched) == 1


async def test_an_unsent_one_is_sent_directly_at_its_deadline(up: BatchUpstream, tmp_path: Path) -> None:
    async with deferring(up, tmp_path, defer__flush_s=5, defer__poll_s=0.1) as proxy:
        id = (await proxy.post(chat(), x_farthing_defer="1s")).json()["id"]
        await until(proxy, id, "completed")
        (row,) = await books(proxy, up, 1)
    assert ["defer", "sent directly", "deadline"] in json.loads(row["decisions"])
    assert len(up.calls) == 1 and not up.asked


async def test_batches_hold_one_endpoint_one_model_and_one_credential(up: BatchUpstream, tmp_path: Path) -> None:
    async with deferring(up, tmp_path, defer__max_items=2, defer__flush_s=0.3) as proxy:
        ids = [(await proxy.post(chat(f"{number}"), **DAY)).json()["id"] for number in range(3)]
        ids.append((await proxy.post(chat("x") | {"model": "m-2026-01-01"}, **DAY)).json()["id"])
        ids.append((await proxy.post({"model": "m", "input": "x"}, "/v1/embeddings", **DAY)).json()["id"])
        other = (await proxy.post(chat("y"), **DAY, Authorization="Bearer sk-two")).json()["id"]
        for id in ids:
            await until(proxy, id, "completed")
        await until(proxy, other, "completed", Authorization="Bearer sk-two")
    assert sorted(len(made.lines) for made in up.batches.values()) == [1, 1, 1, 1, 2]
    assert {made.owner for made in up.batches.values()} == {"Bearer sk-one", "Bearer sk-two"}


async def test_no_credential_is_written_and_no_prompt_outlives_its_answer(up: BatchUpstream, tmp_path: Path) -> None:
    async with deferring(up, tmp_path, defer__keep_s=1) as proxy:
        id = (await proxy.post(chat("a very secret prompt"), **DAY)).json()["id"]
        await until(proxy, id, "completed")
        await proxy.rows(1)
        for _ in range(100):
            with closing(sqlite3.connect(tmp_path / "deferred.db")) as db:
                if db.execute("select body from requests").fetchone() == (None,):
                    break
            await asyncio.sleep(0.02)
        else:
            raise AssertionError("the prompt is still there")
        for _ in range(200):
            if (await proxy.client.get(f"{HERE}/{id}")).status_code == 404:
                break
            await asyncio.sleep(0.02)
        else:
            raise AssertionError("the result is still there")
    raw = b"".join(path.read_bytes() for path in tmp_path.glob("deferred.db*"))
    assert b"secret prompt" not in raw and b"sk-one" not in raw
    assert (tmp_path / "deferred.db").stat().st_mode & 0o077 == 0


async def test_a_hard_budget_reserves_what_waits(up: BatchUpstream, tmp_path: Path) -> None:
    budgets = [{"name": "all", "usd": "0.0008", "per": "day", "hard": True}]
    async with deferring(up, tmp_path, budgets=budgets, defer__flush_s=0.5) as proxy:
        asked = chat("x", max_tokens=40)
        first = await proxy.post(asked, **DAY)
        refused = await proxy.post(chat("y", max_tokens=40), **DAY)
        assert first.status_code == 202
        assert refused.status_code == 402, refused.text
        await until(proxy, first.json()["id"], "completed")
        await books(proxy, up, 2)
        await asyncio.sleep(0.05)
        assert (await proxy.post(chat("z", max_tokens=40))).status_code == 200  # the rest came back


async def test_a_restart_goes_on_when_its_client_comes_back(up: BatchUpstream, tmp_path: Path) -> None:
    up.polls = 10
    async with deferring(up, tmp_path) as proxy:
        sent = (await proxy.post(chat("sent"), **DAY)).json()["id"]
        while not up.batches:
            await asyncio.sleep(0.02)
    async with deferring(up, tmp_path, defer__flush_s=100) as proxy:
        unsent = (await proxy.post(chat("unsent"), **DAY, Authorization="Bearer sk-two")).json()["id"]
    before = len(up.asked)
    async with deferring(up, tmp_path) as proxy:
        await asyncio.sleep(0.2)
        assert len(up.asked) == before  # nobody's key is known
        await until(proxy, sent, "completed")
        two = {"Authorization": "Bearer sk-two"}
        await until(proxy, unsent, "completed", **two)
        await books(proxy, up, 2)
    assert len(up.batches) == 2


async def test_with_the_operators_key_a_restart_needs_nobody(up: BatchUpstream, tmp_path: Path) -> None:
    async with deferring(up, tmp_path, upstream__api_key="sk-operator", defer__flush_s=100) as proxy:
        await proxy.post(chat(), **DAY)
    async with deferring(up, tmp_path, upstream__api_key="sk-operator") as proxy:
        await books(proxy, up, 1)
    assert [made.owner for made in up.batches.values()] == ["Bearer sk-operator"]


async def test_one_whose_credential_never_comes_back_fails_and_says_why(up: BatchUpstream, tmp_path: Path) -> None:
    async with deferring(up, tmp_path, defer__flush_s=100) as proxy:
        id = (await proxy.post(chat(), x_farthing_defer="1s")).json()["id"]
    await asyncio.sleep(1)
    async with deferring(up, tmp_path) as proxy:
        (row,) = await books(proxy, up, 1)
        told = await until(proxy, id, "failed")
        assert (await result(proxy, id)).json()["error"]["code"] == "credential_lost"
    assert told["error"]["code"] == "credential_lost"
    assert row["outcome"] == "failed"
    assert not up.asked and not up.calls


async def test_a_batch_whose_making_was_cut_off_is_found_and_not_paid_for_twice(
    up: BatchUpstream, tmp_path: Path
) -> None:
    up.hang_up_after_create = True
    async with deferring(up, tmp_path) as proxy:
        id = (await proxy.post(chat(), **DAY)).json()["id"]
        await until(proxy, id, "completed")
        await books(proxy, up, 1)
    assert len(up.batches) == 1


async def test_the_price_of_the_tier_where_it_is_known(up: BatchUpstream, tmp_path: Path) -> None:
    rates = {"input_usd_per_mtok": 2, "output_usd_per_mtok": 8, "tiers": {"batch": {"times": "0.25"}}}
    async with deferring(up, tmp_path, prices={"models": {"m": rates}}) as proxy:
        await until(proxy, (await proxy.post(chat(), **DAY)).json()["id"], "completed")
        (row,) = await proxy.rows(1)
    assert row["cost_usd"] * 4 == row["baseline_usd"]
    assert row["modelled"] == 0


async def test_a_request_that_is_not_deferred_is_as_it_was(up: BatchUpstream, tmp_path: Path) -> None:
    up.script(Script())
    async with deferring(up, tmp_path) as proxy:
        response = await proxy.post(chat())
        await proxy.rows(1)
    assert response.status_code == 200 and not up.asked


async def test_a_client_that_leaves_while_its_request_is_kept_is_paid_for_and_booked_once(
    up: BatchUpstream, tmp_path: Path
) -> None:
    async with deferring(up, tmp_path, budgets=[{"name": "b", "usd": 1, "per": "day"}]) as proxy:
        with closing(sqlite3.connect(tmp_path / "deferred.db", isolation_level=None)) as other:
            other.execute("begin immediate")  # so that keeping it takes a while
            with pytest.raises(httpx.ReadTimeout):
                late: Any = {"headers": {"x-farthing-defer": "24h"}, "timeout": 0.3}
                await proxy.client.post("/v1/chat/completions", json=chat("gone"), **late)
            other.execute("rollback")
        for _ in range(500):
            listed = (await proxy.client.get(HERE)).json()["data"]
            if listed and listed[0]["status"] == "completed":
                break
            await asyncio.sleep(0.02)
        [row] = await books(proxy, up, 1)
        accounts = proxy.services.state.accounts
        assert accounts is not None
        [standing] = await accounts.standing(row["ts"])
    assert (row["status"], row["cache_reason"]) == (200, "deferred") and len(up.batched) == 1
    assert (standing.spent, standing.held) == (row["cost_usd"], 0)


@pytest.mark.parametrize("row", ["lost", "there"])
@pytest.mark.parametrize("way", ["batch", "direct"])
async def test_one_whose_booking_was_cut_off_is_booked_once_and_at_its_own_price(
    up: BatchUpstream, tmp_path: Path, way: str, row: str
) -> None:
    """The process ends when the answer is kept, before or after the ledger has its row."""
    up.refuses = 403 if way == "direct" else 0
    stops = "create trigger stops before update on requests when new.booked begin select raise(abort, 'gone'); end"
    budgets = [{"name": "b", "usd": 1, "per": "day"}]
    async with deferring(up, tmp_path, upstream__api_key="sk-op", budgets=budgets) as proxy:
        with closing(sqlite3.connect(tmp_path / "deferred.db")) as conn:
            conn.execute(stops)
        await until(proxy, (await proxy.post(chat("x"), **DAY)).json()["id"], "completed")
        await proxy.rows(1)
    for file, undone in (("ledger.db", "delete from requests"), ("deferred.db", "drop trigger stops")):
        with closing(sqlite3.connect(tmp_path / file)) as conn, conn:
            if row == "lost" or file == "deferred.db":
                conn.execute(undone)
    async with deferring(up, tmp_path, upstream__api_key="sk-op", budgets=budgets) as proxy:
        for _ in range(500):
            with closing(sqlite3.connect(tmp_path / "deferred.db")) as conn:
                if conn.execute("select booked from requests").fetchone()[0]:
                    break
            await asyncio.sleep(0.02)
        [booked] = await books(proxy, up, 1)
    assert len(up.calls + up.batched) == 1
    assert booked["cost_usd"] * (1 if way == "direct" else 2) == booked["baseline_usd"] > 0
