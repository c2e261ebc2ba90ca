"""A route with a bound that shadows refute goes back to observe by itself, and serves again only once it is proved."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from farthing.proxy.cli_policy_table import status
from farthing.proxy.config import load
from farthing.proxy.errors import ConfigFault
from tests.fakes.proxying import chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream, scripted
from tests.wire.test_reuse import quiet
from tests.wire.test_routes import BIG, MINI, PRICES, House, house

FIXED: dict[str, Any] = {"variants": ["mini-there"], "max_worse": 0.2}
CASCADE: dict[str, Any] = {"strategy": "cascade", "variants": ["mini-there", "big"], "max_worse": 0.2}


@asynccontextmanager
async def between(
    tmp_path: Path, route: dict[str, Any], default: ScriptedUpstream, cheap: ScriptedUpstream
) -> AsyncIterator[House]:
    """A proxy before upstreams that outlive it."""
    settings: dict[str, Any] = {
        "prices": PRICES,
        "upstreams": [{"name": "cheap", "url": cheap.url, "retries": 0}],
        "variants": [MINI, BIG],
        "routes": [{"name": "r", "mode": "serve", "model": "m"} | route],
        "shadow__share": 1.0,
    }
    async with proxied(default.url, tmp_path, **settings) as proxy:
        yield House(proxy, default, cheap, cheap)


async def ask(at: House, until: str, most: int = 120, word: str = "q") -> int:
    """Ask new questions until the route is in that state; how many it took."""
    for number in range(most):
        await at.proxy.post(chat(f"{word} {number}?"))
        await quiet(at.proxy)
        if state(at)["state"] == until:
            return number + 1
    raise AssertionError(f"not {until} after {most}: {state(at)}")


def state(at: House) -> dict[str, Any]:
    routing = at.proxy.services.routing
    assert routing is not None
    return routing.bounds()["r"]


async def answered_by(at: House, text: str) -> str:
    answer = await at.proxy.post(chat(text))
    await quiet(at.proxy)
    return answer.headers["x-farthing-model"]


@pytest.mark.parametrize("route", [FIXED, CASCADE], ids=["fixed", "cascade"])
async def test_worse_than_its_bound_it_observes_and_serves_again_once_proved(
    tmp_path: Path, route: dict[str, Any]
) -> None:
    async with AsyncExitStack() as stack:
        ups = [await stack.enter_async_context(scripted()) for _ in range(2)]
        await falls_back(tmp_path, route, *ups)
        await comes_back(tmp_path, route, *ups)


async def falls_back(tmp_path: Path, route: dict[str, Any], default: ScriptedUpstream, cheap: ScriptedUpstream) -> None:
    async with between(tmp_path, route, default, cheap) as at:
        cheap.default, default.default = Script(says="9"), Script(says="8")
        assert state(at)["state"] == "serves"
        await ask(at, "observes")
        assert await answered_by(at, "and now?") == "m"
        (incident,) = at.proxy.services.state.incidents.latest()
        assert (incident["kind"], incident["what"]) == ("observe", "route r goes back to observe")
        assert "differ from the asked-for model's more often than 20.00%" in incident["why"]
        evidence = incident["evidence"]
        assert (evidence["max_worse"], evidence["fell_back"]) == (0.2, 1)
        assert evidence["compared"] == evidence["worse"] > 0
        told = (await at.proxy.client.get("/farthing/api/routes")).json()["routes"]
        assert {one["bound"]["state"] for one in told} == {"observes"}
        page = (await at.proxy.client.get("/metrics")).text
        assert 'farthing_route_serving{route="r"} 0.0' in page


async def comes_back(tmp_path: Path, route: dict[str, Any], default: ScriptedUpstream, cheap: ScriptedUpstream) -> None:
    async with between(tmp_path, route, default, cheap) as at:  # a restart forgets nothing
        assert state(at)["state"] == "observes"
        assert await answered_by(at, "and after a restart?") == "m"
        calls = len(cheap.calls)
        answer = await at.proxy.post(chat("and after a restart?"))
        await quiet(at.proxy)
        assert answer.headers["x-farthing-cache"] == "hit-exact" and len(cheap.calls) == calls  # nobody was asked
        cheap.default = default.default = Script(says="8")
        took = await ask(at, "serves", word="better")
        assert took > 10  # what was wrong before doesn't count, but a bound isn't proved by a few
        assert await answered_by(at, "and at last?") == "mini"


async def test_no_worse_than_its_bound_it_goes_on_serving(tmp_path: Path) -> None:
    async with house(tmp_path, [FIXED], shadow__share=1.0) as at:
        at.cheap.default = at.default.default = Script(says="8")
        for number in range(30):
            await at.proxy.post(chat(f"q {number}?"))
            await quiet(at.proxy)
        assert (state(at)["state"], state(at)["compared"], state(at)["worse"]) == ("serves", 30, 0)
        assert at.proxy.services.state.incidents.latest() == []


async def test_another_bound_is_another_promise_and_none_is_none(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        default, cheap = [await stack.enter_async_context(scripted()) for _ in range(2)]
        cheap.default, default.default = Script(says="9"), Script(says="8")
        async with between(tmp_path, FIXED, default, cheap) as at:
            await ask(at, "observes")
        async with between(tmp_path, FIXED | {"max_worse": 0.9}, default, cheap) as at:
            assert state(at)["state"] == "serves"
        async with between(tmp_path, {"variants": ["mini-there"]}, default, cheap) as at:
            routing = at.proxy.services.routing
            assert routing is not None and routing.bounds() == {}
            assert await answered_by(at, "and without?") == "mini"


async def test_a_file_that_cannot_be_read_costs_what_was_known(tmp_path: Path) -> None:
    (tmp_path / "route-standings.json").write_text("{torn")
    async with house(tmp_path, [FIXED], shadow__share=1.0) as at:
        assert state(at)["state"] == "serves"


async def test_a_bound_that_nothing_could_measure_is_refused() -> None:
    given = {
        "variants": [{"name": "x", "model": "mini"}],
        "routes": [{"name": "r", "mode": "serve", "variants": ["x"], "max_worse": 0.02}],
    }
    with pytest.raises(ConfigFault, match=r"routes.0.max_worse.*shadow.share"):
        load(None, {}, given)


async def test_the_watch_sees_what_shadows_say(tmp_path: Path) -> None:
    async with house(tmp_path, [FIXED], shadow__share=1.0) as at:
        at.cheap.default, at.default.default = Script(says="9"), Script(says="8")
        await answered_by(at, "one?")
        watch = at.proxy.services.state.watch
        assert watch is not None and watch.flush()
        assert "judged" in {one["series"] for one in watch.told()["series"]}


async def test_an_observing_route_is_told_to_be_proved_and_serves_once_its_mode_lets_it(tmp_path: Path) -> None:
    observes, proves = (FIXED | {"mode": mode} for mode in ("observe", "prove"))
    async with AsyncExitStack() as stack:
        default, cheap = [await stack.enter_async_context(scripted()) for _ in range(2)]
        cheap.default = default.default = Script(says="8")
        async with between(tmp_path, observes, default, cheap) as at:
            await ask(at, "proved")
            assert await answered_by(at, "and now?") == "m"  # it goes on observing
            (incident,) = at.proxy.services.state.incidents.latest()
            assert (incident["kind"], incident["evidence"]["worse"]) == ("proved", 0.0)
            assert incident["evidence"]["compared"] > 10 and incident["evidence"]["at_most"] <= 0.2
            told = (await at.proxy.client.get("/farthing/api/policy")).json()
            assert (told["routes"]["r"]["state"], told["routes"]["r"]["max_worse"]) == ("proved", 0.2)
            shown = io.StringIO()
            Console(file=shown, width=200).print(status(told, 0.0))  # as `farthing policy list` does
            assert 'route      r  proved: with mode = "prove" or "serve" it would serve  0 of ' in shown.getvalue()
        async with between(tmp_path, proves, default, cheap) as at:  # what was proved stays so
            assert state(at)["state"] == "serves"
            assert await answered_by(at, "and with another mode?") == "mini"


async def test_a_route_that_has_to_be_proved_observes_until_it_is_and_again_where_it_gets_worse(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        default, cheap = [await stack.enter_async_context(scripted()) for _ in range(2)]
        cheap.default, default.default = Script(says="9"), Script(says="8")
        async with between(tmp_path, FIXED | {"mode": "prove", "max_worse": 0.5}, default, cheap) as at:
            assert await answered_by(at, "first?") == "m"
            for number in range(3):
                await answered_by(at, f"worse {number}?")
            assert (state(at)["state"], state(at)["worse"], state(at)["fell_back"]) == ("observes", 4, 0)
            cheap.default = Script(says="8")
            await ask(at, "serves", word="better")
            assert await answered_by(at, "and at last?") == "mini"
            cheap.default = Script(says="9")
            await ask(at, "observes", word="worse again")
            assert state(at)["fell_back"] == 1
            kinds = [one["kind"] for one in at.proxy.services.state.incidents.latest()]
            assert sorted(kinds) == ["observe", "proved"]


def test_what_is_to_be_proved_is_said() -> None:
    given = {
        "variants": [{"name": "x", "model": "mini"}],
        "routes": [{"name": "r", "mode": "prove", "variants": ["x"]}],
    }
    with pytest.raises(ConfigFault, match=r"routes.0.*needs max_worse"):
        load(None, {}, given)
