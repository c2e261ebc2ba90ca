"""What the routing remembers of variants, and how a request finds its way."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import orjson
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from farthing.policies.routes import Conditions, Route, RouteTable
from farthing.policies.variant import Needs, Variant
from farthing.proxy.clock import FakeClock, Randomness
from farthing.proxy.config_prices import ModelPrice
from farthing.proxy.exchange import Controls, Endpoint, Exchange, Original
from farthing.proxy.header_facts import HeaderFacts
from farthing.proxy.prices import RateCard
from farthing.proxy.routing import Routing, Speed

A, B = Variant("a", "big"), Variant("b", "small", upstream="there")
PRICES = {
    "big": ModelPrice(input_usd_per_mtok=Decimal(4), output_usd_per_mtok=Decimal(16)),
    "small": ModelPrice(input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(2)),
}


class Chance(Randomness):
    """Seeded."""

    def __init__(self) -> None:
        self.rng = random.Random(1)

    def uniform(self) -> float:
        return self.rng.random()

    def token(self, n_bytes: int) -> str:
        return self.rng.randbytes(n_bytes).hex()


def routing(*routes: Route, aliases: dict[str, str] | None = None) -> Routing:
    card = RateCard(PRICES, elsewhere={"there": ("", "http://127.0.0.1:1/v1")})
    return Routing({"a": A, "b": B}, RouteTable(routes), aliases or {}, card, FakeClock(), Chance())


def exchange(model: Any = "big", **controls: Any) -> Exchange:
    headers: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
    ex = Exchange("x", Original("POST", "/v1/x", headers, None, HeaderFacts(())), 1.8e9, 0.0)  # type: ignore[arg-type]
    ex.endpoint, ex.model, ex.controls = Endpoint.CHAT, model if isinstance(model, str) else "", Controls(**controls)
    ex.payload = ex.exact = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    ex.body = orjson.dumps(ex.payload)
    return ex


def test_the_median_is_of_the_latest_and_old_ones_are_forgotten() -> None:
    speed = Speed()
    for at, seconds in enumerate([9.0] + [0.1] * 40):
        speed.answered(seconds, float(at))
    assert (speed.p50_s, len(speed.seconds)) == (0.1, 32)
    speed.answered(5.0, 1000.0)
    assert (speed.p50_s, len(speed.seconds)) == (5.0, 1)


def test_what_is_known_of_a_variant_goes_into_its_standing() -> None:
    found = routing()
    clock = found.clock
    assert isinstance(clock, FakeClock)
    unknown = found.standing(Needs(tokens_in=100), 1.8e9)(B)
    assert unknown.usd == pytest.approx((100 * 1 + 300 * 2) / 1e6)
    assert (unknown.p50_s, unknown.failed_s) == (None, None)
    speed = found.speed(B)
    speed.answered(0.4, clock.tick_s())
    speed.failed_tick = clock.tick_s()
    clock.advance(3)
    known = found.standing(Needs(tokens_in=100, tokens_out=10), 1.8e9)(B)
    assert (known.usd, known.p50_s, known.failed_s) == (pytest.approx(120 / 1e6), 0.4, pytest.approx(3))
    clock.advance(200)
    assert found.standing(Needs(), 1.8e9)(B).p50_s is None


def test_only_what_serves_is_in_the_caches_key() -> None:
    serving = Route("r", Conditions(), "fixed", (B,), serves=True, signature="s1")
    observing = Route("r", Conditions(), "fixed", (B,))
    keys = []
    for found in (routing(), routing(observing), routing(serving)):
        ex = exchange()
        found.find(ex)
        keys.append((ex.lossy, ex.plan is not None))
    assert keys == [("", False), ("", True), ("|route s1", True)]


def test_a_header_and_a_variants_name_win_over_routes() -> None:
    found = routing(Route("r", Conditions(), "fixed", (A,), serves=True), aliases={"quick": "b", "other": "m2"})
    for ex in (exchange(route="b"), exchange(route="quick"), exchange("b"), exchange("quick")):
        found.find(ex)
        assert ex.plan.named is B
        assert "variant" in ex.lossy
    by_alias = exchange(route="other")
    found.find(by_alias)
    assert (by_alias.plan, by_alias.lossy) == (None, "|alias m2")


@pytest.mark.parametrize("model", [None, 3, "", "\ud800", ["x"]])
def test_no_model_fails_a_request(model: Any) -> None:
    found = routing(Route("r", Conditions(model="b*"), "fixed", (A,), serves=True), aliases={"quick": "b"})
    ex = exchange("big")
    assert ex.payload is not None
    ex.payload = ex.exact = ex.payload | {"model": model}
    ex.model = model if isinstance(model, str) else ""
    found.find(ex)
    assert ex.plan is None


def test_what_the_upstream_calls_itself_is_booked_only_where_it_has_a_price() -> None:
    found = routing()
    assert [found.priced_name(B, served) for served in ("", "small", "llama.gguf")] == ["small", "small", "small"]
    assert found.priced_name(B, "big") == "big"
    dated = routing()
    assert dated.priced_name(Variant("c", "gpt-4o-mini"), "gpt-4o-mini-2024-07-18") == "gpt-4o-mini-2024-07-18"
