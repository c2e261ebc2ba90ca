"""Embeddings input by input, over real servers: what is known isn't sent, and nobody can tell."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from farthing.proxy.clock import FakeClock
from farthing.proxy.tokens import Tokenizer
from tests.fakes.proxying import PRICES, Proxied, proxied, quiet
from tests.fakes.upstream import Script, ScriptedUpstream, scripted

PATH = "/v1/embeddings"
FULL = 0.10000002384185791  # a float32 that needs all of its nine digits
PER_MTOK = ("2", "1", "8")


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer()


class Vectors(ScriptedUpstream):
    """Its vectors depend on the text alone, and its tokens are ours."""

    model = ""

    def _embeddings(self, call: Any, asked: dict[str, Any], script: Script) -> tuple[str, list[bytes]]:
        given = asked["input"]
        one = isinstance(given, str) or isinstance(given[0], int)
        items = [given] if one else given
        count = tokenizer().count
        call.tokens_in = sum(count(item, "m") if isinstance(item, str) else len(item) for item in items)
        rows = []
        for index, item in enumerate(items):
            numbers = numbers_of(item)
            said: Any = list(numbers)
            if asked.get("encoding_format") == "base64":
                said = base64.b64encode(struct.pack("<4f", *numbers)).decode()
            rows.append({"object": "embedding", "index": index, "embedding": said})
        usage = {"prompt_tokens": call.tokens_in, "total_tokens": call.tokens_in}
        answer = {"object": "list", "data": rows, "model": self.model or call.model, "usage": usage}
        return "application/json", [json.dumps(answer).encode()]


def numbers_of(item: Any) -> tuple[float, ...]:
    text = str(item)
    return (FULL, float(len(text)), float(sum(map(ord, text))), -0.5)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def up() -> AsyncIterator[Vectors]:
    from aiohttp import web

    one = Vectors()
    server = web.Server(one.handle, handler_cancellation=True, auto_decompress=False, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield one
    await runner.cleanup()


def texts(first: int, last: int) -> list[str]:
    return [f"text number {number}" for number in range(first, last)]


def body(given: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "input": given} | more


async def post(proxy: Proxied, asked: Any, path: str, **headers: str) -> httpx.Response:
    """What is asked next finds what was stored: that is done when the client has its answer already."""
    response = await proxy.post(asked, path, **headers)
    await quiet(proxy)
    return response


def got(response: Any) -> list[Any]:
    assert response.status_code == 200, response.text
    return [row["embedding"] for row in response.json()["data"]]


async def identity_holds(proxy: Proxied, up: ScriptedUpstream, count: int) -> list[dict[str, Any]]:
    rows = await proxy.rows(count)
    for row in rows:
        saved = sum(row[name] for name in row if name.startswith("saved_"))
        assert row["baseline_usd"] - row["cost_usd"] == saved, row
    assert sum(row["cost_usd"] for row in rows) == int(up.bill(PER_MTOK) * 10**12)
    return rows


async def test_ninety_of_a_hundred_known(up: Vectors, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        first = await post(proxy, body(texts(0, 90)), PATH)
        mixed = texts(0, 100)[::-1]
        second = await post(proxy, body(mixed), PATH)
        third = await post(proxy, body(mixed), PATH)
        fourth = await post(proxy, body(mixed), PATH)
        rows = await identity_holds(proxy, up, 4)

    assert first.headers["x-farthing-cache"] == "miss"
    assert got(second) == [list(numbers_of(text)) for text in mixed]
    assert [row["index"] for row in second.json()["data"]] == list(range(100))
    assert up.calls[1].json["input"] == [text for text in mixed if text in texts(90, 100)]
    assert len(up.calls) == 2
    assert second.headers["x-farthing-cache"] == "miss"
    assert third.headers["x-farthing-cache"] == fourth.headers["x-farthing-cache"] == "hit-exact"
    assert third.json() == second.json() == fourth.json()
    tokens = [up.calls[0].tokens_in, up.calls[1].tokens_in]
    assert second.json()["usage"] == {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens)}
    assert second.headers["x-farthing-tokens-in"] == f"{sum(tokens)};{tokens[1]}"
    partly = rows[1]
    assert ["exact", "items", "90/100 known"] in json.loads(partly["decisions"])
    assert (partly["tokens_in_original"], partly["tokens_in_sent"]) == (sum(tokens), tokens[1])
    assert partly["cost_usd"] == tokens[1] * 2_000_000
    assert partly["saved_exact_usd"] == tokens[0] * 2_000_000
    assert partly["modelled"] == 0
    assert rows[2]["saved_exact_usd"] == rows[3]["saved_exact_usd"] == sum(tokens) * 2_000_000


async def test_singles_and_batches_share_in_both_encodings(up: Vectors, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        await post(proxy, body("a"), PATH)
        await post(proxy, body(["b"], encoding_format="base64"), PATH)
        floats = await post(proxy, body(["b", "a", "b"]), PATH)
        packed = await post(proxy, body(["a", "b"], encoding_format="base64"), PATH)
        await identity_holds(proxy, up, 4)

    assert len(up.calls) == 2
    assert got(floats) == [list(numbers_of(text)) for text in "bab"]
    assert got(packed) == [base64.b64encode(struct.pack("<4f", *numbers_of(text))).decode() for text in "ab"]
    assert floats.headers["x-farthing-cache"] == packed.headers["x-farthing-cache"] == "hit-exact"
    assert floats.json()["usage"]["prompt_tokens"] == 3


async def test_duplicates_are_sent_once_and_count_as_often_as_they_stand_there(up: Vectors, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        response = await post(proxy, body([[1, 2, 3], [4], [1, 2, 3], [1, 2, 3]]), PATH)
        rows = await identity_holds(proxy, up, 1)

    assert up.calls[0].json["input"] == [[1, 2, 3], [4]]
    assert got(response) == [list(numbers_of(item)) for item in ([1, 2, 3], [4], [1, 2, 3], [1, 2, 3])]
    assert response.json()["usage"] == {"prompt_tokens": 10, "total_tokens": 10}
    assert rows[0]["saved_exact_usd"] == 6 * 2_000_000


async def test_the_official_client_sees_no_difference(up: Vectors, tmp_path: Path) -> None:
    async with (
        proxied(up.url, tmp_path) as proxy,
        AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-one", max_retries=0) as near,
        AsyncOpenAI(base_url=up.url, api_key="sk-one", max_retries=0) as direct,
    ):
        for given in (["a", "b"], ["b", "c", "a"], ["c"], "c"):
            for more in ({}, {"encoding_format": "float"}, {"dimensions": 4}):
                await quiet(proxy)
                through: Any = await near.embeddings.create(model="m", input=given, **more)  # type: ignore[arg-type]
                past: Any = await direct.embeddings.create(model="m", input=given, **more)  # type: ignore[arg-type]
                assert through.to_dict() == past.to_dict()


async def test_who_joins_gets_the_whole_answer_and_its_whole_price(up: Vectors, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        await post(proxy, body(["a"]), PATH)
        up.script(Script(wait_s=0.2))
        first, second = await asyncio.gather(*(proxy.post(body(["a", "b"]), PATH) for _ in range(2)))
        rows = await identity_holds(proxy, up, 3)

    assert got(first) == got(second)
    joined = next(row for row in rows if row["cache"] == "joined")
    assert joined["saved_exact_usd"] == 2 * 2_000_000


@pytest.mark.parametrize(
    ("headers", "calls"),
    [
        ({"x_farthing_cache": "off"}, ["a", "b"]),
        ({"Cache_Control": "no-store"}, ["a", "b"]),
        ({"Cache_Control": "no-cache"}, ["a", "b"]),
        ({"Cache_Control": "max-age=5"}, ["a", "b"]),
        ({"x_farthing_off": "1"}, ["a", "b"]),
        ({"x_farthing_scope": "other"}, ["a", "b"]),
        ({"Authorization": "Bearer sk-two"}, ["a", "b"]),
        ({"OpenAI_Organization": "org"}, ["a", "b"]),
        ({}, ["b"]),
    ],
)
async def test_headers_rule_over_items(
    up: Vectors, tmp_path: Path, clock: FakeClock, headers: dict[str, str], calls: list[str]
) -> None:
    async with proxied(up.url, tmp_path, clock=clock) as proxy:
        await post(proxy, body(["a"]), PATH)
        clock.advance(10)
        response = await post(proxy, body(["a", "b"]), PATH, **headers)

    assert got(response) == [list(numbers_of("a")), list(numbers_of("b"))]
    assert up.calls[1].json["input"] == calls


async def test_only_if_cached_needs_all_of_them(up: Vectors, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        await post(proxy, body(["a"]), PATH)
        assert (await post(proxy, body(["a", "b"]), PATH, Cache_Control="only-if-cached")).status_code == 504
        assert (await post(proxy, body(["a", "a"]), PATH, Cache_Control="only-if-cached")).status_code == 200
    assert len(up.calls) == 1


async def test_no_store_keeps_none_and_a_ttl_ends(up: Vectors, tmp_path: Path, clock: FakeClock) -> None:
    async with proxied(up.url, tmp_path, clock=clock) as proxy:
        await post(proxy, body(["a"]), PATH, Cache_Control="no-store")
        await post(proxy, body(["a", "b"]), PATH, x_farthing_ttl="30")
        clock.advance(29)
        await post(proxy, body("b"), PATH)
        clock.advance(2)
        await post(proxy, body("b"), PATH)
    assert [call.json["input"] for call in up.calls] == [["a"], ["a", "b"], "b"]


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ({"key": "KEY"}, ["c"]),
        ({"tags": ["doc=one"]}, ["c"]),
        ({"older_than": "5s"}, ["c"]),
        ({"model": "m"}, []),
        ({}, []),
        ({"tags": ["doc=none"]}, ["a", "b", "c"]),
    ],
)
async def test_a_purge_reaches_the_items(
    up: Vectors, tmp_path: Path, clock: FakeClock, asked: dict[str, Any], left: list[str]
) -> None:
    async with proxied(up.url, tmp_path, clock=clock) as proxy:
        await post(proxy, body(["a", "b"]), PATH, x_farthing_tags="doc=one")
        clock.advance(10)
        await post(proxy, body(["a", "b", "c"]), PATH)  # an answer that all of them are part of
        await post(proxy, body(["a", "b", "c"]), PATH)
        key = (await proxy.rows(1))[0]["key_hash"]
        named = {name: key if value == "KEY" else value for name, value in asked.items()}
        purged = await proxy.client.post("/farthing/api/cache/purge", json=named, headers={"x-farthing-admin": "1"})
        assert purged.status_code == 200, purged.text
        before = len(up.calls)
        await post(proxy, body(["c", "b", "a"]), PATH)
    assert [item for call in up.calls[before:] for item in call.json["input"]] == [
        item for item in "cba" if item not in left
    ]


async def test_variants_are_kept_apart(up: Vectors, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, cache__variants=2) as proxy:
        for _ in range(40):
            assert got(await post(proxy, body(["a", "b"]), PATH)) == [list(numbers_of("a")), list(numbers_of("b"))]
        key = (await proxy.rows(1))[0]["key_hash"].partition(".")[0]
        assert len(up.calls) == 2
        await proxy.client.post("/farthing/api/cache/purge", json={"key": key}, headers={"x-farthing-admin": "1"})
        for _ in range(40):
            await post(proxy, body(["a", "b"]), PATH)
        assert len(up.calls) == 4


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_faults_go_on_unchanged(up: Vectors, tmp_path: Path, status: int) -> None:
    async with proxied(up.url, tmp_path, upstream__retries=0) as proxy:
        await post(proxy, body(["a"]), PATH)
        up.script(Script(status=status, headers={"x-request-id": "r"}))
        failed = await post(proxy, body(["a", "b"]), PATH)
        await identity_holds(proxy, up, 2)
    assert (failed.status_code, failed.headers["x-request-id"]) == (status, "r")
    assert failed.json()["error"]["message"] == f"scripted {status}"
    assert len(up.calls) == 2


async def test_a_fault_of_the_body_is_asked_for_with_the_clients_own(up: Vectors, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        await post(proxy, body(["a"]), PATH)
        up.script(Script(status=400), Script(status=400, body=b'{"error": {"message": "input[1] is too long"}}'))
        failed = await post(proxy, body(["a", "b"]), PATH)
        rows = await identity_holds(proxy, up, 2)
    assert failed.json()["error"]["message"] == "input[1] is too long"
    assert [call.json["input"] for call in up.calls[1:]] == [["b"], ["a", "b"]]
    assert rows[1]["attempts"] == 2


def whole(*rows: Any, model: str = "m") -> dict[str, Any]:
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": 5, "total_tokens": 5}}


@pytest.mark.parametrize(
    "odd",
    [whole(), whole([FULL, 1.0, 2.0, 3.0], [FULL, 1.0, 2.0, 3.0]), whole([0.5, 0.25]), whole([FULL] * 4, model="m-2")],
    ids=["none", "one too many", "another length", "another model"],
)
async def test_an_answer_that_does_not_fit_is_asked_for_anew_and_booked(
    up: Vectors, tmp_path: Path, odd: dict[str, Any]
) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        await post(proxy, body(["a"]), PATH)
        up.script(Script(body=json.dumps(odd).encode()))
        response = await post(proxy, body(["a", "b"]), PATH)
        rows = await proxy.rows(2)
        await post(proxy, body(["b"]), PATH)

    assert got(response) == [list(numbers_of("a")), list(numbers_of("b"))]
    assert [call.json["input"] for call in up.calls[1:]] == [["b"], ["a", "b"]]
    row = rows[1]
    billed = up.calls[2].tokens_in + 5
    if odd["model"] == "m":  # the other one has no price
        assert row["cost_usd"] == billed * 2_000_000
        saved = sum(row[name] for name in row if name.startswith("saved_"))
        assert (row["baseline_usd"] - row["cost_usd"], row["saved_route_usd"]) == (saved, -5 * 2_000_000)


async def test_can_be_switched_off(up: Vectors, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, cache__embedding_items=False) as proxy:
        await post(proxy, body(["a"]), PATH)
        await post(proxy, body(["a", "b"]), PATH)
        again = await post(proxy, body(["a", "b"]), PATH)
    assert [call.json["input"] for call in up.calls] == [["a"], ["a", "b"]]
    assert again.headers["x-farthing-cache"] == "hit-exact"


async def test_survives_a_restart(up: Vectors, tmp_path: Path) -> None:
    for given in (["a", "b"], ["b", "c", "a"]):
        async with proxied(up.url, tmp_path) as proxy:
            assert got(await post(proxy, body(given), PATH)) == [list(numbers_of(text)) for text in given]
    assert [call.json["input"] for call in up.calls] == [["a", "b"], ["c"]]


async def test_an_upstream_that_says_no_usage_is_counted(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        row = {"object": "embedding", "index": 0, "embedding": [FULL, 0.5]}
        up.default = Script(body=json.dumps({"object": "list", "model": "m", "data": [row]}).encode())
        await post(proxy, body(["a"]), PATH)
        response = await post(proxy, body(["a", "b"]), PATH)
        rows = await proxy.rows(2)
    assert got(response) == [[FULL, 0.5], [FULL, 0.5]]
    assert "usage" not in response.json()
    assert (rows[1]["usage_source"], rows[1]["modelled"]) == ("counted", 1)
    assert rows[1]["baseline_usd"] == 2 * rows[1]["cost_usd"] == 4_000_000
    assert Decimal(PRICES["models"]["m"]["input_usd_per_mtok"]) == 2
