"""The panel on requests that wait."""

from __future__ import annotations

from typing import Any

from tests.browser.conftest import Opener, marks
from tests.fakes.rows import row

pytestmark = marks

NOTHING: dict[str, Any] = {
    "waiting": 0, "running": 0, "done": 0, "failed": 0, "cancelled": 0, "saved_usd": "0", "batches": 0,
    "oldest_s": None, "keep_s": 86400.0, "upstreams": [],
}  # fmt: skip


async def test_what_waits_and_what_it_saved(opened: Opener) -> None:
    one = {"upstream": "<b>claude</b>", "waiting": 1200, "running": 3, "done": 2, "failed": 1, "cancelled": 0}
    some = NOTHING | {"saved_usd": "12.5", "oldest_s": 7200.0, "upstreams": [one | {"saved_usd": "12.5"}], "batches": 2}
    page = await opened([row()], deferred=some)
    said = await page.inner_text("#deferred-card")
    assert "<b>claude</b>" in said and "1,200" in said
    assert "$12.5" in await page.inner_text("#deferred-saved")
    assert "has waited for 2 h; batches under way: 2" in said
    assert await page.is_hidden("#deferred-none")


async def test_nothing_waits(opened: Opener) -> None:
    page = await opened([row()], deferred=NOTHING)
    assert "Nothing waits" in await page.inner_text("#deferred-card")
    assert await page.is_hidden("#deferred")


async def test_without_a_batch_api_there_is_no_panel(opened: Opener) -> None:
    page = await opened([row()], deferred=None)
    assert await page.is_hidden("#deferred-card")
