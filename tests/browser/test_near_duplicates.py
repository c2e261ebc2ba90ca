"""The panel on near-duplicates in a real browser: promise, proof, what differs; hostile prompts stay texts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import LATELY, Opener, marks, playwright
from tests.fakes.rows import NOW_S, row

pytestmark = marks

ROUTE: dict[str, Any] = {"route": {"tenant": "a1b2c3d4", "name": "gpt-4o-mini 5d1f"}, "serving": False, "proof": "",
         "threshold": 0.9, "bound": None, "labels": 87.0, "wrong": 1.0, "needed": 260, "epoch": 0, "served": 0,
         "drift": 0.03, "reason": "not proved: 87 labels, about 260 more good ones needed",
         "interval": [0.0, 0.094]}  # fmt: skip
NEAR: dict[str, Any] = {"id": "far-1", "at_s": NOW_S, "route": ROUTE["route"], "score": 0.731, "cosine": 0.871,
         "threshold": 0.9, "bound": 0.01, "action": "observe", "reason": "below the proved threshold", "judged": False,
         "asked_key": "0123456789ab", "stored_key": "ba9876543210",
         "against": [{"kind": "numbers differ", "asked": ["12"], "stored": ["13"]}],
         "asked": [["Rice for ", False], ["12", True], [" people?", False]],
         "stored": [["Rice for ", False], ["13", True], [" people?", False]]}  # fmt: skip


def reuse(*routes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"routes": [{**ROUTE, **each} for each in routes], "count": len(routes), **more}


async def test_near_duplicates_show_the_promise_the_proof_and_what_lacks(opened: Opener) -> None:
    proved = {"serving": True, "proof": "own", "bound": 0.0093, "labels": 471.0, "wrong": 0.0, "needed": None,
              "served": 1234, "drift": 0.25, "reason": ""}  # fmt: skip
    judge = {"second_stage": "judge:cheap", "judge_usd_today": 0.5, "judge_daily_usd": 2.0}
    told = reuse({**proved, "interval": [0.0, 0.0089]}, {}, mode="serve", audits_usd_today=0.25, **judge)
    page = await opened([row()], reuse=told)
    assert "At most 1% of the answers given again may be wrong, 95% sure" in await page.inner_text("#reuse-promise")
    assert "audits today $0.2500 of $1.00" in await page.inner_text("#reuse-audits")
    assert "judge:cheap · judging today $0.5000 of $2.00" in await page.inner_text("#reuse-audits")
    rows = page.locator("#reuse-routes tbody tr")
    first, second = await rows.nth(0).inner_text(), await rows.nth(1).inner_text()
    for words in (
        "serving",
        "by its own labels",
        "0% seen (0% to 0.89%) at most 0.93%",
        "471 labels",
        "1,234",
        "25.0%",
    ):
        assert words in first
    for words in (
        "observing",
        "not yet",
        "1.1% seen (0% to 9.4%)",
        "87 labels, about 260 more",
        "not proved: 87 labels",
    ):
        assert words in second
    bars = page.locator("#reuse-routes .meter")
    shares = [await bars.nth(i).evaluate("(bar) => bar.firstChild.offsetWidth / bar.offsetWidth") for i in range(2)]
    assert shares == [pytest.approx(1.0), pytest.approx(87 / 347, abs=0.02)]


async def test_the_bar_puts_the_promise_between_what_was_seen_and_what_was_not_allowed(opened: Opener) -> None:
    good = {"serving": True, "proof": "own", "bound": 0.008, "labels": 1000.0, "wrong": 2.0, "interval": [0.0, 0.009]}
    page = await opened([row()], reuse=reuse(good, {"labels": 50.0, "wrong": 5.0, "interval": [0.03, 0.25]}))
    for number, order in ((0, ["seen", "bound", "range", "limit"]), (1, ["limit", "seen over", "range open"])):
        parts = page.locator("#reuse-routes tbody tr").nth(number).locator(".gauge i")
        ends = {}
        for i in range(await parts.count()):
            box = await parts.nth(i).bounding_box()
            ends[await parts.nth(i).get_attribute("class")] = box["x"] + box["width"]
        assert sorted(ends, key=lambda name: ends[name]) == order


async def test_no_routes_yet_is_said_in_words(opened: Opener) -> None:
    page = await opened([row()])
    assert "No route has had a candidate yet" in await page.inner_text("#reuse-card")
    assert not await page.locator("#reuse-routes").is_visible()
    assert "No near miss yet" in await page.inner_text("#lately-said")
    assert not await page.locator("#lately-chart").is_visible()


async def test_an_unproven_threshold_promises_nothing(opened: Opener) -> None:
    loose = {"serving": True, "proof": "unproven", "reason": "unproven"}
    page = await opened([row()], reuse=reuse(loose, mode="serve unproven", policy="static"))
    said = await page.inner_text("#reuse-promise")
    assert "none is proved" in said and "At most" not in said
    assert "unproven" in await page.inner_text("#reuse-routes td[data-label=proof]")


async def test_no_panel_where_the_semantic_cache_is_off(opened: Opener) -> None:
    page = await opened([row()], reuse={"mode": "off"})
    assert not await page.locator("#reuse-card").is_visible()


@pytest.mark.parametrize("width", [390, 1280])
async def test_hostile_names_of_routes_stay_texts_and_in_their_place(opened: Opener, width: int) -> None:
    nasty = "<img src=x onerror=\"document.title='pwned'\">" + "W" * 300
    route = {"route": {"tenant": nasty, "name": nasty}, "reason": nasty}
    slots = {"start_s": [0.0], "looked": [2], "served": [1]}
    near = {**NEAR, **route, "asked": [[nasty, True]], "stored": [["<script>document.title='pwned'</script>", True]],
            "against": [{"kind": nasty, "asked": [nasty], "stored": ["<i>"]}]}  # fmt: skip
    lately = {"latest": [near], "routes": [route["route"]], "total": slots,
              "over_time": [{"route": route["route"], **slots}]}  # fmt: skip
    page = await opened([row()], width=width, reuse=reuse(route), lately={"near": lately})
    assert nasty in await page.inner_text("#reuse-routes .why")
    assert await page.inner_text("#lately-list ins") == nasty
    assert await page.inner_text("#lately-list del") == "<script>document.title='pwned'</script>"
    assert nasty in await page.inner_text("#lately-chart")
    assert await page.locator("#reuse-card :is(img, script, i:not([class], .meter i))").count() == 0
    assert await page.title() == "farthing"
    assert await page.evaluate("document.documentElement.scrollWidth") <= width


def near(*latest: dict[str, Any], kind: str = "near", **more: Any) -> dict[str, Any]:
    """The answer of one kind."""
    sightings = [{**NEAR, **each} for each in latest]
    counts = {**LATELY["counts"], kind: len(sightings)}
    return {kind: {"latest": sightings, "counts": counts, "routes": [ROUTE["route"]], **more}}


async def test_a_near_miss_shows_its_figures_and_marks_what_differs(opened: Opener) -> None:
    page = await opened([row(id="far-1", cache="miss")], lately=near({}))
    said = await page.inner_text("#lately-list")
    for words in ("score 0.731, threshold 0.900", "cosine 0.871", "below the proved threshold",
                  "numbers differ: 12 / 13", "the fresh answer said something else", "gpt-4o-mini 5d1f"):  # fmt: skip
        assert words in said
    assert await page.inner_text("#lately-list .pair dd:nth-of-type(1)") == "Rice for 12 people?"
    assert await page.inner_text("#lately-list .pair dd:nth-of-type(2)") == "Rice for 13 people?"
    assert await page.inner_text("#lately-kinds label:first-of-type") == "Near misses 1"
    lines = "(mark) => getComputedStyle(mark).textDecorationLine"
    assert await page.locator("#lately-list ins").evaluate(lines) == "underline"
    assert await page.locator("#lately-list del").evaluate(lines) == "line-through"
    await page.focus("#lately-list button")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#detail-body .story")
    assert await page.inner_text("#detail-title") == "far-1"


async def test_without_texts_the_panel_says_how_to_have_them(opened: Opener) -> None:
    bare = {name: value for name, value in NEAR.items() if name not in ("asked", "stored")}
    bare["against"] = [{"kind": "numbers differ"}]
    page = await opened([row()], lately={"near": {"texts": False, "latest": [bare]}})
    assert "semantic.show_texts = true" in await page.inner_text("#lately-said")
    said = await page.inner_text("#lately-list")
    assert "0123456789ab" in said and "ba9876543210" in said and "numbers differ" in said
    assert not await page.locator("#lately-marks").is_visible()


async def test_what_can_not_be_seen_in_a_prompt_is_spelt_out(opened: Opener) -> None:
    asked = [["a\u200bb\u202ec\u200f\u200d d\ne 👩\u200d👧 ", False], ["\u2066x\u3164", True]]
    page = await opened([row()], lately=near({"asked": asked}))
    shown = await page.text_content("#lately-list .pair dd:nth-of-type(1)")
    assert shown == "a⟨U+200B⟩b⟨U+202E⟩c⟨U+200F⟩⟨U+200D⟩ d ⏎ e 👩\u200d👧 ⟨U+2066⟩x⟨U+3164⟩"


async def test_kinds_and_routes_are_chosen_by_keyboard(opened: Opener) -> None:
    other = {"tenant": "ffff0000", "name": "another 1234"}
    mixed = near({}, {"id": "far-2", "route": other}, routes=[ROUTE["route"], other])
    page = await opened([row()], lately=mixed | near({"judged": True, "reason": "proved"}, kind="served"))
    entries = page.locator("#lately-list > li")
    await page.focus("input[value=near]")
    await page.keyboard.press("ArrowRight")
    await playwright.expect(entries).to_have_count(1)
    assert "the fresh answer said the same" in await entries.inner_text()
    await page.keyboard.press("ArrowRight")
    await playwright.expect(page.locator("#lately-said")).to_contain_text("No comparison has come out wrong")
    await page.check("input[value=near]", force=True)
    await playwright.expect(entries).to_have_count(2)
    await page.select_option("#lately-route", "ffff0000/another 1234")
    await playwright.expect(entries).to_have_count(1)
    assert "another 1234" in await entries.inner_text()
    assert await page.input_value("#lately-route") == "ffff0000/another 1234"


async def test_the_hit_rates_are_the_apis(opened: Opener) -> None:
    slots = {"start_s": [1000.0, 1010.0, 1040.0], "looked": [4, 10, 6], "served": [0, 4, 3]}
    silent = {"start_s": [1010.0], "looked": [5], "served": [0]}
    other = {"tenant": "ffff0000", "name": "another 1234"}
    page = await opened([row()], lately=near(total=slots, over_time=[
        {"route": ROUTE["route"], **slots}, {"route": other, **silent}]))  # fmt: skip
    legend = page.locator("#lately-chart .legend li")
    assert await legend.nth(0).inner_text() == "gpt-4o-mini 5d1f\n35.0% (7 of 20)"
    assert await legend.nth(1).inner_text() == "another 1234\n0.0% (0 of 5)"
    label = await page.get_attribute("#lately-chart [role=img]", "aria-label")
    assert "35.0% (7 of 20)" in label


async def test_where_nothing_was_served_there_is_no_chart(opened: Opener) -> None:
    slots = {"start_s": [1000.0], "looked": [4], "served": [0]}
    page = await opened([row()], lately=near(total=slots, over_time=[{"route": ROUTE["route"], **slots}]))
    assert not await page.locator("#lately-chart").is_visible()


async def test_what_can_not_be_had_is_said_and_the_rest_stands(opened: Opener) -> None:
    failing = {"error": {"message": "the semantic cache is busy"}}
    page = await opened([row()], lately={"near": failing})
    assert "the semantic cache is busy" in await page.inner_text("#lately-said")
    assert await page.locator("#reuse-promise").is_visible()
    page = await opened([row(id="again")], reuse=failing)
    assert "What routes have proved can’t be shown: the semantic cache is busy" in await page.inner_text("#reuse-card")
    assert await page.locator("#recent tbody tr").count() == 2


@pytest.mark.parametrize("width", [390, 830, 1280])
async def test_long_prompts_stay_in_their_place(opened: Opener, width: int) -> None:
    long = [["W" * 400, True], [" and so on" * 40, False]]
    page = await opened([row()], width=width, reuse=reuse({}), lately=near({"asked": long, "stored": long}))
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    wide = (
        "() => [...document.querySelectorAll('#reuse-routes td')].filter((td) => td.scrollWidth > td.clientWidth + 1)"
    )
    assert await page.evaluate(f"({wide})().map((td) => td.textContent)") == []
    card = await page.locator("#reuse-card").bounding_box()
    for place in ("#lately-list", "#lately-kinds", "#lately-route"):
        box = await page.locator(place).bounding_box()
        assert box["x"] >= card["x"] and box["x"] + box["width"] <= card["x"] + card["width"]
