"""How the page looks to whom: contrast, colour-blind eyes, dark and light, a phone, those who want nothing to move."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from tests.browser.colours import DEFICIENCIES, Rgb, contrast, difference, parse
from tests.browser.conftest import Opener, marks, playwright
from tests.fakes.rows import DOLLAR, plausible, row

pytestmark = marks

CHARTS = (
    ("exact", "semantic", "compress", "route", "prompt_cache", "loss"),
    ("exact", "semantic", "joined", "miss", "bypass"),
    ("spent", "exact", "semantic", "joined"),
    ("in", "sent", "cached", "out"),
    ("p50", "p95", "p99"),
    ("baseline", "spent"),
    ("spent", "exact", "semantic", "compress", "route", "prompt_cache"),
)
TEXTS = (("ink", "card"), ("soft", "card"), ("soft", "paper"), ("soft", "sunk"), ("good", "card"), ("bad-ink", "card"),
         ("bad-ink", "bad-bg"), ("warn-ink", "warn-bg"), ("ink", "sunk"))  # fmt: skip
# How many pixels of a chart have exactly the colour of a name.
PIXELS = """([name, title]) => {
    const chart = [...document.querySelectorAll('.chart')].find((at) => at.querySelector('h2').textContent === title);
    const canvas = chart.querySelector('canvas'), probe = document.createElement('i');
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    document.body.append(probe);
    probe.style.color = `var(--${name})`;
    const [r, g, b] = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
    probe.remove();
    let found = 0;
    for (let i = 0; i < data.length; i += 4)
        if (data[i] === r && data[i + 1] === g && data[i + 2] === b && data[i + 3] === 255) found += 1;
    return found; }"""
SIGN = "(at) => [getComputedStyle(at).backgroundImage, at.className].join()"
STAND_OUT, READABLE, APART = 3.0, 4.5, 9.0


async def colours(page: Any) -> dict[str, Rgb]:
    names = sorted({name for chart in CHARTS for name in chart} | {name for pair in TEXTS for name in pair})
    found = await page.evaluate(
        """async (names) => { const { colour } = await import('/farthing/static/palette.js');
            return names.map((name) => colour(name)); }""",
        names,
    )
    return {name: parse(text) for name, text in zip(names, found, strict=True)}


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_series_stand_out_and_stay_apart_whichever_cones_are_missing(opened: Opener, scheme: str) -> None:
    page = await opened([row()], scheme=scheme)
    known = await colours(page)
    faint = {name: contrast(known[name], known["card"]) for chart in CHARTS for name in chart}
    assert {name: ratio for name, ratio in faint.items() if ratio < STAND_OUT} == {}
    alike = {
        (a, b, missing)
        for chart in CHARTS
        for a, b in combinations(chart, 2)
        for missing in DEFICIENCIES
        if difference(known[a], known[b], missing) < APART
    }
    assert alike == set()
    assert {pair for pair in TEXTS if contrast(known[pair[0]], known[pair[1]]) < READABLE} == set()


async def test_the_measures_are_those_of_their_sources() -> None:
    white, black, red, green = (parse(text) for text in ("255, 255, 255", "0, 0, 0", "200, 0, 0", "0, 110, 0"))

    assert contrast(white, black) == pytest.approx(21.0)
    assert difference(white, black, "none") == pytest.approx(100.0, abs=0.1)
    assert difference(red, green, "deuteranopia") < difference(red, green, "none") / 2


async def test_stacks_have_patterns_and_lines_have_dashes_beside_colours(opened: Opener) -> None:
    page = await opened(plausible(400))
    for title in ("Saved, by cause", "Requests", "Hit rate", "Tokens", "Latency", "Waiting for the upstream"):
        chart = page.locator(".chart", has=page.locator(f"h2:text-is('{title}')"))
        looks = [await each.evaluate(SIGN) for each in await chart.locator(".swatch").all()]
        # Plain grey beside plain blue is told apart by lightness: misses against exact hits.
        assert len(set(looks)) >= len(looks) - 1, title


async def test_the_theme_is_chosen_and_stays(opened: Opener) -> None:
    page = await opened([row()], alone=True)
    paper = "getComputedStyle(document.body).backgroundColor"
    light = await page.evaluate(paper)
    await page.select_option("#theme", "dark")
    dark = await page.evaluate(paper)
    assert dark != light
    line = "getComputedStyle(document.querySelector('#charts .legend .swatch')).getPropertyValue('--swatch')"
    assert await page.evaluate(line)
    await page.reload()
    await page.wait_for_selector("main[data-state=ready]")
    assert await page.evaluate(paper) == dark
    await page.select_option("#theme", "auto")
    assert await page.evaluate(paper) == light
    await page.emulate_media(color_scheme="dark")
    assert await page.evaluate(paper) == dark


async def test_charts_are_drawn_in_the_colours_of_the_theme(opened: Opener) -> None:
    page = await opened([row(baseline_usd=4 * DOLLAR, cost_usd=DOLLAR, saved_exact_usd=3 * DOLLAR)])
    assert await page.evaluate(PIXELS, ["exact", "Saved, by cause"]) > 50
    await page.select_option("#theme", "dark")
    await page.wait_for_timeout(500)
    assert await page.evaluate(PIXELS, ["exact", "Saved, by cause"]) > 50


async def test_losses_go_below_the_axis_in_their_own_colour(opened: Opener) -> None:
    loss = row(baseline_usd=DOLLAR, cost_usd=3 * DOLLAR, saved_prompt_cache_usd=-2 * DOLLAR)
    page = await opened([loss])
    assert await page.evaluate(PIXELS, ["loss", "Saved, by cause"]) > 50
    assert "lost by prompt cache" in await page.inner_text("#causes")
    assert await page.locator("#causes .minus dd").inner_text() == "-$2.00"


@pytest.mark.parametrize("width", [360, 420, 768, 1300])
async def test_nothing_needs_sideways_scrolling(opened: Opener, width: int) -> None:
    page = await opened(plausible(200), width=width, switched_off=True, ledger_dropped=7)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    await page.click("#recent tbody button >> nth=0")
    await page.wait_for_selector("#detail-body .story")
    await page.click("#detail summary")
    wide = "() => { const at = document.querySelector('#detail'); return at.scrollWidth - at.clientWidth; }"
    assert await page.evaluate(wide) <= 1
    box = await page.locator("#detail").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width


async def test_nothing_moves_for_those_who_want_that(opened: Opener) -> None:
    page = await opened([row()])
    await page.emulate_media(reduced_motion="reduce")
    moving = """() => [...document.querySelectorAll('*')].filter((at) => { const s = getComputedStyle(at);
        return s.animationName !== 'none' || parseFloat(s.transitionDuration) > 0; }).length"""
    await page.evaluate("document.querySelector('main').dataset.state = 'loading'")
    assert await page.evaluate(moving) == 0
    await page.emulate_media(reduced_motion="no-preference")
    assert await page.evaluate(moving) > 0


async def test_every_control_has_a_name_and_every_id_is_one(opened: Opener) -> None:
    page = await opened(plausible(60))
    nameless = """() => [...document.querySelectorAll('button, input, select, [role]')].filter((at) => {
        if (at.matches('[role=status], [role=alert]')) return false;
        const by = document.getElementById(at.getAttribute('aria-labelledby'));
        const named = at.getAttribute('aria-label') || by?.textContent || at.labels?.length || at.textContent.trim();
        return at.checkVisibility() && !named; }).map((at) => at.outerHTML.slice(0, 120))"""
    assert await page.evaluate(nameless) == []
    twice = """() => [...document.querySelectorAll('[id]')].map((at) => at.id)
        .filter((id, i, ids) => ids.indexOf(id) !== i)"""
    assert await page.evaluate(twice) == []
    levels = "() => [...document.querySelectorAll('main h2, main h3, h1')].map((at) => at.tagName).join()"
    assert (await page.evaluate(levels)).startswith("H1,H2")
    await playwright.expect(page.locator("html")).to_have_attribute("lang", "en")
