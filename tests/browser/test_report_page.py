"""The report's page in a real browser: it fits, its charts have areas, and a hostile name does nothing."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.report import render
from farthing.proxy.report_read import read_report
from farthing.proxy.report_text import money
from tests.browser.conftest import marks
from tests.fakes.rows import DOLLAR, NOW_S, ledger, plausible, row

pytestmark = marks
HOSTILE = '"><script>document.title="broken"</script><img src=x onerror="document.title=1">'


@pytest.mark.parametrize("width", [420, 1300])
async def test_the_page_fits_and_shows_what_the_ledger_holds(browser: Any, tmp_path: Path, width: int) -> None:
    rows = [*plausible(600, days=20), row(id="h", model_requested=HOSTILE, cost_usd=DOLLAR, baseline_usd=DOLLAR)]
    with closing(ledger(":memory:", rows)) as conn:
        report = read_report(conn, NOW_S - 7 * 86_400, NOW_S, ("model",))
    path = tmp_path / "report.html"
    path.write_text(render(report, "html"), "utf-8")
    faults: list[str] = []
    page = await browser.new_page(viewport={"width": width, "height": 900})
    page.on("console", lambda message: faults.append(message.text))
    page.on("request", lambda request: faults.append(request.url) if request.url != path.as_uri() else None)
    await page.goto(path.as_uri())
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await page.title() == "farthing: 7 days to 2027-01-15"
    tiles = await page.locator(".tile b").all_inner_texts()
    total = report.figures.total
    assert tiles[:3] == [money(total.spent), money(total.baseline), money(total.net_saving)]
    shown = page.locator(".chart svg:visible[role=img]")
    assert await shown.count() == 3
    # Bars are as high as their amounts: the highest one's height is the greatest amount's share of the axis.
    heights = await shown.first.locator("rect.spent").evaluate_all("bars => bars.map(bar => bar.height.baseVal.value)")
    spent = [stretch.sums.spent for stretch in report.stretches]
    assert len(heights) == len(spent)
    scale = max(heights) / max(spent)
    assert all(abs(height - amount * scale) < 0.2 for height, amount in zip(heights, spent, strict=True))
    await page.close()
    assert faults == []
