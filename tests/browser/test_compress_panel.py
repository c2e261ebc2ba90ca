"""The panel on compression in a real browser: what is on, what rules saved, how far each proof has got."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import Opener, marks
from tests.fakes.rows import row

pytestmark = marks

NOTHING = {"tokens": 0, "texts": 0}
STEP: dict[str, Any] = {"name": "recode", "serving": False, "proof": "", "labels": 0.0, "wrong": 0.0, "bound": None,
         "needed": None, "epoch": 0, "reason": "nothing compared yet"}  # fmt: skip
PROVED = {"serving": True, "proof": "own", "labels": 214.0, "bound": 0.0183, "reason": ""}
UNDER_WAY = {"labels": 30.0, "wrong": 1.0, "needed": 120, "reason": "not proved: 30 labels"}


def rule(name: str, sent: int = 0, replayed: int = 0, observed: int = 0) -> dict[str, Any]:
    figures = {"sent": sent, "replayed": replayed, "observed": observed}
    return {"rule": name} | {mode: {"tokens": tokens, "texts": bool(tokens)} for mode, tokens in figures.items()}


def routes(*steps: list[dict[str, Any]], serves: str = "", **more: Any) -> dict[str, Any]:
    """The API's answer with a route for each list of steps."""
    listed = [
        {"route": {"tenant": "a1b2c3d4", "name": f"gpt-4o-mini 5d1f{i}"}, "serves": serves if not i else "",
         "tokens": {"sent": 1_840_000, "observed": 120_000}, "steps": [{**STEP, **each} for each in few]}
        for i, few in enumerate(steps)
    ]  # fmt: skip
    return {"routes": listed, "count": len(listed), "recode": "serve", "shadow_daily_usd": 1.0, **more}


async def test_it_tells_what_is_on_the_promise_and_how_far_each_route_is(opened: Opener) -> None:
    behind = [{"name": f"squeeze-{keep}"} for keep in (0.7, 0.5, 0.3)]
    money = {"shadows_usd_today": 0.25, "saved_usd_today": {"tidy": "0.5", "recode": "0.25", "squeeze": None}}
    taken_back = {"labels": 4.0, "needed": 151, "epoch": 1, "reason": "too many answers were wrong"}
    steps = [PROVED, *behind], [UNDER_WAY, *behind], [taken_back]
    page = await opened([row()], compress=routes(*steps, serves="recode", squeeze="observe", **money))
    modes = await page.inner_text("#compress-modes")
    for words in (
        "tidy: on, $0.5000 saved today",
        "recode: sent where proved, $0.2500 saved today",
        "squeeze: observing",
    ):
        assert words in modes
    assert "at most 2% of the answers to changed requests may be worse, 95% sure" in await page.inner_text(
        "#compress-promise"
    )
    assert await page.inner_text("#compress-shadows") == "shadows today $0.2500 of $1.00 at most"
    lines = page.locator("#compress-routes tbody tr")
    first, second, third = [await lines.nth(i).inner_text() for i in range(3)]
    for words in ("proved: at most 1.8% worse, 214 compared", "squeeze-0.7", "nothing compared yet",
                  "then squeeze-0.5, squeeze-0.3", "1.84M", "120k"):  # fmt: skip
        assert words in first
    assert "30 compared, 1 differed, about 120 more good comparisons" in second
    assert "then squeeze-0.7, squeeze-0.5, squeeze-0.3" in second
    assert "taken back: too many answers were wrong" in third
    assert [await lines.nth(i).locator("td[data-label=sends]").inner_text() for i in range(2)] == ["recode", "tidy"]
    bars = page.locator("#compress-routes .meter")
    shares = [await bars.nth(i).evaluate("(bar) => bar.firstChild.offsetWidth / bar.offsetWidth") for i in range(3)]
    assert shares == [1.0, 0.0, pytest.approx(30 / 150, abs=0.02)]
    assert not await page.locator("#compress-none").is_visible()


async def test_rules_are_bars_on_one_scale(opened: Opener) -> None:
    rules = [rule("rows", 1000, 3000, 2000), rule("log", observed=1000)]
    page = await opened([row()], compress={"rules": rules, "left": {"observing": 3, "does_not_pay": 1}})
    wide = "(bars) => bars.map((bar) => [bar.className, bar.offsetWidth / bar.closest('.tracks').offsetWidth])"
    drawn = await page.locator("#compress-rules i").evaluate_all(wide)
    assert [name for name, _ in drawn] == ["sent", "replayed", "observed", "observed"]
    assert [share for _, share in drawn] == pytest.approx([0.25, 0.75, 0.5, 0.25], abs=0.01)
    said = await page.inner_text("#compress-rules")
    assert "4k saved" in said and "2k observed" in said and "1k observed" in said
    assert "3 only observed, 1 would not pay" in await page.inner_text("#compress-left")


async def test_tokens_saved_are_the_ledgers_by_form_and_without_what_caches_saved(opened: Opener) -> None:
    rows = [
        row(id="a", compress="tidy", tokens_in_original=1000, tokens_in_sent=900),
        row(id="b", compress="recode", tokens_in_original=5000, tokens_in_sent=2500),
        row(id="c", cache="hit-exact", tokens_in_original=9000, tokens_in_sent=0),
        row(id="d", endpoint="shadow", compress="recode", tokens_in_original=5000, tokens_in_sent=2500),
    ]
    page = await opened(rows)
    legend = page.locator("#compress-chart .legend li")
    assert [await legend.nth(i).inner_text() for i in range(await legend.count())] == ["tidy\n100", "recode\n2.5k"]
    assert "recode 2.5k" in await page.get_attribute("#compress-chart [role=img]", "aria-label")
    await page.select_option("#by", "compress")
    await page.wait_for_selector("#groups td[title=recode]")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, "No request has held a text that may be shortened yet"),
        (routes([{}], recode="observe", shadow_daily_usd=0.0), "compress.shadow_daily_usd"),
        (routes([{}]), "Nothing is compared yet"),
    ],
)
async def test_what_is_missing_is_said(opened: Opener, told: dict[str, Any], words: str) -> None:
    page = await opened([row()], compress=told)
    assert words in await page.inner_text("#compress-none")
    assert not await page.locator("#compress-chart").is_visible()


async def test_off_says_how_to_begin(opened: Opener) -> None:
    page = await opened([row()], compress={"tidy": "off", "recode": "off"})
    assert "compress.tidy = true" in await page.inner_text("#compress-promise")
    for place in ("#compress-none", "#compress-shadows", "#compress-by-rule", "#compress-routes"):
        assert not await page.locator(place).is_visible()


async def test_unproven_warns_and_promises_nothing(opened: Opener) -> None:
    loose = {"serving": True, "proof": "unproven", "labels": 12.0, "wrong": 3.0, "reason": "a fixed threshold"}
    told = routes([loose], serves="recode", unproven=True, recode="serve unproven")
    page = await opened([row()], compress=told, recode="serve unproven", squeeze="observe")
    promise = await page.inner_text("#compress-promise")
    assert "nothing proved" in promise and "at most" not in promise
    assert await page.locator("#compress-modes li.warn", has_text="recode: sent, unproven").count() == 1
    assert await page.locator("#badges li.warn", has_text="recode: unproven").count() == 1
    assert "squeeze: observing" in await page.inner_text("#badges")
    assert "unproven, 12 compared, 3 differed" in await page.inner_text("#compress-routes")


async def test_what_can_not_be_had_is_said_and_the_rest_stands(opened: Opener) -> None:
    page = await opened([row()], compress={"error": {"message": "too busy"}})
    assert "What compression does can’t be shown: too busy" in await page.inner_text("#compress-card")
    assert await page.locator("#recent tbody tr").count() == 1


@pytest.mark.parametrize("width", [390, 830, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_hostile_and_long_names_stay_texts_and_in_their_place(opened: Opener, width: int, scheme: str) -> None:
    nasty = "<img src=x onerror=\"document.title='pwned'\">" + "W" * 200
    told = routes([{**UNDER_WAY, "reason": nasty, "epoch": 2}], rules=[rule("rows", 10**12, 10**12, 10**12)],
                  left={nasty[:60]: 10**9}, saved_usd_today={"tidy": "1234567.89"})  # fmt: skip
    told["routes"][0]["route"] = {"tenant": nasty, "name": nasty}
    page = await opened([row()], width=width, scheme=scheme, compress=told)
    assert nasty in await page.text_content("#compress-routes td.name")
    assert await page.locator("#compress-card :is(img, script)").count() == 0
    assert await page.title() == "farthing"
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    card = await page.locator("#compress-card").bounding_box()
    for place in ("#compress-rules", "#compress-modes", "#compress-left", "#compress-routes .step"):
        box = await page.locator(place).first.bounding_box()
        assert box["x"] >= card["x"] and box["x"] + box["width"] <= card["x"] + card["width"]
