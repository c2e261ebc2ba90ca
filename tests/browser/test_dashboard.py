"""The dashboard in a real browser: its figures are the ledger's, hostile texts stay texts, every state shows."""

from __future__ import annotations

import pytest

from farthing.proxy.report import money
from farthing.proxy.report_text import dollars
from tests.browser.conftest import Opener, marks, playwright
from tests.fakes.rows import DOLLAR, NOW_S, plausible, row

pytestmark = marks


async def test_the_figures_are_the_ledgers(opened: Opener) -> None:
    rows = plausible(800)
    page = await opened(rows)
    priced = [each for each in rows if each.baseline_usd is not None and each.cost_usd is not None]
    own = sum(each.overhead_usd or 0 for each in rows)
    saved = sum((each.baseline_usd or 0) - (each.cost_usd or 0) for each in priced)
    assert await page.inner_text("#net") == money(saved - own)
    spent = money(sum(each.cost_usd or 0 for each in priced) + own)
    assert f"You spent {spent} in 7 days" in await page.inner_text("#headline")
    unpriced = len(rows) - len(priced)
    assert f"{unpriced} requests of unknown price" in await page.inner_text("#notes")
    here = sum(each.cache in ("hit-exact", "hit-semantic", "joined") for each in rows)
    eligible = sum(each.cache != "bypass" for each in rows)
    tiles = await page.inner_text("#tiles")
    assert f"{here / eligible:.1%}" in tiles
    assert f"{here / len(rows):.1%} of all" in tiles
    for_model = [each for each in rows if each.model_requested == "gpt-4o"]
    line = await page.inner_text("#groups tr:has(td[title='gpt-4o'])")
    assert str(len(for_model)) in line
    assert money(sum(each.baseline_usd or 0 for each in for_model)) in line
    assert await page.locator("#charts canvas").count() == 8
    assert await page.locator("#recent tbody tr").count() == 25


async def test_amounts_are_rounded_as_the_report_rounds_them(opened: Opener) -> None:
    """Half a digit goes to the even one in both: 0.0001175 as a binary fraction lies a little below."""
    page = await opened([row()])
    picos = [0, 1, 12, 99_950, 117_500_000, 112_500_000, -117_500_000, 9_999_999_999, 9_995_000_000, 10_000_000_000,
             10_050_000_000, 74_550_000_000, 999_950_000_000, 10**12, 1_005_000_000_000, 1_015_000_000_000,
             1_234_565_000_000_000, 10**18 + 5_000_000_000]  # fmt: skip
    shown = await page.evaluate(
        "async (texts) => texts.map((await import('/farthing/static/format.js')).money)",
        [dollars(pico) for pico in picos],
    )
    assert shown == [money(pico) for pico in picos]
    assert (shown[4], shown[5], shown[6]) == ("$0.000118", "$0.000112", "-$0.000118")


async def test_hostile_texts_stay_texts(opened: Opener) -> None:
    nasty = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"
    rows = [
        row(id=nasty, model_requested=nasty, user=nasty, error=nasty, cache_reason=nasty, outcome="failed", status=500,
            upstream=nasty, decisions=f'[["{"exact"}", "<b>x</b>", "<script>1</script>"]]', tags='{"<i>":"<b>"}')
    ]  # fmt: skip
    page = await opened(rows, upstream=nasty)
    assert nasty in await page.inner_text("#groups")
    assert nasty in await page.inner_text("#badges")
    await page.click("#recent button")
    await page.wait_for_selector("#detail-body .story")
    assert "<b>x</b>" in await page.inner_text("#detail-body")
    assert await page.locator("#groups img, #recent img, #detail img, #badges img, main script, #detail i").count() == 0
    assert await page.title() == "farthing"


async def test_a_request_in_detail_by_keyboard(opened: Opener) -> None:
    decided = '[["eligible","yes",""],["exact","miss","nothing stored"]]'
    page = await opened([row(id="r1", decisions=decided, baseline_usd=DOLLAR, cost_usd=DOLLAR)])
    await page.focus("#recent button")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#detail-body .story")
    assert await page.inner_text("#detail-title") == "r1"
    assert "nothing stored" in await page.inner_text("#detail-body")
    await page.keyboard.press("Escape")
    assert not await page.locator("#detail").is_visible()


async def test_losses_are_red_wherever_they_show(opened: Opener) -> None:
    lost = {"baseline_usd": DOLLAR, "cost_usd": 2 * DOLLAR, "saved_prompt_cache_usd": -DOLLAR}
    page = await opened([row(id="r1", **lost)])
    await page.click("#recent button")
    await page.wait_for_selector("#detail-body .story")
    shown = page.locator(".minus", has_text="-$1.00")
    assert await shown.count() == 5  # net saving, cause, group, recent request, its details
    colours = {
        await shown.nth(at).evaluate("each => getComputedStyle(each.querySelector('dd, #net') ?? each).color")
        for at in range(5)
    }
    assert len(colours) == 1
    red, green, blue = (int(part) for part in colours.pop().removeprefix("rgb(").removesuffix(")").split(","))
    assert red > 1.5 * max(green, blue)


async def test_an_empty_ledger_says_what_to_do(opened: Opener) -> None:
    page = await opened([], wait="empty")
    assert "/v1" in await page.inner_text("#snippet")
    assert await page.locator("#empty").is_visible()
    assert not await page.locator(".hero").is_visible()


async def test_the_badges_warn(opened: Opener) -> None:
    page = await opened([row()], semantic="serve unproven", simulated=True, switched_off=True, ledger="degraded")
    badges, alerts = await page.inner_text("#badges"), await page.inner_text("#alerts")
    assert "semantic: unproven" in badges
    assert "simulated" in badges
    assert "All optimisation is off" in alerts
    assert "can’t be written" in alerts
    assert await page.locator("#badges li.warn", has_text="semantic: unproven").count() == 1


async def test_unknown_prices_are_question_marks_and_losses_are_negative(opened: Opener) -> None:
    loss = row(id="l", baseline_usd=DOLLAR, cost_usd=3 * DOLLAR, saved_prompt_cache_usd=-2 * DOLLAR, ts=NOW_S - 1)
    unknown = row(id="u", model_requested="house", baseline_usd=None, cost_usd=None, saved_exact_usd=None)
    page = await opened([loss, unknown])
    assert await page.inner_text("#net") == "-$2.00"
    assert (await page.inner_text("#groups tr:has(td[title=house])")).split()[2:5] == ["?", "?", "?"]
    assert "-$2.00" in await page.inner_text("#recent tbody tr:first-child")


async def test_a_phone_needs_no_sideways_scrolling(opened: Opener) -> None:
    page = await opened(plausible(200), width=390)
    wide = """() => [document.documentElement, ...document.querySelectorAll('.scroll, td:not(.name)')]
        .filter((each) => each.scrollWidth > each.clientWidth + 1).map((each) => each.outerHTML.slice(0, 200))"""
    assert await page.evaluate(wide) == []
    for place in ("#groups td[data-label='net saved']", "#recent td[data-label='saved']"):
        box = await page.locator(place).first.bounding_box()
        assert box["x"] + box["width"] <= 390


async def test_a_single_slice_of_time_shows_as_points(opened: Opener) -> None:
    page = await opened([row(latency_ms=500.0, overhead_ms=2.0)])
    drawn = """(canvas) => {
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height), seen = new Set();
        for (let i = 0; i < data.length; i += 4)
            if (data[i + 3] === 255) seen.add(`rgb(${[...data.slice(i, i + 3)].join(', ')})`);
        return [...seen]; }"""
    for title in ("Latency", "Farthing’s own overhead"):
        chart = page.locator(".chart", has_text=title)
        # The others' points lie under p99's: one request has one latency.
        p99 = await chart.locator(".swatch").last.evaluate("(swatch) => getComputedStyle(swatch).borderTopColor")
        assert p99 in await chart.locator("canvas").evaluate(drawn)


async def test_slices_without_a_saving_draw_nothing(opened: Opener) -> None:
    page = await opened([row(saved_prompt_cache_usd=-4 * DOLLAR), row(id="h", saved_exact_usd=2 * DOLLAR)])
    coloured = """(canvas) => {
        // Without the axes: their letters have coloured edges where the screen's font smoothing makes them.
        const { data } = canvas.getContext('2d').getImageData(70, 0, canvas.width / 2 - 70, canvas.height - 45);
        let found = 0;
        for (let i = 0; i < data.length; i += 4) {
            const rgb = data.slice(i, i + 3);
            if (data[i + 3] && Math.max(...rgb) - Math.min(...rgb) > 40) found += 1;
        }
        return found; }"""
    assert await page.locator(".chart", has_text="Saved, by cause").locator("canvas").evaluate(coloured) == 0


async def test_labels_of_an_axis_are_whole(opened: Opener) -> None:
    tiny = [row(id=f"r{i}", cache="hit-exact", baseline_usd=62 * 10**4, saved_exact_usd=62 * 10**4) for i in range(3)]
    page = await opened(tiny)
    margin = """(canvas) => canvas.getContext('2d').getImageData(0, 0, 2, canvas.height).data.some((x) => x)"""
    canvases = page.locator("#charts canvas")
    assert [await canvases.nth(i).evaluate(margin) for i in range(await canvases.count())] == [False] * 8


@pytest.mark.parametrize("width", [830, 1000, 1300])
async def test_a_long_amount_stays_in_its_place(opened: Opener, width: int) -> None:
    big = row(baseline_usd=5_000_000 * DOLLAR, cost_usd=3_765_433 * DOLLAR, saved_exact_usd=1_234_567 * DOLLAR)
    page = await opened([big], width=width)
    share, split = await page.locator("#net-share").bounding_box(), await page.locator(".split").bounding_box()
    assert share["x"] + share["width"] <= split["x"]


async def test_nothing_saved_is_not_shown_as_a_gain(opened: Opener) -> None:
    page = await opened([row(model_requested="")])
    line = page.locator("#groups tbody tr")
    assert "(none)" in await line.inner_text()
    assert await line.locator(".good, .minus").count() == 0


async def test_what_cannot_be_seen_in_a_name_is_shown(opened: Opener) -> None:
    page = await opened([row(model_requested="a\x1b[31m\u202eb\x07")])
    for table in ("#groups", "#recent"):
        assert await page.inner_text(f"{table} td.name") == "a\ufffd[31m\ufffdb\ufffd"


async def test_the_range_changes_the_figures(opened: Opener) -> None:
    page = await opened([row(id="new"), row(id="old", ts=NOW_S - 3 * 86_400)])
    assert "2" in (await page.inner_text("#tiles .tile:first-child .value"))
    await page.check("input[value='1h']", force=True)
    await playwright.expect(page.locator("#tiles .tile:first-child .value")).to_have_text("1")
    assert "since=1h" in page.url


@pytest.mark.parametrize(("endpoint", "word"), [("audit", "audit of a hit"), ("judge", "judge of a candidate")])
async def test_an_own_call_is_listed_as_one_with_its_price(opened: Opener, endpoint: str, word: str) -> None:
    audit = row(id="a", endpoint=endpoint, cache="bypass", cache_reason="far-1", overhead_usd=DOLLAR)
    page = await opened([row(ts=NOW_S - 90), audit])
    listed = await page.inner_text("#recent tbody tr:first-child")
    assert word in listed
    assert "$1.00" in listed
    assert (await page.inner_text("#tiles .tile:first-child .value")).strip() == "1"
