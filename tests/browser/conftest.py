"""The page in a real browser, on a ledger of its own and with canned answers to what isn't read from it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from farthing.proxy.clock import FakeClock
from farthing.proxy.dashboard import Dashboard
from farthing.proxy.figures_lists import MOST_LOOKED
from farthing.proxy.figures_routes import Declared
from farthing.proxy.row import Row
from tests.fakes.rows import NOW_S, ledger

__all__ = ["LATELY", "Opener", "marks", "playwright"]

_NAMES = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
)  # the first, which draws no window, takes a third of the time
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
marks = [
    pytest.mark.browser,
    # One browser for all tests: to start one takes longer than most of them. So they and their fixtures share its loop.
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium-headless-shell)"),
]

_LOOKS = {"width", "scheme"}
_SEEN = pytest.StashKey[set[str]]()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Of a test of a page's looks at several widths or in both themes all but the first are long."""
    if isinstance(item, pytest.Function) and hasattr(item, "callspec") and {*item.callspec.params} <= _LOOKS:
        assert item.parent is not None
        seen = item.parent.stash.setdefault(_SEEN, set())
        if item.originalname in seen:
            item.add_marker(pytest.mark.long)
        seen.add(item.originalname)


STATE = {"version": "0.1.0", "upstream": "127.0.0.1", "simulated": False, "exact": "exact", "semantic": "observe",
         "tidy": True, "capture": "off", "switched_off": False, "ledger": "ok", "ledger_dropped": 0}  # fmt: skip
CSP = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

REUSE: dict[str, Any] = {"mode": "observe", "policy": "verified", "max_wrong": 0.01, "per": "hit", "confidence": 0.95,
         "audits_usd_today": 0.0, "audit_daily_usd": 1.0, "count": 0, "routes": []}  # fmt: skip
LATELY: dict[str, Any] = {"texts": True, "kind": "near", "counts": {"near": 0, "served": 0, "wrong": 0}, "routes": [],
         "slot_s": 10, "total": {"start_s": [], "looked": [], "served": []}, "over_time": [],
         "latest": []}  # fmt: skip

COMPRESS: dict[str, Any] = {"tidy": "on", "recode": "observe", "squeeze": "off", "unproven": False, "max_worse": 0.02,
         "confidence": 0.95, "shadows_usd_today": 0.0, "shadow_daily_usd": 0.0, "saved_usd_today": {}, "rules": [],
         "left": {}, "count": 0, "routes": []}  # fmt: skip

HEALTH: dict[str, Any] = {
    "store": {"kind": "local", "entries": 1234, "bytes": 5_000_000, "evicted": 0, "healthy": True},
    "ledger": {"healthy": True, "pending_rows": 0, "dropped_rows": 0},
    "budget": {"limit_usd": None, "spent_usd": "1.5"},
    "stage_errors": {},
    "in_flight": 3,
    "semantic_entries": 77,
}

CAPTURE = {"enabled": True, "share": 0.05, "rows": 420, "bytes": 3 * 2**20, "oldest_s": NOW_S - 3600, "dropped": 2}

DECLARED = Declared()

Opener = Callable[..., Any]


BUDGETS: dict[str, Any] = {"budgets": [], "rate_limits": [], "store": "off"}
QUIET: dict[str, Any] = {
    "watch": {"enabled": False, "alarms": 0, "series": []},
    "gates": {"running": "", "runs": []},
    "experiments": {"experiments": [], "waiting": {}},
    "students": {"students": [], "training": "", "retrain_days": 0},
    "feedback": {"metrics": []},
}


@dataclass(slots=True)
class Site:
    """What one address serves at present: the page, with canned answers to what isn't the ledger's, `lately` by kind.

    One with "error" has status 500. An address outlives its test, so that the browser fetches and compiles the page's
    scripts once, and not for every test.
    """

    base: str = ""
    dashboard: Dashboard | None = None
    canned_by_name: dict[str, dict[str, Any]] = field(default_factory=dict)
    lately: dict[str, Any] = field(default_factory=dict)

    async def answer(self, request: web.Request) -> web.Response:
        canned = self.canned_by_name.get(request.path.removeprefix("/farthing/api/"))
        if request.path == "/farthing/api/semantic/lately":
            canned = {**LATELY, "kind": request.query["kind"], **self.lately.get(request.query["kind"], {})}
            if request.query["route"]:
                canned["latest"] = [
                    each for each in canned["latest"] if "/".join(each["route"].values()) == request.query["route"]
                ]
        if canned is not None:
            return web.json_response(canned, status=500 if "error" in canned else 200)
        found = None
        if self.dashboard is not None:
            found = await self.dashboard.handle(request.method, request.path, request.query)
        status, kind, body = found or (404, "text/plain", b"")
        headers = {"Content-Type": kind, "Content-Security-Policy": CSP}
        if request.path.startswith("/farthing/static/"):
            headers["Cache-Control"] = "max-age=86400"
        return web.Response(status=status, body=body, headers=headers)


@asynccontextmanager
async def serving() -> AsyncIterator[Site]:
    """A site at an address of its own; what it serves is still to be said."""
    site = Site()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", site.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        site.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield site
    finally:
        await runner.cleanup()


def is_complaint(said: Any, fault: int) -> bool:
    """An error on the console, but for the browser's own line on an answer that was made to fail."""
    return said.type == "error" and f"status of {fault}" not in said.text


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Any]:
    """The browser. One process draws all pages of a profile: to start one for each takes a third of a test's time."""
    async with playwright.async_playwright() as play:
        started = await play.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-background-networking", "--renderer-process-limit=1"],
        )
        yield started
        await started.close()


Profiles = Callable[..., Any]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def profiles(browser: Any) -> AsyncIterator[Profiles]:
    """Makes profiles whose clock stands at `at_s` (0: goes); the same one again unless it is to be had `alone`."""
    shared: dict[float, Any] = {}

    async def profile(at_s: float, alone: bool) -> Any:
        if at_s in shared and not alone:
            return shared[at_s]
        # What moves is drawn sixty times a second, without a graphics card.
        made = await browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
        if at_s:
            await made.clock.set_fixed_time(at_s)
        if not alone:
            shared[at_s] = made
            await made.new_page()  # an empty one, which keeps the process that draws
        return made

    yield profile
    for made in shared.values():
        await made.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sites() -> AsyncIterator[tuple[list[Site], Callable[[], Any]]]:
    """Sites that nobody uses at present, and how one more is made."""
    async with AsyncExitStack() as stack:
        yield [], lambda: stack.enter_async_context(serving())


async def left(page: Any) -> None:
    """Closed, and the next test finds nothing that this one stored."""
    if not page.is_closed():
        await page.evaluate("localStorage.clear()")
        await page.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visit(profiles: Profiles) -> AsyncIterator[Opener]:
    """Opens pages of one server; afterwards there must have been no error on a console, and no call to elsewhere."""
    complaints: list[str] = []
    pages: list[Any] = []
    own: list[Any] = []

    async def go(
        base: str,
        address: str = "",
        *,
        width: int = 1280,
        scheme: str = "light",
        fault: int = 500,
        at_s: float = 0,
        alone: bool = False,
    ) -> Any:
        profile = await profiles(at_s, alone)
        if alone:
            own.append(profile)
        page = await profile.new_page()
        pages.append(page)
        if width != 1280:
            await page.set_viewport_size({"width": width, "height": 900})
        if scheme != "light":
            await page.emulate_media(color_scheme=scheme)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if is_complaint(said, fault) else None)
        page.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith(base) else None)
        await page.goto(f"{base}/farthing/#{address}")
        return page

    yield go
    for page in pages:
        await left(page)
    for profile in own:
        await profile.close()
    assert complaints == []


@pytest_asyncio.fixture(loop_scope="session")
async def opened(visit: Opener, sites: tuple[list[Site], Any], tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens the page on a ledger of `rows`; `alone`: in a profile that no other test had."""
    pages: list[Any] = []
    used: list[Site] = []
    free, another = sites

    async def open_page(
        rows: Iterable[Row],
        wait: str = "ready",
        reuse: dict[str, Any] | None = None,
        lately: dict[str, Any] | None = None,
        compress: dict[str, Any] | None = None,
        health: dict[str, Any] | None = None,
        canned: dict[str, dict[str, Any]] | None = None,
        declared: Declared = DECLARED,
        address: str = "since=7d",
        width: int = 1280,
        scheme: str = "light",
        fault: int = 500,
        most_looked: int = MOST_LOOKED,
        alone: bool = False,
        **state: Any,
    ) -> Any:
        ledger(tmp_path / "ledger.db", rows).close()
        dashboard = Dashboard(
            tmp_path / "ledger.db",
            FakeClock(NOW_S),
            lambda: {**STATE, **state},
            declared=lambda: declared,
            most_looked=most_looked,
        )
        told = {
            "semantic": {**REUSE, **(reuse or {})},
            "compress": {**COMPRESS, **(compress or {})},
            "health": {**HEALTH, **(health or {})},
            "capture": CAPTURE,
            "budgets": BUDGETS,
            "levels": {"as_of_s": None, "levels": []},
            **QUIET,
            **(canned or {}),
        }
        site = free.pop() if free else await another()
        used.append(site)
        site.dashboard, site.canned_by_name, site.lately = dashboard, told, lately or {}
        page = await visit(site.base, address, width=width, scheme=scheme, fault=fault, at_s=NOW_S, alone=alone)
        pages.append(page)
        await page.wait_for_selector(f"main[data-state={wait}]", timeout=20_000)
        return page

    yield open_page
    for page in pages:  # or they would ask on, and get the next test's answers
        await left(page)
    free.extend(used)
