"""What changes something, on a real proxy: purges, ratings, the switch; and what the page alerts to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Opener, marks, playwright
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.rows import DOLLAR, row
from tests.fakes.upstream import scripted
from tests.wire.test_semantic import AGAIN, ASK, SERVE, how, learnt, loaded

pytestmark = marks


async def ready(visit: Opener, proxy: Proxied, **more: Any) -> Any:
    page = await visit(proxy.url, "since=1h", **more)
    await page.wait_for_selector("main[data-state=ready]", timeout=20_000)
    return page


async def entries(proxy: Proxied) -> int:
    return (await proxy.services.state.store.stats()).entries


async def test_answers_are_removed_by_tag_only_after_a_yes(visit: Opener, tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        for text, tag in (("one", "doc=a"), ("two", "doc=a"), ("three", "doc=b")):
            await proxy.post(chat(text), x_farthing_tags=tag)
        await proxy.rows(3)
        page = await ready(visit, proxy)
        await page.fill("#purge-value", "doc=a")
        await page.press("#purge-value", "Enter")
        assert "stored with the tag doc=a" in await page.inner_text("#confirm-words")
        assert await page.evaluate("document.activeElement.id") == "confirm-no"
        await page.keyboard.press("Escape")
        assert await entries(proxy) == 3
        await page.click("#purge button")
        await page.click("#confirm-yes")
        await playwright.expect(page.locator("#upkeep-said")).to_have_text("2 answers removed.")
        assert await entries(proxy) == 1
        assert how(await proxy.post(chat("three"), x_farthing_tags="doc=b")) == "hit-exact"
        assert how(await proxy.post(chat("one"), x_farthing_tags="doc=a")) == "miss"
        await page.close()


async def test_answers_are_removed_by_age_by_tenant_and_all(visit: Opener, tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        for text in ("one", "two"):
            await proxy.post(chat(text))
            await proxy.post(chat(text), x_farthing_scope="desk")
        tenant = (await proxy.rows(4))[0]["tenant"]
        page = await ready(visit, proxy, fault=400)
        said = page.locator("#upkeep-said")

        async def purge(which: str, value: str) -> None:
            await page.select_option("#purge-which", which)
            if value:
                await page.fill("#purge-value", value)
            await page.click("#purge button")
            await page.click("#confirm-yes")

        await purge("older_than", "1h")
        await playwright.expect(said).to_have_text("0 answers removed.")
        await purge("model", "m-of-nobody")
        await playwright.expect(said).to_have_text("0 answers removed.")
        await purge("older_than", "whenever")
        await playwright.expect(said).to_contain_text("is no span of time")
        await purge("source", "nobody's")
        await playwright.expect(said).to_have_text("0 answers removed.")
        await purge("scope", "desk")
        await playwright.expect(said).to_have_text("2 answers removed.")
        await purge("tenant", tenant)
        await playwright.expect(said).to_have_text("2 answers removed.")
        await proxy.post(chat("three"))
        await purge("all", "")
        await playwright.expect(said).to_have_text("1 answer removed.")
        assert await entries(proxy) == 0
        await page.select_option("#purge-which", "tag")
        await page.click("#purge button")
        await playwright.expect(said).to_have_text("Say which: the field is empty.")
        await page.close()


async def test_the_answer_of_one_request_is_removed(visit: Opener, tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        await proxy.post(chat("one"))
        await proxy.post(chat("two"))
        await proxy.rows(2)
        page = await ready(visit, proxy)
        await page.click("#recent tbody button >> nth=0")
        await page.click("#detail button[name=remove]")
        await page.click("#confirm-yes")
        await playwright.expect(page.locator("#detail [role=status]")).to_have_text("The stored answer is removed.")
        assert await entries(proxy) == 1
        assert how(await proxy.post(chat("one"))) == "hit-exact"
        assert how(await proxy.post(chat("two"))) == "miss"
        await page.close()


async def test_a_bad_rating_removes_what_was_served(visit: Opener, tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, **SERVE) as proxy:
        await loaded(proxy)
        await proxy.post(chat(ASK))
        await learnt(proxy, 1)
        assert how(await proxy.post(chat(AGAIN))) == "hit-semantic"
        await proxy.rows(2)
        page = await ready(visit, proxy)
        await page.click("#recent tbody button >> nth=0")
        await page.click("#detail button[name=bad]")
        said = page.locator("#detail [role=status]")
        await playwright.expect(said).to_have_text("Rated bad: the rating is kept. Its stored answer is removed.")
        assert await entries(proxy) == 0
        await page.click("#detail button[name=bad]")
        await playwright.expect(said).to_contain_text("Rated bad already")
        assert how(await proxy.post(chat(AGAIN))) == "miss"
        await page.close()


async def test_the_switch_turns_all_optimisation_off_and_on(visit: Opener, tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        await proxy.post(chat())
        await proxy.rows(1)
        page = await ready(visit, proxy)
        await page.click("#switch")
        await page.click("#confirm-yes")
        await playwright.expect(page.locator("#alerts")).to_contain_text("All optimisation is off")
        assert how(await proxy.post(chat())) == "bypass"
        await page.click("#switch")
        await page.click("#confirm-yes")
        await playwright.expect(page.locator("#alerts")).to_be_empty()
        assert how(await proxy.post(chat())) == "hit-exact"
        await page.close()


async def test_a_token_opens_the_page_and_what_it_changes(visit: Opener, tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, server__admin_token="s3cret-for-tests") as proxy:
        await proxy.post(chat())
        await proxy.rows(1)
        page = await visit(proxy.url, "since=1h", fault=401)
        await playwright.expect(page.locator("#token")).to_be_visible()
        await page.fill("#token-text", "s3cret-for-tests")
        await page.press("#token-text", "Enter")
        await page.wait_for_selector("main[data-state=ready]")
        await page.select_option("#purge-which", "all")
        await page.click("#purge button")
        await page.click("#confirm-yes")
        await playwright.expect(page.locator("#upkeep-said")).to_have_text("1 answer removed.")
        await page.close()


async def test_the_page_is_served_with_its_strict_policy_and_keeps_to_it(visit: Opener, tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        await proxy.post(chat())
        await proxy.rows(1)
        policy = (await proxy.client.get("/farthing/")).headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self'")
        assert "unsafe" not in policy
        page = await ready(visit, proxy)
        assert await page.locator("[style*=expression], script:not([src]), [onclick]").count() == 0
        await page.close()


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"switched_off": True}, "bad", "All optimisation is off"),
        ({"ledger": "degraded"}, "bad", "The ledger can’t be written"),
        ({"ledger_aside": ["ledger.corrupt-1.db"]}, "bad", "farthing ledger salvage ledger.corrupt-1.db saves"),
        ({"ledger_dropped": 3}, "bad", "3 ledger rows lost"),
        ({"health": {"store": {"healthy": False, "error": "no route"}}}, "bad", "store of answers is down (no route)"),
        ({"health": {"budget": {"limit_usd": "10", "spent_usd": "8.5"}}}, "warn", "85.0% of today’s budget"),
        ({"health": {"budget": {"limit_usd": "10", "spent_usd": "10"}}}, "bad", "budget is used up ($10.00 of $10.00)"),
        ({"health": {"stage_errors": {"squeeze": 2}}}, "warn", "Stage squeeze failed 2 times"),
        ({"usage_drift": ["m", "n"]}, "warn", "count of tokens and farthing’s own differ too much: m, n"),
        ({"capture": "failing"}, "bad", "Prompts can’t be captured"),
    ],
)  # fmt: skip
async def test_what_needs_an_eye_is_an_alert(opened: Opener, given: dict[str, Any], kind: str, words: str) -> None:
    page = await opened([row()], **given)
    assert words in await page.inner_text(f"#alerts li.{kind}")


async def test_the_capture_stores_state_is_told(opened: Opener) -> None:
    page = await opened([row()], capture="5%")
    assert "prompt capture: 5%" in await page.inner_text("#badges")
    await page.evaluate(
        "document.dispatchEvent(new Event('visibilitychange'))"
    )  # it is asked once it is known to be on
    told = page.locator("#health > div", has_text="Prompt capture")
    await playwright.expect(told).to_contain_text("on: 5.0% of requests, 420 kept, 3 MiB, since")
    assert "2 dropped" in await told.inner_text()


async def test_all_well_is_no_alert_and_shares_are_judged(opened: Opener) -> None:
    page = await opened([row(id=f"{i}") for i in range(200)])
    assert await page.locator("#alerts li").count() == 0
    assert "none has failed" in await page.inner_text("#health")
    unknown = [row(id=f"u{i}", baseline_usd=None, cost_usd=None, status=500, outcome="failed") for i in range(30)]
    page = await opened(unknown)
    told = await page.inner_text("#alerts")
    assert "13.0% of the requests are of unknown price" in told
    assert "13.0% of the requests ended in an error" in told


async def test_a_route_that_was_taken_back_is_an_alert(opened: Opener) -> None:
    route = {"route": {"tenant": "t", "name": "gpt 5d1f"}, "serving": False, "proof": "", "threshold": None,
             "bound": None, "labels": 4.0, "wrong": 2.0, "needed": 90, "epoch": 1, "served": 3, "drift": 0.6,
             "reason": "wrong", "own_labels": 4.0, "taken_back": 1, "interval": [0.1, 0.9]}  # fmt: skip
    page = await opened([row(baseline_usd=DOLLAR, cost_usd=DOLLAR)], reuse={"routes": [route], "count": 1})
    told = await page.inner_text("#alerts")
    assert "1 route went back to observing" in told
    assert "half-way to its alarm on 1 route" in told
