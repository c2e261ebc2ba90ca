"""The dashboard in a real browser: its figures are the ledger's, hostile texts stay texts, every state shows."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from farthing.proxy.clock import FakeClock
from farthing.proxy.dashboard import Dashboard
from farthing.proxy.report import money
from farthing.proxy.row import Row
from tests.fakes.rows import DOLLAR, NOW_S, ledger, plausible, row

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)"),
]

STATE = {"version": "0.1.0", "upstream": "127.0.0.1", "simulated": False, "exact": "exact", "semantic": "observe",
         "tidy": True, "capture": "off", "switched_off": False, "ledger": "ok", "ledger_dropped": 0}  # fmt: skip
CSP = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

REUSE: dict[str, Any] = {"mode": "observe", "policy": "verified", "max_wrong": 0.01, "per": "hit", "confidence": 0.95,
         "audits_usd_today": 0.0, "audit_daily_usd": 1.0, "count": 0, "routes": []}  # fmt: skip
ROUTE: dict[str, Any] = {"route": {"tenant": "a1b2c3d4", "name": "gpt-4o-mini 5d1f"}, "serving": False, "proof": "",
         "threshold": 0.9, "bound": None, "labels": 87.0, "wrong": 1.0, "needed": 260, "epoch": 0, "served": 0,
         "drift": 0.03, "reason": "not proved: 87 labels, about 260 more good ones needed",
         "interval": [0.0, 0.094]}  # fmt: skip
LATELY: dict[str, Any] = {"texts": True, "kind": "near", "counts": {"near": 0, "served": 0, "wrong": 0}, "routes": [],
         "slot_s": 10, "total": {"start_s": [], "looked": [], "served": []}, "over_time": [],
         "latest": []}  # fmt: skip
NEAR: dict[str, Any] = {"id": "far-1", "at_s": NOW_S, "route": ROUTE["route"], "score": 0.731, "cosine": 0.871,
         "threshold": 0.9, "bound": 0.01, "action": "observe", "reason": "below the proved threshold", "judged": False,
         "asked_key": "0123456789ab", "stored_key": "ba9876543210",
         "against": [{"kind": "numbers differ", "asked": ["12"], "stored": ["13"]}],
         "asked": [["Rice for ", False], ["12", True], [" people?", False]],
         "stored": [["Rice for ", False], ["13", True], [" people?", False]]}  # fmt: skip

Opener = Callable[..., Any]


@asynccontextmanager
async def served(dashboard: Dashboard, reuse: dict[str, Any], lately: dict[str, Any]) -> AsyncIterator[str]:
    """The page, with canned answers on near-duplicates: `lately` by kind. An answer with "error" has status 500."""

    async def handler(request: web.Request) -> web.Response:
        canned = None
        if request.path == "/farthing/api/semantic":
            canned = reuse
        elif request.path == "/farthing/api/semantic/lately":
            canned = {**LATELY, "kind": request.query["kind"], **lately.get(request.query["kind"], {})}
            if request.query["route"]:
                canned["latest"] = [
                    each for each in canned["latest"] if "/".join(each["route"].values()) == request.query["route"]
                ]
        if canned is not None:
            return web.json_response(canned, status=500 if "error" in canned else 200)
        found = await dashboard.handle(request.method, request.path, request.query)
        status, kind, body = found or (404, "text/plain", b"")
        return web.Response(status=status, body=body, headers={"Content-Type": kind, "Content-Security-Policy": CSP})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def is_complaint(said: Any) -> bool:
    """An error on the console, but for the browser's own line on an answer that was canned to fail."""
    return said.type == "error" and "status of 500" not in said.text


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens the page on a ledger of `rows`; afterwards there must have been no error on its console."""
    complaints: list[str] = []
    async with AsyncExitStack() as stack:
        play = await stack.enter_async_context(playwright.async_playwright())
        browser = await play.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        stack.push_async_callback(browser.close)

        async def open_page(
            rows: Iterable[Row],
            wait: str = "ready",
            width: int = 1280,
            reuse: dict[str, Any] | None = None,
            lately: dict[str, Any] | None = None,
            **state: Any,
        ) -> Any:
            ledger(tmp_path / "ledger.db", rows).close()
            dashboard = Dashboard(tmp_path / "ledger.db", FakeClock(NOW_S), lambda: {**STATE, **state})
            base = await stack.enter_async_context(served(dashboard, {**REUSE, **(reuse or {})}, lately or {}))
            page = await browser.new_page(viewport={"width": width, "height": 900})
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda said: complaints.append(said.text) if is_complaint(said) else None)
            page.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith(base) else None)
            await page.goto(f"{base}/farthing/#since=7d")
            await page.wait_for_selector(f"main[data-state={wait}]", timeout=20_000)
            return page

        yield open_page
    assert complaints == []


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
    assert await page.locator("#charts canvas").count() == 6
    assert await page.locator("#recent tbody tr").count() == 50


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
    await page.wait_for_selector("#detail-body dl")
    assert "<b>x</b>" in await page.inner_text("#detail-body")
    assert await page.locator("#groups img, #recent img, #detail img, #badges img, main script, #detail b").count() == 0
    assert await page.title() == "farthing"


async def test_a_request_in_detail_by_keyboard(opened: Opener) -> None:
    decided = '[["eligible","yes",""],["exact","miss","nothing stored"]]'
    page = await opened([row(id="r1", decisions=decided, baseline_usd=DOLLAR, cost_usd=DOLLAR)])
    await page.focus("#recent button")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#detail-body dl")
    assert await page.inner_text("#detail-title") == "r1"
    assert "nothing stored" in await page.inner_text("#detail-body")
    await page.keyboard.press("Escape")
    assert not await page.locator("#detail").is_visible()


async def test_an_empty_ledger_says_what_to_do(opened: Opener) -> None:
    page = await opened([], wait="empty")
    assert "/v1" in await page.inner_text("#snippet")
    assert await page.locator("#empty").is_visible()
    assert not await page.locator(".hero").is_visible()


async def test_the_badges_warn(opened: Opener) -> None:
    page = await opened([row()], semantic="serve unproven", simulated=True, switched_off=True, ledger="degraded")
    warned = await page.inner_text("#badges")
    for words in ("all optimisation off", "semantic: unproven", "simulated", "can’t be written"):
        assert words in warned
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
        # p50's point lies under p95's: one request has one latency.
        p95 = await chart.locator(".swatch").last.evaluate("(swatch) => getComputedStyle(swatch).backgroundColor")
        assert p95 in await chart.locator("canvas").evaluate(drawn)


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
    assert [await canvases.nth(i).evaluate(margin) for i in range(await canvases.count())] == [False] * 6


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


def reuse(*routes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"routes": [{**ROUTE, **each} for each in routes], "count": len(routes), **more}


async def test_near_duplicates_show_the_promise_the_proof_and_what_lacks(opened: Opener) -> None:
    proved = {"serving": True, "proof": "own", "bound": 0.0093, "labels": 471.0, "wrong": 0.0, "needed": None,
              "served": 1234, "drift": 0.25, "reason": ""}  # fmt: skip
    told = reuse({**proved, "interval": [0.0, 0.0089]}, {}, mode="serve", audits_usd_today=0.25)
    page = await opened([row()], reuse=told)
    assert "At most 1% of the answers given again may be wrong, 95% sure" in await page.inner_text("#reuse-promise")
    assert "audits today $0.2500 of $1.00" in await page.inner_text("#reuse-audits")
    rows = page.locator("#reuse-routes tbody tr")
    first, second = await rows.nth(0).inner_text(), await rows.nth(1).inner_text()
    for words in (
        "serving",
        "by its own labels",
        "0% seen (0% to 0.89%) at most 0.93%",
        "471 labels",
        "1,234",
        "25.0%",
    ):
        assert words in first
    for words in (
        "observing",
        "not yet",
        "1.1% seen (0% to 9.4%)",
        "87 labels, about 260 more",
        "not proved: 87 labels",
    ):
        assert words in second
    bars = page.locator("#reuse-routes .meter")
    shares = [await bars.nth(i).evaluate("(bar) => bar.firstChild.offsetWidth / bar.offsetWidth") for i in range(2)]
    assert shares == [pytest.approx(1.0), pytest.approx(87 / 347, abs=0.02)]


async def test_the_bar_puts_the_promise_between_what_was_seen_and_what_was_not_allowed(opened: Opener) -> None:
    good = {"serving": True, "proof": "own", "bound": 0.008, "labels": 1000.0, "wrong": 2.0, "interval": [0.0, 0.009]}
    page = await opened([row()], reuse=reuse(good, {"labels": 50.0, "wrong": 5.0, "interval": [0.03, 0.25]}))
    for number, order in ((0, ["seen", "bound", "range", "limit"]), (1, ["limit", "seen over", "range open"])):
        parts = page.locator("#reuse-routes tbody tr").nth(number).locator(".gauge i")
        ends = {}
        for i in range(await parts.count()):
            box = await parts.nth(i).bounding_box()
            ends[await parts.nth(i).get_attribute("class")] = box["x"] + box["width"]
        assert sorted(ends, key=lambda name: ends[name]) == order


async def test_no_routes_yet_is_said_in_words(opened: Opener) -> None:
    page = await opened([row()])
    assert "No route has had a candidate yet" in await page.inner_text("#reuse-card")
    assert not await page.locator("#reuse-routes").is_visible()
    assert "No near miss yet" in await page.inner_text("#lately-said")
    assert not await page.locator("#lately-chart").is_visible()


async def test_an_unproven_threshold_promises_nothing(opened: Opener) -> None:
    loose = {"serving": True, "proof": "unproven", "reason": "unproven"}
    page = await opened([row()], reuse=reuse(loose, mode="serve unproven", policy="static"))
    said = await page.inner_text("#reuse-promise")
    assert "none is proved" in said and "At most" not in said
    assert "unproven" in await page.inner_text("#reuse-routes td[data-label=proof]")


async def test_no_panel_where_the_semantic_cache_is_off(opened: Opener) -> None:
    page = await opened([row()], reuse={"mode": "off"})
    assert not await page.locator("#reuse-card").is_visible()


@pytest.mark.parametrize("width", [390, 1280])
async def test_hostile_names_of_routes_stay_texts_and_in_their_place(opened: Opener, width: int) -> None:
    nasty = "<img src=x onerror=\"document.title='pwned'\">" + "W" * 300
    route = {"route": {"tenant": nasty, "name": nasty}, "reason": nasty}
    slots = {"start_s": [0.0], "looked": [2], "served": [1]}
    near = {**NEAR, **route, "asked": [[nasty, True]], "stored": [["<script>document.title='pwned'</script>", True]],
            "against": [{"kind": nasty, "asked": [nasty], "stored": ["<i>"]}]}  # fmt: skip
    lately = {"latest": [near], "routes": [route["route"]], "total": slots,
              "over_time": [{"route": route["route"], **slots}]}  # fmt: skip
    page = await opened([row()], width=width, reuse=reuse(route), lately={"near": lately})
    assert nasty in await page.inner_text("#reuse-routes .why")
    assert await page.inner_text("#lately-list ins") == nasty
    assert await page.inner_text("#lately-list del") == "<script>document.title='pwned'</script>"
    assert nasty in await page.inner_text("#lately-chart")
    assert await page.locator("#reuse-card :is(img, script, i:not([class], .meter i))").count() == 0
    assert await page.title() == "farthing"
    assert await page.evaluate("document.documentElement.scrollWidth") <= width


def near(*latest: dict[str, Any], kind: str = "near", **more: Any) -> dict[str, Any]:
    """The answer of one kind."""
    sightings = [{**NEAR, **each} for each in latest]
    counts = {**LATELY["counts"], kind: len(sightings)}
    return {kind: {"latest": sightings, "counts": counts, "routes": [ROUTE["route"]], **more}}


async def test_a_near_miss_shows_its_figures_and_marks_what_differs(opened: Opener) -> None:
    page = await opened([row(id="far-1", cache="miss")], lately=near({}))
    said = await page.inner_text("#lately-list")
    for words in ("score 0.731 of 0.900 needed", "cosine 0.871", "below the proved threshold",
                  "numbers differ: 12 / 13", "the fresh answer said something else", "gpt-4o-mini 5d1f"):  # fmt: skip
        assert words in said
    assert await page.inner_text("#lately-list .pair dd:nth-of-type(1)") == "Rice for 12 people?"
    assert await page.inner_text("#lately-list .pair dd:nth-of-type(2)") == "Rice for 13 people?"
    assert await page.inner_text("#lately-kinds label:first-of-type") == "Near misses 1"
    lines = "(mark) => getComputedStyle(mark).textDecorationLine"
    assert await page.locator("#lately-list ins").evaluate(lines) == "underline"
    assert await page.locator("#lately-list del").evaluate(lines) == "line-through"
    await page.focus("#lately-list button")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#detail-body dl")
    assert await page.inner_text("#detail-title") == "far-1"


async def test_without_texts_the_panel_says_how_to_have_them(opened: Opener) -> None:
    bare = {name: value for name, value in NEAR.items() if name not in ("asked", "stored")}
    bare["against"] = [{"kind": "numbers differ"}]
    page = await opened([row()], lately={"near": {"texts": False, "latest": [bare]}})
    assert "semantic.show_texts = true" in await page.inner_text("#lately-said")
    said = await page.inner_text("#lately-list")
    assert "0123456789ab" in said and "ba9876543210" in said and "numbers differ" in said
    assert not await page.locator("#lately-marks").is_visible()


async def test_what_can_not_be_seen_in_a_prompt_is_spelt_out(opened: Opener) -> None:
    asked = [["a\u200bb\u202ec\u200f\u200d d\ne 👩\u200d👧 ", False], ["\u2066x\u3164", True]]
    page = await opened([row()], lately=near({"asked": asked}))
    shown = await page.text_content("#lately-list .pair dd:nth-of-type(1)")
    assert shown == "a⟨U+200B⟩b⟨U+202E⟩c⟨U+200F⟩⟨U+200D⟩ d ⏎ e 👩\u200d👧 ⟨U+2066⟩x⟨U+3164⟩"


async def test_kinds_and_routes_are_chosen_by_keyboard(opened: Opener) -> None:
    other = {"tenant": "ffff0000", "name": "another 1234"}
    mixed = near({}, {"id": "far-2", "route": other}, routes=[ROUTE["route"], other])
    page = await opened([row()], lately=mixed | near({"judged": True, "reason": "proved"}, kind="served"))
    entries = page.locator("#lately-list > li")
    await page.focus("input[value=near]")
    await page.keyboard.press("ArrowRight")
    await playwright.expect(entries).to_have_count(1)
    assert "the fresh answer said the same" in await entries.inner_text()
    await page.keyboard.press("ArrowRight")
    await playwright.expect(page.locator("#lately-said")).to_contain_text("No comparison has come out wrong")
    await page.check("input[value=near]", force=True)
    await playwright.expect(entries).to_have_count(2)
    await page.select_option("#lately-route", "ffff0000/another 1234")
    await playwright.expect(entries).to_have_count(1)
    assert "another 1234" in await entries.inner_text()
    assert await page.input_value("#lately-route") == "ffff0000/another 1234"


async def test_the_hit_rates_are_the_apis(opened: Opener) -> None:
    slots = {"start_s": [1000.0, 1010.0, 1040.0], "looked": [4, 10, 6], "served": [0, 4, 3]}
    silent = {"start_s": [1010.0], "looked": [5], "served": [0]}
    other = {"tenant": "ffff0000", "name": "another 1234"}
    page = await opened([row()], lately=near(total=slots, over_time=[
        {"route": ROUTE["route"], **slots}, {"route": other, **silent}]))  # fmt: skip
    legend = page.locator("#lately-chart .legend li")
    assert await legend.nth(0).inner_text() == "gpt-4o-mini 5d1f\n35.0% (7 of 20)"
    assert await legend.nth(1).inner_text() == "another 1234\n0.0% (0 of 5)"
    label = await page.get_attribute("#lately-chart [role=img]", "aria-label")
    assert "35.0% (7 of 20)" in label


async def test_where_nothing_was_served_there_is_no_chart(opened: Opener) -> None:
    slots = {"start_s": [1000.0], "looked": [4], "served": [0]}
    page = await opened([row()], lately=near(total=slots, over_time=[{"route": ROUTE["route"], **slots}]))
    assert not await page.locator("#lately-chart").is_visible()


async def test_what_can_not_be_had_is_said_and_the_rest_stands(opened: Opener) -> None:
    failing = {"error": {"message": "the semantic cache is busy"}}
    page = await opened([row()], lately={"near": failing})
    assert "the semantic cache is busy" in await page.inner_text("#lately-said")
    assert await page.locator("#reuse-promise").is_visible()
    page = await opened([row(id="again")], reuse=failing)
    assert "What routes have proved can’t be shown: the semantic cache is busy" in await page.inner_text("#reuse-card")
    assert await page.locator("#recent tbody tr").count() == 2


@pytest.mark.parametrize("width", [390, 830, 1280])
async def test_long_prompts_stay_in_their_place(opened: Opener, width: int) -> None:
    long = [["W" * 400, True], [" and so on" * 40, False]]
    page = await opened([row()], width=width, reuse=reuse({}), lately=near({"asked": long, "stored": long}))
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    card = await page.locator("#reuse-card").bounding_box()
    for place in ("#lately-list", "#lately-kinds", "#lately-route"):
        box = await page.locator(place).bounding_box()
        assert box["x"] >= card["x"] and box["x"] + box["width"] <= card["x"] + card["width"]


async def test_an_audit_is_listed_as_one_with_its_price(opened: Opener) -> None:
    audit = row(id="a", endpoint="audit", cache="bypass", cache_reason="audit of far-1", overhead_usd=DOLLAR)
    page = await opened([row(ts=NOW_S - 90), audit])
    listed = await page.inner_text("#recent tbody tr:first-child")
    assert "audit of a hit" in listed
    assert "$1.00" in listed
    assert (await page.inner_text("#tiles .tile:first-child .value")).strip() == "1"
