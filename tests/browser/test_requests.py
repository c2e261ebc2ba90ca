"""The list of requests in a real browser: each filter, pages, the keyboard, and that a refresh takes nobody's place."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from farthing.proxy.row import Row
from tests.browser.conftest import Opener, marks, playwright
from tests.fakes.rows import NOW_S, plausible, row

pytestmark = marks
PAGE = 25
FOCUSED = """() => { const at = document.activeElement;
    const drawn = at.matches('.ranges input') ? at.nextElementSibling : at;
    return [at.id || at.name || at.className, getComputedStyle(drawn).outlineStyle !== 'none']; }"""


async def ids(page: Any) -> list[str]:
    buttons = await page.locator("#recent tbody button").all()
    return [str(await each.get_attribute("data-focus")) for each in buttons]


def newest(rows: list[Row]) -> list[str]:
    return [each.id for each in sorted(rows, key=lambda each: (each.ts, each.id), reverse=True)]


async def settled(page: Any) -> None:
    await page.wait_for_timeout(400)  # the filter waits until nobody types
    await page.wait_for_selector("#recent-card:not([data-state=loading])")


@pytest.mark.parametrize(
    ("name", "value", "column"),
    [
        ("model", "gpt-4o", "model_requested"), ("cache", "joined", "cache"), ("endpoint", "embeddings", "endpoint"),
        ("text", "u7", "user"),
    ],
)  # fmt: skip
async def test_a_filter_lists_what_the_ledger_has(opened: Opener, name: str, value: str, column: str) -> None:
    rows = plausible(500)
    page = await opened(rows)
    field = page.locator(f"#filter-{name}")
    await (field.select_option(value) if name in ("cache", "endpoint") else field.fill(value))
    await settled(page)
    assert await ids(page) == newest([each for each in rows if getattr(each, column) == value])[:PAGE]


async def test_filters_combine_and_are_cleared(opened: Opener) -> None:
    rows = plausible(500)
    page = await opened(rows)
    await page.fill("#filter-tag", "team=search")
    await page.check("#filter-failed")
    await settled(page)
    failed = [each for each in rows if each.outcome == "failed" and '"search"' in each.tags]
    assert await ids(page) == newest(failed)
    await page.select_option("#filter-answer", "2xx")
    await settled(page)
    assert await page.inner_text("#recent-words") == "No request in this time matches."
    await page.click("#recent-clear")
    await settled(page)
    assert await ids(page) == newest(rows)[:PAGE]


async def test_an_answer_to_what_was_typed_before_is_not_shown(opened: Opener) -> None:
    rows = plausible(500)
    page = await opened(rows)
    await page.uncheck("#live")  # it would ask by itself what is typed next
    await settled(page)
    asked, before, after = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def late(route: Any) -> None:
        asked.set()
        await (after if "failed" in route.request.url else before).wait()
        await route.continue_()

    await page.route(lambda url: "/api/requests?" in url and "team%3Dsearch" in url, late)
    await page.fill("#filter-tag", "team=search")
    await asked.wait()
    await page.check("#filter-failed")
    async with page.expect_response(lambda reply: "/api/requests?" in reply.url) as answered:
        before.set()
    await (await answered.value).finished()
    await page.evaluate("() => Promise.all(['names', 'health'].map((name) => fetch(`api/${name}`)))")  # it has had it
    assert await page.get_attribute("#recent-card", "data-state") == "loading"
    after.set()
    await page.wait_for_selector("#recent-card:not([data-state=loading])")
    assert await ids(page) == newest([each for each in rows if each.outcome == "failed" and '"search"' in each.tags])


async def test_a_list_says_how_far_back_it_looked_and_looks_further(opened: Opener) -> None:
    rows = [row(id=f"r{i}", ts=NOW_S - 60 * i, user="someone" if i in (5, 130) else "") for i in range(150)]
    page = await opened(rows, most_looked=50)
    await page.fill("#filter-text", "someone")
    await settled(page)
    assert await ids(page) == ["r5"]
    assert "looked back to" in await page.inner_text("#page")
    assert await page.inner_text("#page-older") == "Look further back"
    await page.focus("#page-older")
    await page.keyboard.press("Enter")
    await settled(page)
    assert await ids(page) == []
    assert "Older requests haven’t been looked at yet." in await page.inner_text("#recent-words")
    assert await page.evaluate(FOCUSED) == ["page-older", True]
    await page.keyboard.press("Enter")
    await settled(page)
    assert await ids(page) == ["r130"]
    await page.keyboard.press("Enter")
    await settled(page)
    assert await page.inner_text("#recent-words") == "No more requests in this time match."
    assert await page.is_disabled("#page-older")
    assert await page.inner_text("#page-older") == "Older"


async def test_pages_go_back_and_forth_without_a_gap(opened: Opener) -> None:
    rows = plausible(60)
    page = await opened(rows)
    seen = await ids(page)
    for _ in range(2):
        await page.click("#page-older")
        await settled(page)
        seen += await ids(page)
    assert seen == newest(rows)
    assert await page.is_disabled("#page-older")
    await page.click("#page-newer")
    await settled(page)
    assert await ids(page) == newest(rows)[PAGE : 2 * PAGE]


async def test_a_wrong_filter_is_said_in_the_list_and_nowhere_else(opened: Opener) -> None:
    page = await opened([row()], fault=400)
    async with page.expect_response(lambda reply: reply.status == 400):
        await page.fill("#filter-tag", "search")
    await settled(page)
    assert "a tag looks like" in await page.inner_text("#recent-words")
    assert not await page.locator("#trouble").is_visible()


async def test_a_group_leads_to_its_requests(opened: Opener) -> None:
    rows = plausible(300)
    page = await opened(rows, address="since=7d&by=tag:team")
    await page.click("#groups button:text-is('docs')")
    await settled(page)
    assert await page.input_value("#filter-tag") == "team=docs"
    assert await ids(page) == newest([each for each in rows if '"docs"' in each.tags])[:PAGE]


async def test_what_repeats_is_counted_and_leads_to_its_requests(opened: Opener) -> None:
    rows = [
        row(id=f"k{i}", key_hash="a1b2c3d4e5f60718", ts=NOW_S - i, cache="hit-exact" if i else "miss") for i in range(4)
    ]
    page = await opened([*rows, row(id="other", key_hash="b")])
    line = page.locator("#repeated tbody tr")
    assert await line.count() == 1
    assert "a1b2c3d4e5f6" in await line.inner_text()
    assert "3 (75.0%)" in await line.inner_text()
    await line.locator("button").click()
    await settled(page)
    assert sorted(await ids(page)) == ["k0", "k1", "k2", "k3"]


async def test_regions_are_offered_once_they_are_sent(opened: Opener) -> None:
    page = await opened([row(id="a", tags='{"region":"eu"}'), row(id="b", tags='{"region":"us"}')])
    await page.select_option("#by", "tag:region")
    await playwright.expect(page.locator("#groups tbody tr")).to_have_count(2)
    assert "eu" in await page.inner_text("#groups")


async def test_slash_goes_to_the_filter_and_a_refresh_keeps_the_focus(opened: Opener) -> None:
    page = await opened(plausible(40))
    await page.keyboard.press("/")
    assert await page.evaluate("document.activeElement.id") == "filter-text"
    await page.keyboard.type("/")
    assert await page.input_value("#filter-text") == "/"
    await page.fill("#filter-text", "")
    await settled(page)
    button = page.locator("#recent tbody button").nth(3)
    wanted = await button.get_attribute("data-focus")
    await button.focus()
    async with page.expect_response(lambda reply: "/api/compress" in reply.url):
        await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await page.wait_for_timeout(200)
    assert await page.evaluate("document.activeElement.dataset.focus") == wanted


async def test_the_keyboard_reaches_everything_and_focus_is_seen(opened: Opener) -> None:
    page = await opened(plausible(30))
    reached: list[str] = []
    unseen: list[str] = []
    for _ in range(90):
        await page.keyboard.press("Tab")
        where, seen = await page.evaluate(FOCUSED)
        reached.append(where)
        if not seen and where:
            unseen.append(where)
    for name in ("skip", "theme", "live", "by", "filter-text", "filter-cache", "page-older", "purge-which", "switch"):
        assert name in reached, name
    assert [reached.index(name) for name in ("since", "theme", "live", "by", "filter-text", "switch")] == sorted(
        reached.index(name) for name in ("since", "theme", "live", "by", "filter-text", "switch")
    )
    assert unseen == []
