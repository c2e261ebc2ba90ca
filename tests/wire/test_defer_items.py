"""Deferred embeddings of which a part is known: the rest alone goes into the batch, and the books are exact."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.clock import FakeClock
from tests.fakes.batches import BatchUpstream, batching
from tests.fakes.proxying import Proxied
from tests.fakes.upstream import Script
from tests.wire.test_defer import DAY, books, deferring, result, until

WHERE = "/v1/embeddings"


@pytest.fixture
async def up() -> AsyncIterator[BatchUpstream]:
    async with batching() as one:
        yield one


async def known(proxy: Proxied, texts: list[str], **more: Any) -> None:
    """Ask at once, so that these are known."""
    assert (await proxy.post({"model": "m", "input": texts} | more, WHERE)).status_code == 200
    await proxy.rows(1)
    await asyncio.sleep(0.05)


def longer(up: BatchUpstream) -> None:
    """From now on its vectors have a number more, so that a part's don't fit what is known."""
    plain = up._embeddings

    def answer(call: Any, asked: dict[str, Any], script: Any) -> Any:
        kind, pieces = plain(call, asked, script)
        value = json.loads(b"".join(pieces))
        for one in value["data"]:
            one["embedding"] += [1.0]
        return kind, [json.dumps(value).encode()]

    up._embeddings = answer  # type: ignore[method-assign]


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_only_the_unknown_goes_into_the_batch(up: BatchUpstream, tmp_path: Path, encoding: str) -> None:
    body = {"model": "m", "input": ["new", "known text", "other new", "new"], "encoding_format": encoding}
    async with deferring(up, tmp_path) as proxy:
        await known(proxy, ["known text"], encoding_format="base64")
        kept = (await proxy.post(body, WHERE, **DAY)).json()
        await until(proxy, kept["id"], "completed")
        got = (await result(proxy, kept["id"])).json()
        rows = await books(proxy, up, 2)
        at_once = (await proxy.post(body, WHERE)).json()
    assert [call.json["input"] for call in up.batched] == [["new", "other new"]]
    assert [one["index"] for one in got["data"]] == [0, 1, 2, 3]
    assert got["data"][0]["embedding"] == got["data"][3]["embedding"]
    assert got == at_once  # all is known now, and it is the same
    assert got["usage"]["prompt_tokens"] == 1 + 2 + 2 + 1
    row = next(row for row in rows if row["id"] == kept["id"])
    assert (row["tokens_in_original"], row["tokens_in_sent"]) == (6, 3)
    assert row["saved_exact_usd"] == 3 * 2 * 10**6  # the known text and the repeated one, at two dollars a million
    assert row["saved_route_usd"] == row["cost_usd"] == 3 * 10**6
    assert ["exact", "items", "1/4 known"] in json.loads(row["decisions"])


async def test_what_is_known_then_survives_a_restart_and_a_purge(up: BatchUpstream, tmp_path: Path) -> None:
    key = {"upstream__api_key": "sk-op"}
    async with deferring(up, tmp_path, defer__flush_s=100, **key) as proxy:
        await known(proxy, ["known text"])
        kept = (await proxy.post({"model": "m", "input": ["new", "known text"]}, WHERE, **DAY)).json()
    for path in tmp_path.glob("answers.db*"):
        path.unlink()
    async with deferring(up, tmp_path, **key) as proxy:
        await until(proxy, kept["id"], "completed")
        got = (await result(proxy, kept["id"])).json()
        await books(proxy, up, 2)
    assert [one["embedding"][0] for one in got["data"]] == [3.0, 10.0]
    assert [call.json["input"] for call in up.batched] == [["new"]]


async def test_what_does_not_fit_is_asked_for_whole_and_nothing_is_lost_in_the_books(
    up: BatchUpstream, tmp_path: Path
) -> None:
    async with deferring(up, tmp_path, defer__flush_s=0.3) as proxy:
        await known(proxy, ["known text"])
        kept = (await proxy.post({"model": "m", "input": ["new", "known text"]}, WHERE, **DAY)).json()
        longer(up)
        await until(proxy, kept["id"], "completed")
        got = (await result(proxy, kept["id"])).json()
        rows = await proxy.rows(2)
    row = next(row for row in rows if row["id"] == kept["id"])
    assert [len(one["embedding"]) for one in got["data"]] == [4, 4]
    assert [call.json["input"] for call in up.calls[1:]] == [["new", "known text"]]
    assert ["defer", "sent directly", "items_dont_fit"] in json.loads(row["decisions"])
    assert row["baseline_usd"] == 3 * 2 * 10**6  # of all three tokens
    # No price of the tier is known here: what the batch charged counts as a call at once, and is marked as modelled.
    assert row["cost_usd"] == (3 + 1) * 2 * 10**6 and row["modelled"] == 1
    assert row["saved_route_usd"] == -1 * 2 * 10**6
    assert row["attempts"] == 2


async def test_a_part_that_no_batch_answers_is_asked_for_by_itself(up: BatchUpstream, tmp_path: Path) -> None:
    up.refuses = 404
    async with deferring(up, tmp_path) as proxy:
        await known(proxy, ["known text"])
        kept = (await proxy.post({"model": "m", "input": ["new", "known text"]}, WHERE, **DAY)).json()
        await until(proxy, kept["id"], "completed")
        got = (await result(proxy, kept["id"])).json()
        await books(proxy, up, 2)
    assert [call.json["input"] for call in up.calls[1:]] == [["new"]]
    assert [one["embedding"][0] for one in got["data"]] == [3.0, 10.0]


async def test_what_was_paid_for_in_vain_is_not_sent_again_without_its_bill(up: BatchUpstream, tmp_path: Path) -> None:
    """The part's answer doesn't fit, and then the upstream is busy: a further try would forget what the part cost."""
    up.refuses = 404
    async with deferring(up, tmp_path, upstream__retries=0, defer__flush_s=0.3) as proxy:
        await known(proxy, ["known text"])
        kept = (await proxy.post({"model": "m", "input": ["new", "known text"]}, WHERE, **DAY)).json()
        plain = up._embeddings

        def another(call: Any, asked: dict[str, Any], script: Any) -> Any:
            kind, pieces = plain(call, asked, script)
            return kind, [
                b"".join(pieces).replace(b'"model": "m"', b'"model": "m2"').replace(b'"model":"m"', b'"model":"m2"')
            ]

        up._embeddings = another  # type: ignore[method-assign]
        up.script(Script(), Script(status=429))
        told = await until(proxy, kept["id"], "completed")
        rows = await proxy.rows(2)
    row = next(row for row in rows if row["id"] == kept["id"])
    assert told["status_code"] == 429 and len(up.calls) == 3
    assert row["attempts"] == 2 and json.loads(row["attempts_detail"])[0]["status"] == 200


@pytest.mark.parametrize("why", ["credential_lost", "unreadable"])
async def test_what_a_batch_charged_in_vain_is_booked_though_nobody_can_ask_again(
    up: BatchUpstream, tmp_path: Path, why: str
) -> None:
    clock = FakeClock()
    key = {"store__encryption_key": "0123456789abcdef" * 4} if why == "unreadable" else {}
    async with deferring(up, tmp_path, clock=clock, upstream__retries=0, defer__flush_s=0.3, **key) as proxy:
        await known(proxy, ["known text"])
        kept = (await proxy.post({"model": "m", "input": ["new", "known text"]}, WHERE, **DAY)).json()
        longer(up)
        up.default = Script(status=503)
        while len(up.calls) < 2:  # the part was answered by a batch, and doesn't fit: the whole was asked for in vain
            clock.advance(0.1)
            await asyncio.sleep(0.02)
    assert len(up.batched) == 1
    if why == "credential_lost":
        clock.advance(86_401.0)
    async with deferring(up, tmp_path, clock=clock, defer__flush_s=0.3) as proxy:
        if why == "unreadable":
            await proxy.client.get("/farthing/api/deferred")  # who asked is known again, but not what
        told = await until(proxy, kept["id"], "failed")
        rows = await proxy.rows(2)
    row = next(row for row in rows if row["id"] == kept["id"])
    assert told["error"]["code"] == why and row["outcome"] == "failed"
    assert len(up.calls) == 2, "nobody asked again"
    assert row["cost_usd"] == 1 * 2 * 10**6  # a token, at its price at once: none of the tier is known
    assert row["attempts"] == 1 and json.loads(row["attempts_detail"])[0]["status"] == 200
