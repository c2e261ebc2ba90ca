"""Service levels and the trade-off on the page: figures are the API's, intervals are drawn, gaps are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from farthing.policies.levels import Tally, Target, assess
from farthing.policies.outcome import Outcome
from farthing.proxy.clock import FakeClock
from farthing.proxy.dashboard import Dashboard
from farthing.proxy.levels import plain_standing
from farthing.proxy.outcomes import Outcomes
from farthing.proxy.row import Row
from tests.browser.conftest import Opener, marks
from tests.browser.test_panels import table
from tests.fakes.rows import DOLLAR, NOW_S, row

pytestmark = marks

CALM, OUTAGE, FEW = Tally(100_000, 40), Tally(1_000, 300), Tally(3, 0)


def standing(target: Target, window: Tally, latest: Tally) -> dict[str, Any]:
    return plain_standing(assess(target, window, lambda length_s: latest))


def levels() -> dict[str, Any]:
    answers = [
        standing(Target("availability", 0.999), CALM, OUTAGE),
        standing(Target("latency", 0.99, 2000.0), Tally(100_000, 2_000), Tally(1_000, 5)),
    ]
    docs = [
        standing(Target("cost", 0.0, 0.01), Tally(1_000, 0, 6 * DOLLAR), Tally()),
        standing(Target("wrong", 0.98), FEW, Tally()),
    ]
    return {
        "as_of_s": NOW_S,
        "levels": [
            {"name": "<b>answers</b>", "where": {}, "window_days": 30, "targets": answers},
            {"name": "docs", "where": {"tag": "team=docs", "model": "gpt-4o*"}, "window_days": 7, "targets": docs},
        ],
    }


def some(model: str, count: int, cents: float, latency_ms: float) -> list[Row]:
    return [
        row(id=f"{model}{i}", model_served=model, cost_usd=int(cents * (0.8 + 0.4 * (i % 2)) * DOLLAR / 100),
            baseline_usd=DOLLAR, latency_ms=latency_ms * (0.9 + 0.2 * (i % 2)))
        for i in range(count)
    ]  # fmt: skip


ROWS = [
    *some("large", 120, 5, 900),
    *some("<i>old</i>", 80, 6, 2_000),
    *some("small", 200, 1, 300),
    *some("new", 5, 1, 9),
]


def rated(state_dir: Path) -> None:
    outcomes = Outcomes(state_dir / "outcomes.db")
    good = {"large": 10, "<i>old</i>": 2, "small": 6}
    ids = [each.id for each in ROWS if each.model_served in good]
    outcomes.put(
        [Outcome(id, "rating", float(i % 13 < good[id.rstrip("0123456789")]), NOW_S, NOW_S) for i, id in enumerate(ids)]
    )
    outcomes.close()


async def api(state_dir: Path, **query: str) -> dict[str, dict[str, Any]]:
    dashboard = Dashboard(state_dir / "ledger.db", FakeClock(NOW_S), dict)
    reply = await dashboard.handle("GET", "/farthing/api/tradeoff", {"since": "7d", **query})
    assert reply is not None and reply[0] == 200
    return {point["name"]: point for point in orjson.loads(reply[2])["points"]}


async def test_levels_show_what_the_api_says(opened: Opener) -> None:
    page = await opened([row()], canned={"levels": levels()})
    told = await table(page, "levels")
    assert [line[:4] for line in told] == [
        ["<b>answers</b> all requests; 30 days", "99.9% answered", "99.96% 99.95% to 99.97%, of 100,000",
         "60.0% 40 of 100 used"],
        ["", "99% in 2,000 ms", "98% 97.91% to 98.08%, of 100,000", "overdrawn by 100.0% 2,000 of 1,000 used"],
        ["docs team=docs, model gpt-4o*; 7 days", "$0.0100 a request", "$0.00600 of 1,000",
         "40.0% $6.00 of $10.00 used"],
        ["", "98% right", "100% 43.85% to 100%, of 3", "100.0% 0 of 0.1 used"],
    ]  # fmt: skip
    assert told[0][4:] == ["300", "300", "300", "▲ burns fast"]
    assert told[1][4:] == ["0.5"] * 3 + ["▲ missed"]
    assert [line[-1] for line in told[2:]] == ["● kept", "○ not enough data"]
    widths = await page.locator("#levels .meter i").evaluate_all("(all) => all.map((at) => at.style.width)")
    assert [float(width.rstrip("%")) for width in widths] == pytest.approx([60, 0, 40, 100])


async def test_without_levels_there_is_no_card_and_trouble_is_told(opened: Opener) -> None:
    page = await opened([row()])
    assert await page.locator("#levels-card").is_hidden()
    page = await opened([], canned={"levels": {"error": "disk full"}})
    assert "Service levels can’t be shown" in await page.inner_text("#levels-trouble")


async def test_the_trade_off_shows_what_the_api_says(opened: Opener, tmp_path: Path) -> None:
    rated(tmp_path)
    page = await opened(ROWS)
    points = await api(tmp_path)
    told = {line[0].partition(". ")[2] or line[0]: line for line in await table(page, "tradeoff")}
    assert set(told) == set(points) == {"large", "<i>old</i>", "small", "new"}
    for name, point in points.items():
        assert told[name][1] == str(point["requests"])
        if point["quality"]:
            low, high = (f"{100 * point['quality'][end]:.1f}%" for end in ("low", "high"))
            value, judged = f"{100 * point['quality']['value']:.1f}%", point["judged"]
            assert told[name][5] == f"{value} {low} to {high}, of {judged}"
    assert told["large"][2].startswith("$0.0500 $0.0")
    assert told["new"][2].endswith("too few for an interval") and told["new"][5] == "unknown"
    assert told["<i>old</i>"][6] == "beaten for sure by small" and told["small"][6] == "on the front"
    assert told["new"][6].startswith("not compared")
    plot, times = page.locator("#tradeoff-plot svg").first, page.locator("#tradeoff-plot svg").nth(1)
    assert (await plot.locator("circle.on").count(), await plot.locator("path.cross").count()) == (2, 1)
    assert await plot.locator("polyline.edge").count() == 1 and await plot.locator("line.whisker").count() == 6
    assert "1 small" in (await plot.text_content() or "")
    # Latency has its own picture, of the same ways at the same costs.
    assert "median latency" in (await times.text_content() or "") and "ms" in (await times.text_content() or "")
    across = "(all) => all.map((at) => at.getAttribute('cx'))"
    dots = [await one.locator("circle.on").evaluate_all(across) for one in (plot, times)]
    assert dots[0] == dots[1] and await times.locator("polyline").count() == 0


async def test_marks_stand_where_their_figures_are(opened: Opener, tmp_path: Path) -> None:
    rated(tmp_path)
    page = await opened(ROWS)
    points = await api(tmp_path)
    dots = (
        await page.locator("#tradeoff-plot svg")
        .first.locator("circle.on")
        .evaluate_all("(all) => all.map((at) => [Number(at.getAttribute('cx')), Number(at.getAttribute('cy'))])")
    )
    (small_x, small_y), (large_x, large_y) = dots
    assert points["small"]["cost_usd"]["value"] < points["large"]["cost_usd"]["value"] and small_x < large_x
    assert points["small"]["quality"]["value"] < points["large"]["quality"]["value"] and small_y > large_y


async def test_without_ratings_latency_stands_in_for_quality(opened: Opener) -> None:
    page = await opened(ROWS)
    assert "Nobody has rated an answer" in await page.inner_text("#tradeoff-note")
    assert "median latency" in await page.locator("#tradeoff-plot svg").text_content()
    await page.select_option("#tradeoff-by", "cache")
    await page.wait_for_selector("#tradeoff-none:not([hidden])")
    assert "There is nothing to compare" in await page.inner_text("#tradeoff-none")
    assert await page.locator("#tradeoff-plot").is_hidden()


async def test_an_empty_ledger_shows_no_trade_off(opened: Opener) -> None:
    page = await opened([], wait="empty")
    assert await page.locator("#tradeoff-card").is_hidden()


@pytest.mark.parametrize("width", [1300, 420])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_runs_over_the_edge(opened: Opener, tmp_path: Path, width: int, scheme: str) -> None:
    rated(tmp_path)
    page = await opened(ROWS, canned={"levels": levels()}, width=width, scheme=scheme)
    for place in ("#levels-card", "#tradeoff-card", "#levels-card .scroll", "#tradeoff-card .scroll"):
        over = await page.locator(place).evaluate("(at) => at.scrollWidth - at.clientWidth")
        assert over <= 1, place
    assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
