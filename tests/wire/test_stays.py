"""A conversation stays with the variant that has its prompt, over real servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.clock import FakeClock
from tests.fakes.upstream import Script
from tests.wire.test_routes import House, house

TALK = [{"role": "user", "content": "word " * 3000}]
VARIANTS = [
    {"name": "first", "upstream": "cheap", "model": "gpt-4-a"},
    {"name": "second", "upstream": "third", "model": "gpt-4-b"},
]


def prices(first: float, second: float, *, read: float) -> dict[str, Any]:
    """Dollars for a million tokens in. `read`: the share of it that cached ones cost."""
    priced = (("gpt-4-a", first), ("gpt-4-b", second), ("m", 9.0))
    return {
        "models": {
            name: {"input_usd_per_mtok": usd, "cached_usd_per_mtok": usd * read, "output_usd_per_mtok": 1}
            for name, usd in priced
        }
    }


async def served(at: House, turns: list[dict[str, Any]]) -> str:
    answer = await at.proxy.post({"model": "m", "messages": turns})
    return str(answer.headers["x-farthing-model"])


@pytest.mark.parametrize(
    ("second", "read", "pause_s", "again"),
    [
        (0.9, 0.1, 60, "gpt-4-a"),  # it reads most of its prompt at a tenth of the price
        (0.9, 1.0, 60, "gpt-4-b"),  # here cached tokens cost as much as others
        (0.05, 0.1, 60, "gpt-4-b"),  # so much cheaper that the whole prompt may be read anew
        (0.9, 0.1, 3600, "gpt-4-b"),  # forgotten by then
    ],
)
async def test_a_conversation_stays_where_its_prompt_is_while_that_is_cheaper(
    tmp_path: Path, second: float, read: float, pause_s: float, again: str
) -> None:
    clock = FakeClock()
    route = {"strategy": "cheapest", "variants": ["first", "second"]}
    async with house(tmp_path, [route], variants=VARIANTS, prices=prices(1, 2, read=read), clock=clock) as at:
        assert await served(at, TALK) == "gpt-4-a"
        config = at.proxy.services.config
        priced = type(config.prices).model_validate(prices(1, second, read=read))
        await at.proxy.running.reload(config.model_copy(update={"prices": priced}))
        clock.advance(pause_s)
        assert await served(at, [{"role": "user", "content": "new " * 3000}]) == "gpt-4-b"
        grown = [*TALK, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And now?"}]
        assert await served(at, grown) == again


async def test_a_fallback_that_answered_keeps_the_conversation_until_it_fails_too(tmp_path: Path) -> None:
    clock = FakeClock()
    route = {"strategy": "cheapest", "variants": ["first", "second"], "on": ["5xx"], "fallbacks": ["second"]}
    async with house(tmp_path, [route], variants=VARIANTS, prices=prices(1, 2, read=0.1), clock=clock) as at:
        at.cheap.script(Script(status=503))
        assert await served(at, TALK) == "gpt-4-b"
        grown = [*TALK, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And now?"}]
        assert await served(at, grown) == "gpt-4-b"
        at.third.script(Script(status=503))
        await served(at, [*grown, {"role": "user", "content": "Now."}])
        assert await served(at, [*grown, {"role": "user", "content": "Then."}]) == "gpt-4-a"


async def test_how_fast_the_asked_for_model_itself_is_becomes_known(tmp_path: Path) -> None:
    variants = [*VARIANTS, {"name": "itself", "model": "m"}]
    async with house(tmp_path, [{"variants": ["itself"]}], variants=variants) as at:
        await served(at, TALK)
        routing = at.proxy.services.routing
        assert routing is not None
        assert routing.speed(routing.variants["itself"]).p50_s > 0
