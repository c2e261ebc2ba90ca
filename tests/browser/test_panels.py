"""Routes, budgets, replicas, policies and incidents on the page: their figures, and what is said where none are."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from farthing.proxy.report import money
from tests.browser.conftest import Opener, marks, playwright
from tests.browser.panels import BUDGETS, DECLARED, FAQ, INCIDENTS, POLICY, QUALITY, REPLICAS, ROUTED
from tests.browser.test_upkeep import ready
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.rows import plausible, row
from tests.fakes.upstream import scripted
from tests.wire.test_routes import house

pytestmark = marks

CARDS = ("routes-card", "budgets-card", "replicas-card", "incidents-card")
EVERYTHING: dict[str, Any] = {
    "canned": {"budgets": BUDGETS, "policy": POLICY, "incidents": INCIDENTS, **QUALITY},
    "declared": DECLARED,
    "replicas": REPLICAS,
    "policy": "p-0123456789ab",
}


async def table(page: Any, name: str) -> list[list[str]]:
    """The cells of each row, white space evened."""
    rows = await page.locator(f"#{name} tbody tr").all()
    return [[" ".join(text.split()) for text in await each.locator("td").all_inner_texts()] for each in rows]


async def test_where_nothing_is_declared_no_card_is_shown(opened: Opener) -> None:
    page = await opened([row()], replicas=REPLICAS[:1])
    for card in CARDS:
        assert not await page.locator(f"#{card}").is_visible(), card
    assert await page.inner_text("#policy") == "Optimisation\n● on"
    assert await page.locator("#rollback").is_hidden()


async def test_the_routes_figures_are_the_ledgers(opened: Opener) -> None:
    page = await opened(ROUTED, declared=DECLARED)
    mini = [each for each in ROUTED if '"accepted"' in each.decisions or '"hedged"' in each.decisions]
    cost, saved = sum(each.cost_usd or 0 for each in mini), sum(each.saved_route_usd or 0 for each in mini)
    told = await table(page, "routes")
    assert told[0] == [
        f"{FAQ} serves, cascade", "mini", "61", "75.3%", money(cost), money(cost // 61), money(saved), "300 ms",
        "300 ms", "1", "20 escalated 1 hedged",
    ]  # fmt: skip
    assert [line[:4] for line in told[1:]] == [
        ["", "large", "18", "22.2%"], ["", "the model asked for", "2", "2.5%"],
        ["rest observes, cheapest", "would ask mini", "30", "100.0%"],
        ["(named by the request)", "large", "3", "100.0%"], ["idle serves, fixed", "no request came its way"],
    ]  # fmt: skip
    assert told[1][-1] == "2 fell back"
    assert told[3][6] == "would: $0.0870"
    assert "An observing route changes nothing" in await page.inner_text("#routes-note")
    assert "Of the latest" not in await page.inner_text("#routes-note")


async def test_a_route_that_is_held_back_says_so(opened: Opener) -> None:
    known = {"max_worse": 0.02, "fell_back": 1, "compared": 40.0, "worse": 3.0, "at_most": 0.2}
    proved = known | {"state": "proved", "fell_back": 0, "worse": 0.0}
    bounds = {FAQ: known | {"state": "observes"}, "rest": proved, "idle": known | {"state": "serves", "worse": 0.0}}
    page = await opened(ROUTED, declared=DECLARED._replace(bounds=bounds))
    names = [line[0] for line in await table(page, "routes") if line[0]]
    assert names[0] == f"{FAQ} serves, cascade held back: 3 of 40 compared were worse, 2.0% may be"
    assert "rest observes, cheapest proved, may serve: 0 of 40 compared were worse, 2.0% may be" in names
    assert names[-1] == "idle serves, fixed 0 of 40 compared were worse, 2.0% may be"


async def test_a_real_cascades_figures_are_its_rows(visit: Opener, tmp_path: Path) -> None:
    accept = {"min_chars": 10_000}
    route = {"strategy": "cascade", "variants": ["mini-there", "tiny-there"], "accept": accept}
    async with house(tmp_path, [route]) as at:
        for text in ("one", "two"):
            await at.proxy.post(chat(text))
        rows = await at.books(2)
        page = await ready(visit, at.proxy)
        tiny, mini = await table(page, "routes")
        cost = sum(each["cost_usd"] for each in rows)
        assert tiny[:6] == ["r serves, cascade", "tiny-there", "2", "100.0%", money(cost), money(cost // 2)]
        assert tiny[6] == money(sum(each["saved_route_usd"] for each in rows))
        assert mini == ["", "mini-there", "0", "0.0%", "", "", "", "", "", "", "2 escalated"]
        await page.close()


async def test_budgets_say_what_is_spent_reserved_and_left(opened: Opener) -> None:
    page = await opened([row()], canned={"budgets": BUDGETS})
    month, teams, keys = [" ".join(text.split()) for text in await page.locator("#budgets > li").all_inner_texts()]
    assert month == (
        "all $400.00 a month for all requests together Soft: told when it is spent, nothing is refused. "
        "Begins anew in 17 d. all $131.25 spent (32.8%)"
    )
    for words in (
        "teams $5.00 a day for each value of the tag team (only s*)",
        "Hard: a request that would go beyond it is refused. Begins anew in 16 h. 7 requests refused",
        "search $5.02 spent (100.4%) ▲ used up",
        "support $4.25 spent, $0.5000 reserved (85.0%) ▲ nearly spent",
        "sales $1.00 spent, $0.2500 reserved (20.0%)",
        "6 more, who spent less",
    ):
        assert words in teams
    assert "Nothing spent in this week yet." in keys
    assert await table(page, "rates") == [
        ["calm", "for each tenant", "600 requests a minute", "0"],
        ["tokens", "for each key", "200,000 tokens a minute", "3"],
    ]


async def test_a_budgets_bar_has_the_lengths_of_its_figures_and_other_looks_for_each(opened: Opener) -> None:
    page = await opened([row()], canned={"budgets": BUDGETS})
    bars = page.locator("#budgets .subject").nth(2).locator(".gauge")
    whole = (await bars.bounding_box())["width"]
    spent, held = [await bars.locator(f".{name}").bounding_box() for name in ("spent", "held")]
    assert spent["width"] / whole == pytest.approx(0.85, abs=0.02)
    assert held["width"] / whole == pytest.approx(0.10, abs=0.02)
    assert held["x"] == pytest.approx(spent["x"] + spent["width"], abs=1)
    drawn = "(at) => getComputedStyle(at).backgroundImage"
    assert await bars.locator(".held").evaluate(drawn) != await bars.locator(".spent").evaluate(drawn)


async def test_a_real_budget_is_told_as_it_is(visit: Opener, tmp_path: Path) -> None:
    budgets = [{"name": "small", "usd": 0.5, "per": "day", "of": "tenant"}]
    async with scripted() as up, proxied(up.url, tmp_path, budgets=budgets) as proxy:
        await proxy.post(chat())
        (spent,) = await proxy.rows(1)
        page = await ready(visit, proxy)
        told = await page.inner_text("#budgets")
        assert "small $0.5000 a day for each tenant" in told
        assert f"{money(spent['cost_usd'])} spent" in told
        await page.close()


async def test_a_store_of_budgets_that_is_away_is_said(opened: Opener) -> None:
    page = await opened([row()], canned={"budgets": {**BUDGETS, "store": "no route to the store"}})
    assert "can’t be asked (no route to the store)" in await page.inner_text("#budgets-trouble")
    assert "sales $1.00 spent" in " ".join((await page.inner_text("#budgets")).split())


async def test_replicas_tell_their_state(opened: Opener) -> None:
    page = await opened([row()], replicas=REPLICAS)
    assert await table(page, "replicas") == [
        ["10.0.0.7:8000", "vllm", "well", "4", "–", "Drain"],
        ["10.0.0.8:8000", "vllm", "circuit open: failed too often", "0", "–", "Drain"],
        ["10.0.0.9:8000", "vllm", "draining: gets nothing new", "1", "–", "Take back"],
        ["api.provider:443", "default", "well", "11", "4.0%, least of 2 keys; 1 key parked for 12 s", "Drain"],
    ]
    assert await page.inner_text("#replicas-well") == "2 of 4 take requests"
    looks = "(at) => [getComputedStyle(at).backgroundImage, at.className].join()"
    swatches = [await each.evaluate(looks) for each in await page.locator("#replicas .swatch").all()]
    assert len(set(swatches)) == 3


@pytest_asyncio.fixture(loop_scope="session")
async def pair(tmp_path: Path) -> AsyncIterator[Proxied]:
    """A proxy before two replicas."""
    async with AsyncExitStack() as stack:
        ups = [await stack.enter_async_context(scripted()) for _ in range(2)]
        replicas = [up.url for up in ups]
        yield await stack.enter_async_context(proxied(replicas[0], tmp_path, upstream__replicas=replicas))


async def test_a_question_that_is_asked_before_the_last_ones_end_is_told_gets_its_own_answer(
    visit: Opener, pair: Proxied
) -> None:
    await pair.post(chat())
    await pair.rows(1)
    page = await ready(visit, pair)
    replica = pair.services.pool.replicas[0]
    await page.evaluate(
        """() => {
            const button = document.querySelector("#replicas tbody tr button");
            const dialog = document.querySelector("#confirm");
            button.click();
            dialog.close(""); // its event is told in a moment
            button.click();
        }"""
    )
    await page.click("#confirm-yes")
    await playwright.expect(page.locator("#replicas tbody tr").nth(0).locator("button")).to_have_text("Take back")
    assert replica.draining
    await page.close()


async def test_a_replica_is_drained_and_taken_back_after_a_yes(visit: Opener, pair: Proxied) -> None:
    await pair.post(chat())
    await pair.rows(1)
    page = await ready(visit, pair)
    button = page.locator("#replicas tbody tr").nth(0).locator("button")
    replica = pair.services.pool.replicas[0]
    await button.click()
    await page.keyboard.press("Escape")
    assert not replica.draining
    await button.press("Enter")
    await page.click("#confirm-yes")
    await playwright.expect(button).to_have_text("Take back")
    assert replica.draining
    assert await page.inner_text("#replicas-said") == f"{replica.name} is draining."
    await button.click()
    await page.click("#confirm-yes")
    await playwright.expect(button).to_have_text("Drain")
    assert not replica.draining
    await page.close()


async def test_a_roll_out_is_told_step_by_step_with_what_its_guard_sees(opened: Opener) -> None:
    page = await opened([row()], **EVERYTHING)
    assert "p-0123456789ab" in await page.inner_text("#policy")
    assert "Rolling out p-ba9876543210 to 10.0% of the traffic" in await page.inner_text("#rollout-what")
    assert await page.locator("#rollout-steps li").all_inner_texts() == ["✓ 1%", "▶ 10%", "○ 50%", "○ 100%"]
    assert await page.inner_text("#rollout-steps [aria-current=step]") == "▶ 10%"
    guard = await page.inner_text("#rollout-guard")
    assert guard == (
        "The guard: hold (errors 2.1% against 1.0%: perhaps worse than accepted); 100 s more at this step."
    )
    assert await table(page, "rollout-metrics") == [
        ["errors", "1.0%", "2.1%", "61%"], ["latency p99", "2.10 s", "1.98 s", "0%"],
        ["cost a request", "$0.00210", "$0.000900", "0%"], ["rated bad", "–", "–", "0%"],
    ]  # fmt: skip
    await page.click("#policy-count")
    assert [line[:2] for line in await table(page, "versions")] == [
        ["p-ba9876543210", "▶ candidate"], ["p-0123456789ab", "● active"], ["p-00000000000a", ""],
    ]  # fmt: skip


async def test_a_roll_back_is_asked_for_after_a_yes(opened: Opener) -> None:
    page = await opened([row()], **EVERYTHING)
    asked: list[Any] = []

    async def answered(route: Any) -> None:
        asked.append(
            (route.request.method, route.request.headers.get("x-farthing-admin"), route.request.post_data_json)
        )
        await route.fulfill(json={"active": {"version": "p-0123456789ab"}})

    await page.route("**/api/policy/rollback", answered)
    assert await page.inner_text("#rollback") == "Roll the candidate back"
    await page.click("#rollback")
    await page.keyboard.press("Escape")
    assert asked == []
    await page.click("#rollback")
    await page.click("#confirm-yes")
    await playwright.expect(page.locator("#policy-said")).to_have_text("p-0123456789ab is active.")
    assert asked == [("POST", "1", {"why": "rolled back on the dashboard"})]


async def test_without_a_roll_out_one_goes_back_to_the_version_before(opened: Opener) -> None:
    still = {**copy.deepcopy(POLICY), "candidate": None}
    page = await opened([row()], policy="p", canned={"policy": still, "incidents": {"incidents": []}})
    assert await page.locator("#rollout").is_hidden()
    assert await page.inner_text("#rollback") == "Roll back to p-00000000000a"
    assert await page.inner_text("#incidents-said") == "None: farthing has taken nothing back of its own accord."
    first = {**still, "before": None, "versions": still["versions"][1:2]}
    page = await opened([row(id="again")], policy="p", canned={"policy": first, "incidents": {"incidents": []}})
    assert await page.locator("#rollback").is_hidden()
    assert await page.locator("#policy-versions").is_hidden()


async def test_versions_that_are_not_there_are_no_trouble(opened: Opener) -> None:
    page = await opened([row()], policy="p", fault=404)
    assert await page.locator("#policy-trouble").is_hidden()
    assert await page.locator("#incidents-card").is_hidden()
    assert await page.locator("#switch").is_visible()
    card, whole = [await page.locator(name).bounding_box() for name in ("#policy-card", "#recent-card")]
    assert card["width"] == pytest.approx(whole["width"], abs=1)


async def test_incidents_are_told_with_their_evidence(opened: Opener) -> None:
    page = await opened([row()], **EVERYTHING)
    first, second = await page.locator("#incidents > li").all()
    assert "worse than accepted, proved" in await first.inner_text()
    await first.locator("summary").focus()
    await page.keyboard.press("Enter")
    assert '{"errors":1.2}' in await first.inner_text()
    assert "semantic · gpt-4o-mini 5d1f" in await second.inner_text()


@pytest.mark.parametrize(
    ("canned", "place", "words"),
    [
        ("budgets", "#budgets-trouble", "Budgets can’t be shown: it broke."),
        ("policy", "#policy-trouble", "Which policy is in force can’t be shown: it broke."),
        ("incidents", "#incidents-said", "Incidents can’t be shown: it broke."),
        ("routes", "#routes-trouble", "What routes did can’t be shown: it broke."),
    ],
)
async def test_one_panels_trouble_is_its_own(opened: Opener, canned: str, place: str, words: str) -> None:
    broken = {**EVERYTHING["canned"], canned: {"error": {"message": "it broke"}}}
    page = await opened([row()], **{**EVERYTHING, "canned": broken})
    assert words in await page.inner_text(place)
    assert await page.locator("main").get_attribute("data-state") == "ready"
    assert await page.locator("#recent tbody tr").count() == 1


@pytest.mark.parametrize("width", [360, 420, 768, 1300])
async def test_panels_fit_whatever_they_hold(opened: Opener, width: int) -> None:
    long = "w" * 200
    budgets, policy, replicas = copy.deepcopy((BUDGETS, POLICY, REPLICAS))
    budgets["budgets"][1]["subjects"][0]["subject"] = replicas[0]["name"] = policy["candidate"]["note"] = long
    policy["versions"][0]["note"] = policy["candidate"]["guard"]["why"] = long
    incidents = {"incidents": [{**INCIDENTS["incidents"][0], "what": long, "why": long}]}
    canned = {"budgets": budgets, "policy": policy, "incidents": incidents}
    shown = {**EVERYTHING, "canned": canned, "replicas": replicas}
    rows = [*plausible(50), *ROUTED, row(id="x", decisions=f'[["route","routed","{long}: {long}, fixed"]]')]
    page = await opened(rows, width=width, **shown)
    await page.click("#policy-count")
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    for card in (*CARDS, "policy-card"):
        over = "(at) => at.scrollWidth - at.clientWidth"
        assert await page.locator(f"#{card}").evaluate(over) <= 1, card
    overlap = """() => [...document.querySelectorAll(':is(#routes, #rates, #replicas, #rollout-metrics) td')]
        .filter((td) => td.scrollWidth > td.clientWidth + 1 && getComputedStyle(td).overflow === 'visible')
        .map((td) => td.textContent.slice(0, 60))"""
    assert await page.evaluate(overlap) == []


async def test_what_is_captured_stands_where_its_hash_would(visit: Opener, tmp_path: Path) -> None:
    asked = "How long do I boil an egg? Write to me@example.org"
    async with scripted() as up, proxied(up.url, tmp_path, capture__enabled=True) as proxy:
        for _ in range(2):
            await proxy.post(chat(asked))
        await proxy.rows(2)
        assert proxy.services.state.capture is not None
        proxy.services.state.capture.flush()
        page = await ready(visit, proxy)
        (line,) = await table(page, "repeated")
        assert line[0].startswith("How long do I boil an egg? Write to [email-")
        assert line[2] == "2"
        assert await page.locator("#repeated-note").is_hidden()
        await page.close()


async def test_without_captured_texts_the_page_says_how_to_have_them(visit: Opener, tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        for _ in range(2):
            await proxy.post(chat("one"))
        hashed = (await proxy.rows(2))[0]["key_hash"]
        page = await ready(visit, proxy)
        (line,) = await table(page, "repeated")
        assert line[0] == hashed[:12]
        assert "capture.enabled = true" in await page.inner_text("#repeated-note")
        await page.close()
