"""The panel on students: who answers, how it is checked, and what comes after it."""

from __future__ import annotations

from typing import Any

from tests.browser.conftest import Opener, marks
from tests.browser.panels import INCIDENTS, NOW_S, POLICY
from tests.browser.test_panels import table
from tests.fakes.rows import row

pytestmark = marks
STILL = {"policy": POLICY, "incidents": INCIDENTS}


def one(name: str = "intents", **changes: Any) -> dict[str, Any]:
    known = {
        "name": name, "state": "serves", "hash": "1f0c" * 4, "teacher": "gpt-4o", "labels": 77, "bound": 0.02,
        "level": 0.05, "trained_s": NOW_S - 7200, "answered": 41_210, "abstained": 52_004, "compared": 2061,
        "differed": 19, "now": {"compared": 2061, "differed": 19, "at_most": 0.0151}, "fell_back": 0, "heir": None,
        "training": None,
    }  # fmt: skip
    return known | changes


def told(*students: dict[str, Any], training: str = "") -> dict[str, Any]:
    return {"students": {"students": list(students), "training": training, "retrain_days": 7}}


async def test_each_student_with_its_checks_and_what_comes_next(opened: Opener) -> None:
    heir = {"hash": "ab", "trained_s": NOW_S, "compared": 212, "differed": 1, "at_most": 0.03,
            "waits_for": "its bound to be proved"}  # fmt: skip
    failed = {"ts": NOW_S - 7200, "result": "failed", "said": "<b>too little</b> to learn from"}
    observing = one("moods", state="observes", now={"compared": 0, "differed": 0, "at_most": 1}, training=failed)
    page = await opened([row()], policy="p", canned={**STILL, **told(one(heir=heir), observing)})
    first, second = await table(page, "students")
    assert first == [
        "intents", "● serves", "a new one was compared 212 times, 1 differed; it waits for its bound to be proved",
        "41,210", "52,004", "2,061", "19", "1.5%", "2.0%",
    ]  # fmt: skip
    assert second[1] == "○ observes" and second[7] == "–"
    assert second[2].startswith("▲ the last training failed") and second[2].endswith("<b>too little</b> to learn from")
    assert await page.inner_text("#students-when") == "trained anew every 7 days"


async def test_one_that_was_never_trained_says_how_to_make_it(opened: Opener) -> None:
    absent = {"name": "intents", "state": "not there", "training": None}
    page = await opened([row()], policy="p", canned={**STILL, **told(absent)})
    assert "farthing distill train --name intents makes it" in await page.inner_text("#students-absent")
    assert await page.locator("#students").is_hidden()


async def test_without_any_there_is_no_card(opened: Opener) -> None:
    page = await opened([row()], policy="p", canned=STILL)
    assert await page.locator("#students-card").is_hidden()


async def test_a_fault_is_told(opened: Opener) -> None:
    page = await opened([row()], policy="p", canned={**STILL, "students": {"error": {"message": "it is away"}}})
    assert "it is away" in await page.inner_text("#students-trouble")


async def test_it_fits_a_phone(opened: Opener) -> None:
    page = await opened(
        [row()], policy="p", canned={**STILL, **told(one("a-long-name-" * 5))}, width=420, scheme="dark"
    )
    assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert await page.locator("#students-card").is_visible()
