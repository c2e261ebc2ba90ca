"""A route on the wire: it observes, serves once its bound is proved, is audited, and goes back by itself."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from farthing.policies.agree_measured import comparator
from farthing.proxy import figures
from farthing.proxy.outcomes import read_only
from tests.fakes.proxying import Proxied, chat, proxied, quiet
from tests.fakes.upstream import ScriptedUpstream
from tests.wire.test_semantic import how, learnt, loaded

# A loose promise, so that a few dozen labels prove it; what it takes at 1 % is bench/validity's to show.
LOOSE: dict[str, Any] = {
    "semantic__mode": "serve",
    "semantic__max_wrong": 0.25,
    "semantic__confidence": 0.8,
    "semantic__deadline_ms": 5000,
}
SAYS = "Ask the support desk, which is open from nine to five."
_THINGS = (
    *("password", "invoice", "passport", "router", "charger", "garden", "kettle", "bicycle", "camera", "engine"),
    *("ticket", "mirror", "window", "carpet", "blanket", "wallet", "pencil", "tablet", "printer", "scooter"),
    *("helmet", "saddle", "ladder", "hammer", "teapot", "curtain", "cushion", "lantern", "freezer", "toaster"),
)


def pairs() -> Iterator[tuple[str, str]]:
    """Questions and their rewordings, each pair about another thing."""
    for verb in ("clean", "repair", "replace", "return"):
        for thing in _THINGS:
            yield f"How do I {verb} my {thing}?", f"How can I {verb} my {thing}?"


async def taught(proxy: Proxied, asked: Iterator[tuple[str, str]], most: int = 100) -> int:
    """Ask pairs until one is answered by a near-duplicate; how many labels that took."""
    for number in range(most):
        question, again = next(asked)
        await proxy.post(chat(question))
        await quiet(proxy)
        answer = await proxy.post(chat(again))
        await quiet(proxy)
        if how(answer) == "hit-semantic":
            return number
    raise AssertionError(f"nothing was served after {most} pairs: {proxy.services.semantic.reuse.state()}")


@pytest.fixture
def up(up: ScriptedUpstream) -> ScriptedUpstream:
    """An upstream that answers everything alike."""
    up.default.says = SAYS
    return up


@pytest.fixture
def asked() -> Iterator[tuple[str, str]]:
    return pairs()


async def test_a_route_serves_once_its_bound_is_proved_and_says_which(
    up: ScriptedUpstream, tmp_path: Path, asked: Iterator[tuple[str, str]]
) -> None:
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        await loaded(proxy)
        labels = await taught(proxy, asked)
        question, again = next(asked)
        await proxy.post(chat(question))
        await quiet(proxy)
        hit = await proxy.post(chat(again))
        told = (await proxy.client.get("/farthing/api/semantic")).json()
        rows = await proxy.rows()

    assert labels >= 6  # ln(5) / 0.25 good labels are the least that any proof needs
    assert how(hit) == "hit-semantic"
    assert 0 < float(hit.headers["x-farthing-bound"]) <= 0.25
    row = next(one for one in rows if one["id"] == hit.headers["x-farthing-id"])
    assert (row["cache_reason"], row["cost_usd"]) == ("proved", 0)
    assert row["saved_semantic_usd"] == row["baseline_usd"] > 0
    assert row["p_wrong"] is not None
    route = told["routes"][0]
    assert (route["serving"], route["proof"], told["max_wrong"]) == (True, "own", 0.25)
    assert route["route"]["name"].startswith("m ")


async def test_nothing_is_served_where_answers_differ(
    up: ScriptedUpstream, tmp_path: Path, asked: Iterator[tuple[str, str]]
) -> None:
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        await loaded(proxy)
        for number in range(30):
            for text in next(asked):
                up.default.says = f"It takes {number} days for {len(text)} of them."
                answer = await proxy.post(chat(text))
                await quiet(proxy)
                assert how(answer) == "miss"


async def test_an_answer_is_never_its_own_witness(up: ScriptedUpstream, tmp_path: Path) -> None:
    """One prompt again and again, each answer another: what replaced the candidate must not be compared with itself."""
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        await loaded(proxy)
        for number in range(40):
            up.default.says = f"It takes {number} days."
            await proxy.post(chat("How do I clean my kettle?"), Cache_Control="max-age=0")
            await quiet(proxy)
        states = proxy.services.semantic.reuse.state()
    assert not any(one.serving or one.labels for one in states)


async def test_a_stream_that_ends_in_an_error_says_nothing_of_the_candidate(
    up: ScriptedUpstream, tmp_path: Path, asked: Iterator[tuple[str, str]]
) -> None:
    async with proxied(up.url, tmp_path, **LOOSE, upstream__retries=0) as proxy:
        await loaded(proxy)
        question, again = next(asked)
        await proxy.post(chat(question))
        await quiet(proxy)
        up.default.error_event = True
        await proxy.post(chat(again, stream=True))
        await quiet(proxy)
        assert "not proved: 0 labels" in proxy.services.semantic.reuse.state()[0].reason


async def test_every_audit_is_paid_for_in_the_books_and_a_change_ends_the_serving(
    up: ScriptedUpstream, tmp_path: Path, asked: Iterator[tuple[str, str]]
) -> None:
    async with proxied(up.url, tmp_path, **LOOSE, semantic__audit_share=1.0) as proxy:
        await loaded(proxy)
        await taught(proxy, asked)
        ways = []
        for _ in range(40):
            question, again = next(asked)
            up.default.says = SAYS
            await proxy.post(chat(question))
            await quiet(proxy)
            up.default.says = "Never do that."
            ways.append(how(await proxy.post(chat(again))))
            await quiet(proxy)
        rows = await proxy.rows()
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as ledger:
            total = figures.summary(ledger, 0, 2e9).total

    assert ways[0] == "hit-semantic"
    assert set(ways[-10:]) == {"miss"}
    audits = [row for row in rows if row["endpoint"] == "audit"]
    assert 0 < len(audits) <= [row["cache"] for row in rows].count("hit-semantic")
    assert all((row["cost_usd"], row["baseline_usd"]) == (0, 0) and row["overhead_usd"] > 0 for row in audits)
    assert sum(row["cost_usd"] + row["overhead_usd"] for row in rows) == up.bill(("2", "1", "8")) * 10**12
    assert total.requests == len(rows) - len(audits)
    assert total.overhead == sum(row["overhead_usd"] for row in audits)
    said = {one.request_id: one for one in read_only(tmp_path) if one.metric == "audit"}
    hits = {row["id"] for row in rows if row["cache"] == "hit-semantic"}
    assert 0 < len(said) <= len(audits) and said.keys() <= hits
    assert {one.source for one in said.values()} == {"audit"} and min(one.value for one in said.values()) == 0.0


async def test_audits_stop_where_their_money_ends(
    up: ScriptedUpstream, tmp_path: Path, asked: Iterator[tuple[str, str]]
) -> None:
    async with proxied(up.url, tmp_path, **LOOSE, semantic__audit_share=1.0, semantic__audit_daily_usd="0") as proxy:
        await loaded(proxy)
        await taught(proxy, asked)
        assert not [row for row in await proxy.rows() if row["endpoint"] == "audit"]


async def test_what_is_learnt_outlives_a_restart_and_a_damaged_file_proves_nothing(
    up: ScriptedUpstream, tmp_path: Path, asked: Iterator[tuple[str, str]]
) -> None:
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        await loaded(proxy)
        await taught(proxy, asked)
    question, again = next(asked)
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        await loaded(proxy)
        await proxy.post(chat(question))
        await quiet(proxy)
        assert how(await proxy.post(chat(again))) == "hit-semantic"
    (tmp_path / "reuse-verified.json").write_bytes(b'{"made_with": 1')
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        await loaded(proxy)
        question, again = next(asked)
        await proxy.post(chat(question))
        await quiet(proxy)
        assert how(await proxy.post(chat(again))) == "miss"
    assert (tmp_path / "reuse-verified.other.json").exists()


async def test_a_bad_rating_purges_the_answer_and_counts(
    up: ScriptedUpstream, tmp_path: Path, asked: Iterator[tuple[str, str]]
) -> None:
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        await loaded(proxy)
        await taught(proxy, asked)
        question, again = next(asked)
        await proxy.post(chat(question))
        await quiet(proxy)
        hit = await proxy.post(chat(again))
        kept = (await proxy.services.state.store.stats()).entries
        before = proxy.services.semantic.reuse.state()[0]
        rated = {"id": hit.headers["x-farthing-id"], "rating": "bad"}
        admin = {"x-farthing-admin": "1"}
        told = await proxy.client.post("/farthing/api/feedback", json=rated, headers=admin)
        repeated = await proxy.client.post("/farthing/api/feedback", json=rated, headers=admin)
        after = proxy.services.semantic.reuse.state()[0]
        left = (await proxy.services.state.store.stats()).entries
        malformed = await proxy.client.post("/farthing/api/feedback", json={"id": 1}, headers=admin)

    assert how(hit) == "hit-semantic"
    assert told.json() == {"kept": True, "known": True, "purged": 1}
    assert repeated.json() == {"kept": False, "known": True, "purged": 0}
    assert before.serving and (not after.serving or after.wrong > before.wrong)
    assert left == kept - 1
    assert malformed.status_code == 400


async def test_why_a_request_would_or_would_not_be_answered(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        await loaded(proxy)
        await proxy.post(chat("How do I clean my kettle?"))
        await learnt(proxy, 1)
        body = {"body": chat("How can I clean my kettle?"), "headers": {"Authorization": "Bearer sk-one"}}
        admin = {"x-farthing-admin": "1"}
        told = (await proxy.client.post("/farthing/api/cache/explain", json=body, headers=admin)).json()
        other = body | {"headers": {"Authorization": "Bearer sk-two"}}
        walled = (await proxy.client.post("/farthing/api/cache/explain", json=other, headers=admin)).json()
        fresh = {"body": chat("What is the latest news on kettles?")}
        refused = (await proxy.client.post("/farthing/api/cache/explain", json=fresh, headers=admin)).json()

    nearest = told["nearest"][0]
    assert nearest["cosine"] > 0.9 and 0 < nearest["score"] <= 1
    assert nearest["signals"]
    assert told["serving"] is False
    assert walled["verdict"] == "empty scope"
    assert refused["verdict"] == "freshness"


async def test_a_miss_says_which_part_differs_from_the_nearest_entry(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        await loaded(proxy)
        await proxy.post(chat("How do I clean my kettle?"))
        await learnt(proxy, 1)
        await proxy.post(chat("How can I clean my kettle?", temperature=0.3))
        said = sorted(json.loads(row["decisions"]) for row in await proxy.rows(2))
    assert said == [[["semantic", "looked", "empty scope"]], [["semantic", "looked", "empty scope: settings"]]]


def test_the_comparators_error_is_part_of_the_bound() -> None:
    assert 0.0 < comparator().false_same < 0.1


async def test_vcache_begins_with_the_first_answer_and_serves_an_entry_whose_curve_is_sure(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    vcache = {**LOOSE, "semantic__policy": "vcache", "semantic__per": "request"}
    async with proxied(up.url, tmp_path, **vcache) as proxy:
        await loaded(proxy)
        await proxy.post(chat("How do I clean my kettle?"))
        await learnt(proxy, 1)
        found = []
        for word in _THINGS[:40]:
            found.append(how(await proxy.post(chat(f"How do I clean my {word} kettle?"))))
            await quiet(proxy)
        entries = proxy.services.thread.entries if proxy.services.thread is not None else 0

    assert "hit-semantic" in found
    assert entries == 1  # what says the same needs no entry of its own
