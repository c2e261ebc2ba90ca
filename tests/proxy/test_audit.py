"""The audit of a served hit: it asks what the client asked, costs what the upstream bills, and stops at its cap."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.clock import FakeClock
from farthing.proxy.config_prices import Prices
from farthing.proxy.errand import Errands
from farthing.proxy.prices import RateCard
from tests.fakes.proxying import PRICES, Proxied, chat, proxied, quiet
from tests.fakes.upstream import Script, ScriptedUpstream, scripted
from tests.wire.test_semantic import SERVE, how, loaded

ASK, AGAIN = "How do I reset my password?", "How can I reset my password?"
DAY_S = 86_400


AUDITED = SERVE | {"semantic__audit_daily_usd": 1}


@pytest.fixture
async def up() -> AsyncIterator[ScriptedUpstream]:
    async with scripted() as upstream:
        yield upstream


async def audited_hit(proxy: Proxied, **more: Any) -> dict[str, Any]:
    """A near-duplicate, served and audited; the hit's row."""
    await loaded(proxy)
    await proxy.post(chat(ASK, **more))
    await quiet(proxy)
    hit = await proxy.post(chat(AGAIN, **more))
    await quiet(proxy)
    assert how(hit) == "hit-semantic"
    return next(row for row in await proxy.rows() if row["id"] == hit.headers["x-farthing-id"])


async def test_an_audit_asks_what_the_client_asked_as_the_client(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **AUDITED, semantic__audit_share=1.0) as proxy:
        hit = await audited_hit(proxy, temperature=0)
        rows = await proxy.rows()
    audit = next(row for row in rows if row["endpoint"] == "audit")
    sent = up.calls[-1]
    assert json.loads(sent.body) == chat(AGAIN, temperature=0)
    assert sent.headers["Authorization"] == "Bearer sk-one"
    assert (audit["cache"], audit["cache_reason"]) == ("bypass", f"audit of {hit['id']}")
    assert (audit["tenant"], audit["outcome"], audit["status"]) == (hit["tenant"], "completed", 200)
    assert (audit["cost_usd"], audit["baseline_usd"]) == (0, 0)
    assert audit["overhead_usd"] > 0


async def test_what_audits_cost_is_in_the_day_total_and_nowhere_twice(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **AUDITED, semantic__audit_share=1.0) as proxy:
        await audited_hit(proxy)
        told = (await proxy.client.get("/farthing/api/semantic")).json()
        rows = await proxy.rows()
        auditor = proxy.services.semantic.auditor
        assert auditor is not None
        total = auditor.errands.account.total.read(proxy.services.state.clock.now_s())
    spent = sum(row["overhead_usd"] for row in rows)
    assert told["audits_usd_today"] == pytest.approx(spent * 1e-12)
    assert total == spent + sum(row["cost_usd"] for row in rows) == up.bill(("2", "1", "8")) * 10**12


async def test_an_upstream_that_refuses_the_audit_teaches_nothing(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **AUDITED, semantic__audit_share=1.0, upstream__retries=0) as proxy:
        await loaded(proxy)
        await proxy.post(chat(ASK))
        await quiet(proxy)
        up.default.status = 500
        hit = await proxy.post(chat(AGAIN))
        await quiet(proxy)
        audit = next(row for row in await proxy.rows() if row["endpoint"] == "audit")
        states = proxy.services.semantic.reuse.state()
    assert how(hit) == "hit-semantic"
    assert audit["status"] == 500
    assert sum(one.labels for one in states) == 0


def auditor(clock: FakeClock, upstream: Any, limit_pico: int, hard: int | None = None) -> Errands:
    from farthing.policies.spend import DayTotal

    class Books:
        total = DayTotal()
        ledger = None
        rates = RateCard(Prices.model_validate(PRICES).models)

    books: Any = Books()
    nothing: Any = None
    return Errands("audit", upstream, books, limit_pico, hard, 1024, clock, nothing, set())


def test_the_cap_is_a_days_and_the_hard_limit_is_everybodys() -> None:
    clock = FakeClock(1_800_000_000.0)
    audits = auditor(clock, None, 100, hard=1_000)
    assert audits.may("m")
    audits.spent.add(100, clock.now_s())
    assert not audits.may("m")
    clock.advance(DAY_S)
    assert audits.may("m")
    audits.account.total.add(1_000, clock.now_s())
    assert not audits.may("m")


def test_what_has_no_price_is_not_audited() -> None:
    assert not auditor(FakeClock(1_800_000_000.0), None, 10**12).may("nobody-knows-its-price")


async def test_an_audit_goes_the_way_of_its_request_and_is_billed_as_far_as_it_came(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    routed = {"x_farthing_route": "m2"}
    async with proxied(up.url, tmp_path, **AUDITED, semantic__audit_share=1.0, upstream__retries=0) as proxy:
        await loaded(proxy)
        up.default.says = "Ask the desk."
        await proxy.post(chat(ASK, stream=True), **routed)
        await quiet(proxy)
        up.script(Script(cut_after=700, words=30))
        hit = await proxy.post(chat(AGAIN, stream=True), **routed)
        await quiet(proxy)
        audit = next(row for row in await proxy.rows() if row["endpoint"] == "audit")
    assert how(hit) == "hit-semantic"
    assert [call.json["model"] for call in up.calls] == ["m2", "m2"]
    assert audit["outcome"] == "failed"
    assert audit["tokens_out"] > 0


async def test_a_credential_that_an_audit_shows_to_be_revoked_gets_no_more_hits(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path, **AUDITED, semantic__audit_share=1.0, upstream__retries=0) as proxy:
        await loaded(proxy)
        await proxy.post(chat(ASK))
        await quiet(proxy)
        up.default.status = 401
        ways = []
        for _ in range(2):
            ways.append(how(await proxy.post(chat(AGAIN))))
            await quiet(proxy)
    assert ways == ["hit-semantic", "miss"]


def test_a_cap_of_nothing_allows_nothing() -> None:
    assert not auditor(FakeClock(1_800_000_000.0), None, 0).may("m")


async def test_an_entry_that_an_audit_shows_wrong_is_found_no_more_but_answers_its_own_question(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path, **AUDITED, semantic__audit_share=1.0) as proxy:
        await loaded(proxy)
        up.default.says = "It costs 7 euros."
        await proxy.post(chat(ASK))
        await quiet(proxy)
        up.default.says = "It costs 9 euros."
        ways = []
        for text in (AGAIN, "How could I reset my password?", ASK):
            ways.append(how(await proxy.post(chat(text))))
            await quiet(proxy)
        own = await proxy.post(chat(ASK))
        states = proxy.services.semantic.reuse.state()
    assert ways == ["hit-semantic", "miss", "hit-exact"]
    assert "7 euros" in own.text
    assert (states[0].labels, states[0].wrong) == (1, 1)  # what it was wrong in stays in the evidence


@pytest.mark.parametrize("says", ["It costs 7 euros.", "Seven euros, said the man, more or less and not by car."])
async def test_an_entry_stays_where_the_audit_agrees_or_can_not_tell(
    up: ScriptedUpstream, tmp_path: Path, says: str
) -> None:
    async with proxied(up.url, tmp_path, **AUDITED, semantic__audit_share=1.0) as proxy:
        await loaded(proxy)
        up.default.says = "It costs 7 euros."
        await proxy.post(chat(ASK))
        await quiet(proxy)
        up.default.says = says
        ways = []
        for text in (AGAIN, "How could I reset my password?"):
            ways.append(how(await proxy.post(chat(text))))
            await quiet(proxy)
    assert ways == ["hit-semantic", "hit-semantic"]
