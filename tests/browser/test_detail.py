"""One request in full: sentences that explain it, its money and its time as bars, and texts that stay texts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farthing.proxy.report import money
from farthing.proxy.row import Row
from tests.browser.conftest import Opener, marks, playwright
from tests.fakes.rows import DOLLAR, NOW_S, row

pytestmark = marks

MILLI = DOLLAR // 1000
UPSTREAM = {"upstream": "default", "status": 200, "error": "", "duration_ms": 800.0, "backoff_ms": 0.0}


def decided(*decisions: tuple[str, str, str], **changes: Any) -> Row:
    return row(id="r", decisions=json.dumps(decisions), **changes)


async def detail(opened: Opener, one: Row) -> Any:
    page = await opened([one, row(id="older", ts=NOW_S - 3600)])
    await page.click("#recent tbody button >> nth=0")
    await page.wait_for_selector("#detail-body .story")
    return page


SENTENCES: list[tuple[Row, list[str]]] = [
    (decided(cache="hit-exact"), ["Answered from the exact cache"]),
    (
        decided(cache="hit-semantic", cache_reason="unproven", similarity=0.93),
        ["near-duplicate (similarity 0.930)", "No bound on wrong answers is proved"],
    ),
    (
        decided(cache="hit-semantic", cache_reason="proved", similarity=0.97, p_wrong=0.004),
        ["bound is proved", "about 0.4% of such answers are wrong"],
    ),
    (decided(cache="joined"), ["Joined an identical request", "carries the bill"]),
    (
        decided(("semantic", "looked", "empty scope")),
        ["no identical request is stored", "the system prompt", "differs from the nearest entry"],
    ),
    (decided(("semantic", "looked", "empty scope: tools")), ["the tools differ from the nearest entry’s"]),
    (
        decided(("semantic", "looked", "empty scope: system prompt, tools")),
        ["Missed the semantic cache: the system prompt and the tools differ from the nearest entry’s"],
    ),
    (decided(cache_reason="older than max-age"), ["older than the client’s max-age"]),
    (decided(cache="bypass", cache_reason="x-farthing-off"), ["Passed the caches by: the client sent x-farthing-off"]),
    (decided(cache="bypass", cache_reason="something new"), ["Passed the caches by: something new"]),
    (
        decided(("semantic", "observe", "score 0.731; below the proved threshold")),
        ["The nearest entry was not served: score 0.731; below the proved threshold"],
    ),
    (decided(("semantic", "observe", "score 0.9; would serve")), ["it would be, but the mode is observe"]),
    (decided(("semantic", "passed by", "freshness")), ["asks for something that changes by the hour"]),
    (decided(("semantic", "late", "look-up: no answer within 100 ms")), ["Near-duplicates were not waited for"]),
    (
        decided(("compress", "left", "loses reads, by $0.002100")),
        ["Not compressed: it would break a prefix that the provider has cached, and cost $0.002100 more"],
    ),
    (
        decided(("compress", "left", "saves no tokens"), ("compress", "whole", "saves no tokens")),
        ["Not compressed: nothing in it could be shortened"],
    ),
    (
        decided(("compress", "recode", "rows+dedupe: 12 tokens of new messages, $0.000104 predicted, 3 of old ones")),
        ["recode, by rows and dedupe): 12 tokens fewer in new messages, 3 in earlier ones", "save $0.000104"],
    ),
    (decided(("squeeze", "error", "StoreFault: away")), ["Stage squeeze failed and was passed by: StoreFault: away"]),
    (decided(("semantic", "left out", "it failed repeatedly")), ["Stage semantic was left out: it failed repeatedly"]),
    (decided(("store", "not stored", "status 500")), ["The answer was not stored: status 500"]),
    (decided(("novel", "did", "this")), ["novel: did (this)"]),
    (
        decided(tokens_in_original=1204, tokens_in_sent=903, tokens_in_cached=512, tokens_out=88, tokens_reasoning=8),
        ["1,204 input tokens asked for, 903 sent (25.0% fewer), 512 read from the provider’s cache",
         "88 tokens out, 8 of"],
    ),
    (
        decided(attempts_detail=json.dumps([{**UPSTREAM, "status": 503, "backoff_ms": 250.0}, UPSTREAM]), attempts=2),
        ["Attempt 1: default answered 503 in 800 ms. Then 250 ms of waiting", "Attempt 2: default answered 200"],
    ),
    (decided(baseline_usd=None, cost_usd=None, model_served="house"), ["No price is known for house"]),
    (
        decided(modelled=1, model_served="small", price_source="a list"),
        ["Prices from a list.", "the model asked for might have answered at another length"],
    ),
    (decided(tokens_in_original=5, tokens_in_sent=5), ["5 input tokens asked for, all sent"]),
    (decided(outcome="abandoned"), ["The client left before the answer was complete"]),
    (decided(outcome="failed", status=502, error="cut"), ["It failed: cut"]),
    (decided(endpoint="audit", cache="bypass", cache_reason="audit of far-1"), ["own call", "of far-1"]),
]  # fmt: skip


async def test_decisions_are_told_in_sentences(opened: Opener) -> None:
    """All rows in one page: the sentences come from the module itself, whose only input is the API's row."""
    page = await opened([each._replace(id=f"r{i}") for i, (each, _) in enumerate(SENTENCES)])
    tell = """async (id) => { const { explain } = await import('/farthing/static/explain.js');
        return explain(await (await fetch(`/farthing/api/requests/${id}`)).json()).map((one) => one.text); }"""
    for i, (_, parts) in enumerate(SENTENCES):
        told = await page.evaluate(tell, f"r{i}")
        for part in parts:
            assert part in " ".join(told), part
        assert len(told) == len(set(told))


async def test_the_waterfall_falls_from_the_baseline_to_the_cost(opened: Opener) -> None:
    page = await detail(
        opened,
        row(
            baseline_usd=10 * MILLI, cost_usd=5 * MILLI, saved_compress_usd=4 * MILLI, saved_route_usd=3 * MILLI,
            saved_prompt_cache_usd=-2 * MILLI, overhead_usd=MILLI,
        ),
    )  # fmt: skip
    lines = await page.locator(".waterfall > div").all_inner_texts()
    told = [" ".join(line.split()) for line in lines]
    assert told == [
        f"without farthing p0 {money(10 * MILLI)}", f"compression p0 − p1 −{money(4 * MILLI)}",
        f"routing and retries p1 − p2, p3 − p4 −{money(3 * MILLI)}",
        f"provider’s prompt cache p2 − p3 +{money(2 * MILLI)}",
        f"cost p4 {money(5 * MILLI)}", f"farthing’s own {money(MILLI)}",
    ]  # fmt: skip
    boxes = [await each.bounding_box() for each in await page.locator(".waterfall .track i").all()]
    whole = boxes[0]["width"]
    shares = [round(box["width"] / whole, 2) for box in boxes]
    assert shares == [1.0, 0.4, 0.3, 0.2, 0.5, 0.1]
    left = [round((box["x"] - boxes[0]["x"]) / whole, 2) for box in boxes]
    assert left == [0.0, 0.6, 0.3, 0.3, 0.0, 0.5]


async def test_time_is_told_apart_into_waiting_and_stages(opened: Opener) -> None:
    stages = json.dumps({"exact": 1.0, "semantic": 3.0, "upstream": 900.0})
    page = await detail(
        opened, row(latency_ms=910.0, overhead_ms=10.0, upstream_ms=900.0, ttft_ms=200.0, stage_ms=stages)
    )
    whole, own = [" ".join(text.split()) for text in await page.locator(".time").all_inner_texts()]
    assert whole == (
        "Whole latency 910 ms first byte after 200 ms waiting for the upstream 900 ms farthing’s own 10.0 ms"
    )
    assert own == "Farthing’s own time 10.0 ms exact 1.00 ms semantic 3.00 ms everything else 6.00 ms"


async def test_what_else_an_attempt_holds_is_shown(opened: Opener) -> None:
    priced = {**UPSTREAM, "tier": "flex", "rates": [{"unit": "input", "usd": "2.5"}]}
    page = await detail(opened, row(attempts_detail=json.dumps([priced])))
    await page.click("#detail summary")
    told = await page.inner_text("#detail table >> nth=0")
    assert "tier: flex" in told
    assert '"usd":"2.5"' in told


NASTY = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"


async def test_hostile_texts_stay_texts_everywhere(opened: Opener) -> None:
    one = row(
        id=NASTY, model_requested=NASTY, model_served=NASTY, user=NASTY, tenant=NASTY, error=NASTY, cache_reason=NASTY,
        outcome="failed", status=500, upstream=NASTY, key_hash=NASTY, price_source=NASTY, compress=NASTY, policy=NASTY,
        decisions=json.dumps([[NASTY] * 3, ["semantic", "serve", f"{NASTY}; {NASTY}"], ["compress", NASTY, NASTY]]),
        tags=json.dumps({NASTY: NASTY, "team": NASTY}), stage_ms=json.dumps({NASTY: 1.0}),
        attempts_detail=json.dumps([{**UPSTREAM, "upstream": NASTY, "error": NASTY, NASTY: NASTY}]),
    )  # fmt: skip
    page = await opened(
        [one, one._replace(id="again")],
        upstream=NASTY, config_id=NASTY,
        health={"stage_errors": {NASTY: 3}, "store": {"healthy": False, "error": NASTY}},
    )  # fmt: skip
    for by in ("model", "user", "tenant", "tag:team"):
        await page.select_option("#by", by)
        await page.wait_for_function(f"document.querySelector('#groups').textContent.includes({json.dumps(NASTY)})")
    assert NASTY in await page.inner_text("#alerts")
    assert NASTY[:12] in await page.inner_text("#repeated")
    for button in await page.locator("#recent tbody button").all():
        await button.click()
        await page.wait_for_selector("#detail-body .story")
        await page.click("#detail summary")
        assert NASTY in await page.inner_text("#detail .story")
        assert NASTY in await page.inner_text("#detail details")
        await page.keyboard.press("Escape")
    assert await page.locator("main img, #detail img, #alerts img, #badges img, body script").count() == 0
    assert await page.title() == "farthing"


async def test_a_request_that_is_gone_is_said(opened: Opener) -> None:
    page = await opened([row(id="r")], fault=404)
    await page.route("**/api/requests/r", lambda route: route.fulfill(status=404, body='{"error":{"message":"gone"}}'))
    await page.click("#recent tbody button")
    assert "can’t be shown: gone" in await page.inner_text("#detail [role=alert]")


RATE = ["The answer was right", "The answer was wrong"]
REMOVE = "Remove the stored answer"


@pytest.mark.parametrize(
    ("changes", "buttons"),
    [
        ({"cache": "miss", "key_hash": "k"}, [*RATE, REMOVE]),
        ({"cache": "hit-exact", "key_hash": "k"}, [*RATE, REMOVE]),
        ({"cache": "joined", "key_hash": "k"}, [*RATE, REMOVE]),
        ({"cache": "hit-semantic", "key_hash": "k"}, RATE),
        ({"cache": "miss", "key_hash": "k", "decisions": '[["store","not stored","its time to live is 0"]]'}, RATE),
        ({"cache": "miss", "key_hash": ""}, RATE),
        ({"cache": "bypass", "key_hash": "k", "cache_reason": "store failed"}, RATE),
        ({"cache": "miss", "key_hash": "k", "outcome": "abandoned"}, []),
        ({"cache": "miss", "key_hash": "k", "status": 500, "outcome": "failed"}, []),
        ({"endpoint": "audit", "cache": "bypass"}, []),
    ],
)
async def test_only_what_can_be_done_is_offered(opened: Opener, changes: dict[str, Any], buttons: list[str]) -> None:
    page = await detail(opened, row(id="r", **changes))
    assert await page.locator("#detail .actions button").all_inner_texts() == buttons


@pytest.mark.parametrize(
    ("button", "answer", "words"),
    [
        ("good", {"known": True, "kept": True, "purged": 0}, "Rated good: the rating is kept."),
        ("good", {"known": True, "kept": False, "purged": 0}, "Rated good already: nothing new to keep."),
        ("bad", {"known": True, "kept": True, "purged": 1},
         "Rated bad: the rating is kept. Its stored answer is removed."),
        ("bad", {"known": True, "kept": True, "purged": 0},
         "Rated bad: the rating is kept. There was nothing stored to remove."),
        ("bad", {"known": False, "kept": True, "purged": 0}, "The ledger has no such request (any more)"),
    ],
)  # fmt: skip
async def test_what_came_of_a_rating_is_said(opened: Opener, button: str, answer: dict[str, Any], words: str) -> None:
    page = await detail(opened, row(id="r"))
    asked: list[Any] = []

    async def answered(route: Any) -> None:
        asked.append(route.request.post_data_json)
        await route.fulfill(json=answer)

    await page.route("**/api/feedback", answered)
    await page.click(f"#detail button[name={button}]")
    await playwright.expect(page.locator("#detail [role=status]")).to_contain_text(words)
    assert asked == [{"id": "r", "rating": button}]
