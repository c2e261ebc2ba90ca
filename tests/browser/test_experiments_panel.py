"""The panel on experiments: which run, since when, and what may be said of them."""

from __future__ import annotations

from typing import Any

from tests.browser.conftest import Opener, marks
from tests.browser.panels import INCIDENTS, NOW_S, POLICY
from tests.browser.test_panels import table
from tests.fakes.rows import row

pytestmark = marks
STILL = {"policy": POLICY, "incidents": INCIDENTS}


def told(**changes: Any) -> dict[str, Any]:
    arms = [{"name": "active", "version": "p-1", "share": 0.5}, {"name": "small", "version": "p-2", "share": 0.5}]
    one = {"id": "e-1", "name": "faq <b>", "state": "running", "arms": arms, "since_s": NOW_S - 7200}
    return one | {"headline": "small: undecided (too little is known)"} | changes


async def test_each_experiment_with_what_may_be_said(opened: Opener) -> None:
    broken = told(id="e-0", state="broken", headline="the assignment is broken")
    canned = {"experiments": {"experiments": [told(), broken], "waiting": {"later": "a roll-out is under way"}}}
    page = await opened([row()], policy="p", canned={**STILL, **canned})
    first, second = await table(page, "experiments")
    assert first[:3] == ["faq <b>", "● running", "active 50.0%, small 50.0%"]
    assert first[4] == "small: undecided (too little is known)"
    assert second[1] == "▲ the assignment is broken"
    assert "later doesn’t run: a roll-out is under way" in await page.inner_text("#experiments-waiting")


async def test_a_hold_out_tells_what_each_optimiser_saves_and_loses(opened: Opener) -> None:
    known = {"does": {"saves_usd": [0.0012, 0.0007, 0.0017], "loses": [-0.004, None, 0.01]}}
    arms = {"no-route": {**known, "metrics": {"fresh": {"units": [1200, 1180]}}}, "all-off": {"metrics": {}}}
    held = told(name="holdout", reading={"candidates": arms})
    page = await opened([row()], policy="p", canned={**STILL, "experiments": {"experiments": [held], "waiting": {}}})
    assert await table(page, "experiments-does") == [
        ["no-route", "$0.00120 ($0.000700 to $0.00170)", "-0.4 (–∞ to +1.0)", "1,200 / 1,180"]
    ]


async def test_without_any_there_is_no_card(opened: Opener) -> None:
    page = await opened([row()], policy="p", canned=STILL)
    assert await page.locator("#experiments-card").is_hidden()


async def test_a_fault_is_told(opened: Opener) -> None:
    failed = {"experiments": {"error": {"message": "its folder is away"}}}
    page = await opened([row()], policy="p", canned={**STILL, **failed})
    assert "its folder is away" in await page.inner_text("#experiments-trouble")


async def test_it_fits_a_phone(opened: Opener) -> None:
    canned = {"experiments": {"experiments": [told(headline="a long word " * 30)], "waiting": {}}}
    page = await opened([row()], policy="p", canned={**STILL, **canned}, width=420, scheme="dark")
    assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert await page.locator("#experiments-card").is_visible()
