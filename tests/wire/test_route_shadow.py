"""Routed requests that are sent once more as they were meant: what is learnt, what it costs, who waits."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from farthing.policies.outcome import Outcome
from tests.fakes.proxying import chat
from tests.fakes.upstream import Script
from tests.policies.test_agree import NILE
from tests.wire.test_reuse import quiet
from tests.wire.test_routes import House, house
from tests.wire.test_semantic import loaded

ROUTE: list[dict[str, Any]] = [{"variants": ["mini-there"]}]


async def shadows(at: House, count: int) -> list[Outcome]:
    for _ in range(200):
        found = await asyncio.to_thread(at.proxy.services.state.outcomes.latest)
        if len(found) >= count:
            break
        await asyncio.sleep(0.02)
    return found


async def test_the_other_models_answer_is_judged_by_the_one_that_was_asked_for(tmp_path: Path) -> None:
    async with house(tmp_path, ROUTE, shadow__share=1.0) as at:
        at.cheap.by_text["capital"] = at.default.by_text["capital"] = Script(says="42")
        at.cheap.by_text["planet"], at.default.by_text["planet"] = Script(says="9"), Script(says="8")
        answers = [await at.proxy.post(chat(f"which {word}?")) for word in ("capital", "planet")]
        found = {one.request_id: one for one in await shadows(at, 2)}
        await quiet(at.proxy)
        rows = await at.books(4)

        assert [call.json["model"] for call in at.default.calls] == ["m", "m"]
        said = [found[answer.headers["x-farthing-id"]] for answer in answers]
        assert [(one.metric, one.source, one.value) for one in said] == [
            ("shadow", "shadow", 1.0),
            ("shadow", "shadow", 0.0),
        ]
        errands = [row for row in rows if row["endpoint"] == "shadow"]
        assert {row["cache_reason"] for row in errands} == {
            f"unrouted shadow of {answer.headers['x-farthing-id']}" for answer in answers
        }
        assert all(row["overhead_usd"] > 0 and row["cost_usd"] == 0 for row in errands)


async def test_the_client_does_not_wait_and_hits_have_no_shadow(tmp_path: Path) -> None:
    async with house(tmp_path, ROUTE, shadow__share=1.0) as at:
        at.default.default.wait_s = 5.0
        for _ in range(3):
            answer = await asyncio.wait_for(at.proxy.post(chat("hi")), 2)
            assert answer.status_code == 200
        assert answer.headers["x-farthing-cache"] == "hit-exact"
        await asyncio.sleep(0.05)
        assert len(at.default.calls) == 1
        at.default.default.wait_s = 0.0


async def test_no_shadow_without_money_nor_of_a_failed_answer(tmp_path: Path) -> None:
    async with house(tmp_path, ROUTE, shadow__share=1.0, shadow__daily_usd=0) as at:
        await at.proxy.post(chat("hi"))
        await quiet(at.proxy)
        assert at.default.calls == []
    async with house(tmp_path / "more", ROUTE, shadow__share=1.0) as at:
        at.cheap.default = at.default.default = Script(status=500)
        await at.proxy.post(chat("hi"))
        await quiet(at.proxy)
        assert len(at.default.calls) == 1  # to answer the client, who was in need of it


async def test_free_text_is_compared_by_meaning_however_busy_and_in_every_arm_but_not_while_that_loads(
    tmp_path: Path,
) -> None:
    """A doubt counts against the route, so it mustn't come from farthing's own want of time or of an embedder."""
    settings: dict[str, Any] = {
        "semantic__mode": "observe", "shadow__share": 1.0,
        "holdout__share": 0.5, "holdout__arms": ["no-semantic"],
    }  # fmt: skip
    async with house(tmp_path, ROUTE, **settings) as at:
        at.cheap.default, at.default.default = Script(says=NILE), Script(says=NILE.replace("often", "frequently"))
        thread = at.proxy.services.thread
        assert thread is not None
        await loaded(at.proxy)
        thread.loading = True
        await at.proxy.post(chat("while it loads"))
        await quiet(at.proxy)
        assert at.default.calls == []
        thread.loading = False
        thread.pending += 1_000  # more waits for it than a request would wait behind
        for number in range(12):
            await at.proxy.post(chat(f"question {number}"))
            await quiet(at.proxy)
        rows = await at.books(25)
        found = await shadows(at, 12)
        assert {row["arm"] for row in rows if row["endpoint"] == "chat"} == {"", "no-semantic"}
        assert [one.value for one in found] == [1.0] * 12
        thread.pending -= 1_000
