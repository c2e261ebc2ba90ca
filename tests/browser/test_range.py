"""Which span of time the page shows: chosen, typed, dragged over a chart; shared in the address, undone by "back"."""

from __future__ import annotations

from typing import Any

import pytest

from farthing.proxy.row import Row
from tests.browser.conftest import Opener, marks, playwright
from tests.fakes.rows import DOLLAR, NOW_S, row

pytestmark = marks

HOUR_S = 3600.0


def hourly() -> list[Row]:
    """One request in each of the last 48 hours, dearer the older: the money tells which ones are counted."""
    return [
        row(id=f"h{i:02d}", ts=NOW_S - i * HOUR_S - 60, baseline_usd=DOLLAR << i % 16, cost_usd=DOLLAR << i % 16)
        for i in range(48)
    ]


async def requests_shown(page: Any) -> str:
    return str(await page.inner_text("#tiles .tile:first-child .value"))


@pytest.mark.parametrize(("choice", "count"), [("1h", "1"), ("24h", "24"), ("7d", "48"), ("30d", "48")])
async def test_each_choice_counts_its_own_requests(opened: Opener, choice: str, count: str) -> None:
    page = await opened(hourly(), address="since=1h")
    await page.check(f"input[value='{choice}']", force=True)
    await playwright.expect(page.locator("#tiles .tile:first-child .value")).to_have_text(count)
    assert f"since={choice}" in page.url


async def test_from_to_is_typed_by_keyboard(opened: Opener) -> None:
    page = await opened(hourly(), address="since=24h")
    await page.focus("input[value='30d']")
    await page.keyboard.press("ArrowRight")
    await playwright.expect(page.locator("#custom")).to_be_visible()
    assert await page.evaluate("document.activeElement.id") == "custom-from"
    at = "(s) => new Date(s * 1000 - new Date().getTimezoneOffset() * 60000).toISOString().slice(0, 19)"
    await page.fill("#custom-from", await page.evaluate(at, NOW_S - 10 * HOUR_S))
    await page.fill("#custom-to", await page.evaluate(at, NOW_S - 5 * HOUR_S))
    await page.keyboard.press("Enter")
    await playwright.expect(page.locator("#tiles .tile:first-child .value")).to_have_text("5")
    listed = [await each.inner_text() for each in await page.locator("#recent tbody button").all()]
    assert len(listed) == 5
    dollars = sum(1 << i % 16 for i in range(5, 10))
    assert f"You spent ${dollars:,}.00" in await page.inner_text("#headline")


async def test_a_wrong_span_is_refused_and_said(opened: Opener) -> None:
    page = await opened(hourly(), address="since=24h")
    await page.click("#custom-choice", force=True)
    await page.fill("#custom-to", "2026-01-01T00:00:00")
    await page.click("#custom button:not([type])")
    assert "end must come after" in await page.inner_text("#custom-wrong")
    await page.keyboard.press("Escape")
    assert not await page.locator("#custom").is_visible()
    assert await page.is_checked("input[value='24h']")
    assert await requests_shown(page) == "24"


async def test_dragging_a_chart_shows_that_span_and_going_back_undoes_it(opened: Opener) -> None:
    page = await opened(hourly(), address="since=24h")
    over = page.locator(".chart", has_text="Requests").first.locator(".u-over")
    await over.scroll_into_view_if_needed()
    box = await over.bounding_box()
    await page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 40)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 60, steps=5)
    await page.mouse.up()
    await playwright.expect(page.locator("#zoomed")).to_be_visible()
    found = page.locator("#tiles .tile:first-child .value")
    await playwright.expect(found).not_to_have_text("24")
    assert 11 <= int(await found.inner_text()) <= 13
    shared = page.url
    await page.go_back()
    await playwright.expect(found).to_have_text("24")
    assert not await page.locator("#zoomed").is_visible()
    await page.goto(shared)
    await playwright.expect(page.locator("#zoomed")).to_be_visible()
    await page.click("#zoomed-out")
    await playwright.expect(found).to_have_text("24")


async def test_an_odd_address_is_passed_over(opened: Opener) -> None:
    page = await opened(hourly(), address="since=%3Cb%3E&by=tag:%3Cimg%3E")
    assert await requests_shown(page) == "24"
    assert await page.locator("#by img, #groups img").count() == 0
    assert await page.input_value("#by") == "tag:<img>"


async def test_figures_come_by_themselves_only_while_that_is_wanted(opened: Opener) -> None:
    page = await opened([row()], alone=True)  # whose clock is another one
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.uncheck("#live")
    await page.wait_for_timeout(300)
    asked.clear()
    await page.clock.install()
    await page.clock.run_for(30_000)
    assert asked == []
    await page.check("#live")
    await page.wait_for_timeout(300)
    before = len(asked)
    await page.clock.run_for(11_000)
    await page.wait_for_timeout(300)
    assert len(asked) > before > 0
