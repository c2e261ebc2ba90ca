"""A hold-out's answers are compared with fresh ones in all arms alike: they differ by what the optimiser does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.proxying import Proxied, chat, proxied, quiet
from tests.fakes.upstream import Script, ScriptedUpstream, scripted
from tests.wire.test_experiments import units, until
from tests.wire.test_routes import MINI, PRICES

ASKED = 60


@asynccontextmanager
async def split(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[Proxied, ScriptedUpstream, ScriptedUpstream]]:
    """Half of the traffic goes without the route, which leads to a model that says 9 where the asked-for one says 8."""
    async with AsyncExitStack() as stack:
        default, cheap = [await stack.enter_async_context(scripted()) for _ in range(2)]
        default.default, cheap.default = Script(says="8"), Script(says="9")
        given: dict[str, Any] = {
            "prices": PRICES,
            "upstreams": [{"name": "cheap", "url": cheap.url, "retries": 0}],
            "variants": [MINI],
            "routes": [{"name": "r", "mode": "serve", "model": "m", "variants": ["mini-there"]}],
            "holdout__share": 0.5,
            "holdout__arms": ["no-route"],
            "shadow__daily_usd": 1000,
        }
        async with proxied(default.url, tmp_path, **(given | settings)) as proxy:
            yield proxy, default, cheap


def compared(one: Any) -> int:
    """How many answers of both arms have been; nothing is read at first."""
    fresh = one["reading"] and one["reading"]["candidates"]["no-route"]["metrics"]["fresh"]
    return sum(fresh["units"]) if fresh else 0


async def test_what_an_optimiser_does_to_answers_is_the_difference_of_its_arms(tmp_path: Path) -> None:
    async with split(tmp_path, holdout__compared=1.0) as (proxy, _, _):
        for number in range(ASKED):
            await proxy.post(chat(f"question {number % 5}?"))  # most are hits, by the short way if not drawn
            await quiet(proxy)
        one = await until(proxy, lambda one: compared(one) == ASKED)
        rows = await proxy.rows(2 * ASKED)
    arm = one["reading"]["candidates"]["no-route"]
    fresh = arm["metrics"]["fresh"]
    assert (fresh["control"], fresh["candidate"]) == (0.0, 1.0)
    assert fresh["units"] == [units(one)["on"], units(one)["no-route"]]  # each request of each arm, whoever answered it
    value, low, high = arm["does"]["loses"]
    assert value == high == 1.0 and 0.3 < low < 1.0
    assert "and +100.0 points of its answers say what a fresh one says (+" in one["headline"]
    assert {row["cache"] for row in rows if row["endpoint"] == "chat"} >= {"miss", "hit-exact"}

    # What the comparisons cost is booked, and in no arm's costs.
    shadows = [row for row in rows if row["endpoint"] == "shadow"]
    assert len(shadows) == ASKED and all(row["cache_reason"].startswith("fresh shadow of ") for row in shadows)
    assert all(row["overhead_usd"] > 0 and row["model_served"] == "m" for row in shadows)
    paid = [row["cost_usd"] for row in rows if row["arm"] == "no-route"]
    assert arm["metrics"]["cost_usd"]["candidate"] == pytest.approx(1e-12 * sum(paid) / len(paid))
    assert arm["does"]["saves_usd"][0] > 0


async def test_all_arms_have_one_instrument_and_the_others_are_compared_as_often_in_all(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"holdout__share": 0.2, "holdout__arms": ["no-route", "all-off"]}
    async with split(tmp_path, **settings, holdout__compared=0.5) as (proxy, _, _):
        (part,) = proxy.running.lanes.parts
        on, arms = proxy.services.relay, [one.relay for one in part.lanes if one is not None]
        assert len(arms) == 2 and all(arm.afresh is on.afresh is not None for arm in arms)
        assert [arm.afresh_share for arm in arms] == [0.5, 0.5]
        assert on.afresh_share == pytest.approx(0.5 * 0.2 / 0.8)


async def test_nothing_is_compared_unless_that_is_declared(tmp_path: Path) -> None:
    async with split(tmp_path) as (proxy, default, cheap):
        for number in range(10):
            await proxy.post(chat(f"question {number}?"))
        await quiet(proxy)
        one = await until(proxy, lambda one: sum(units(one).values()) == 10)
        assert len(default.calls) + len(cheap.calls) == 10
    arm = one["reading"]["candidates"]["no-route"]
    assert "fresh" not in arm["metrics"] and "does" not in arm


async def test_money_for_shadows_bounds_the_comparisons(tmp_path: Path) -> None:
    async with split(tmp_path, holdout__compared=1.0, shadow__daily_usd=0) as (proxy, default, cheap):
        for number in range(10):
            await proxy.post(chat(f"question {number}?"))
        await quiet(proxy)
        assert len(default.calls) + len(cheap.calls) == 10


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"store": True}, {}),
        ({}, {"x_farthing_route": "mini-there"}),
        ({"model": "mini-there"}, {}),
        ({}, {"x_farthing_off": "1"}),
    ],
    ids=["stateful", "route named", "variant named", "off"],
)
async def test_what_must_not_be_asked_again_is_not(
    tmp_path: Path, body: dict[str, Any], headers: dict[str, str]
) -> None:
    async with split(tmp_path, holdout__compared=1.0) as (proxy, default, cheap):
        for number in range(4):
            await proxy.post(chat(f"question {number}?", **body), **headers)
        await quiet(proxy)
        assert len(default.calls) + len(cheap.calls) == 4
