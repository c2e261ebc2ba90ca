"""The panel on quality: what drifts, what gates said last, what is said of answers."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Opener, marks
from tests.browser.panels import INCIDENTS, POLICY, QUALITY
from tests.browser.test_panels import table
from tests.fakes.rows import row

pytestmark = marks
STILL = {"policy": POLICY, "incidents": INCIDENTS}


async def test_what_drifts_what_gates_said_and_what_is_said_of_answers(opened: Opener) -> None:
    page = await opened([row()], policy="p", canned={**STILL, **QUALITY})
    told = await page.inner_text("#quality-watched")
    assert told == "5 series watched, 1 of them still learning; 3 alarms so far"
    refused, longer = await page.locator("#drift > li").all_inner_texts()
    assert "refused in all traffic, tag:team=<b>docs</b>" in refused
    assert "is 26.4% now" in refused and "look at: routes" in refused
    assert "input tokens in length:short" in longer
    assert [line[:3] + line[4:] for line in await table(page, "gates")] == [
        ["faq", "▲ blocked", "prices changed", "worse_share: 6.2% of answers are worse"],
        ["new", "○ not decided", "schedule", "41 cases"],
    ]
    assert await page.inner_text("#gates-running") == "refunds is running now."
    assert await table(page, "ratings") == [
        ["rated good", "said by clients", "40", "85.0%"],
        ["revenue_usd", "said by clients", "3", "12.35"],
        ["reask", "seen from what users do", "7", "–"],
    ]


async def test_where_nothing_is_watched_or_said_there_is_no_card(opened: Opener) -> None:
    page = await opened([row()], policy="p", canned=STILL)
    assert await page.locator("#quality-card").is_hidden()


async def test_while_it_learns_it_says_so(opened: Opener) -> None:
    watch = {"enabled": True, "alarms": 0, "series": QUALITY["watch"]["series"][-1:]}
    page = await opened([row()], policy="p", canned={**STILL, "watch": watch})
    assert "still being learnt" in await page.inner_text("#drift-none")
    assert await page.locator("#drift").is_hidden() and await page.locator("#gates-part").is_hidden()
    assert await page.locator("#ratings-none").is_visible()


@pytest.mark.parametrize("failing", ["watch", "gates", "feedback"])
async def test_what_fails_is_told_and_the_rest_is_shown(failing: str, opened: Opener) -> None:
    told = {**STILL, **QUALITY, failing: {"error": {"message": "its file is locked"}}}
    page = await opened([row()], policy="p", canned=told)
    assert "its file is locked" in await page.inner_text("#quality-trouble")
    assert await page.locator("#drift > li").count() == (0 if failing == "watch" else 2)


async def test_it_fits_a_phone(opened: Opener) -> None:
    page = await opened([row()], policy="p", canned={**STILL, **QUALITY}, width=420, scheme="dark")
    assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert await page.locator("#quality-card").is_visible()
