"""Prices: the table's own figures, exact to the pico-dollar; unknown is unknown."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.proxy.config import ModelPrice
from farthing.proxy.prices import RateCard
from farthing.proxy.usage import Usage

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
CARD = RateCard({}, "", "")
MODELS = [
    "gpt-4o-mini",
    "gpt-5.5",
    "gpt-5.6",
    "claude-sonnet-5",
    "claude-opus-4-5",
    "gemini-3.5-flash",
    "deepseek-chat",
]


@pytest.mark.parametrize(
    ("model", "fresh", "cached", "output"),
    [
        ("gpt-4o-mini", "0.15", "0.075", "0.6"),
        ("gpt-5.6", "4", "0.4", "20"),
        ("claude-sonnet-5", "2", "0.2", "10"),
        ("gemini-3.5-flash", "1.5", "0.15", "9"),
    ],
)
def test_published_prices_by_the_million(model: str, fresh: str, cached: str, output: str) -> None:
    """Each bucket alone, below every context floor, so that a million tokens are ten requests of 100,000."""
    for name, expected in (("fresh", fresh), ("cached", cached), ("output", output)):
        price = CARD.price(model, Usage(**{name: 100_000}), NOW)
        assert price is not None
        assert price.usd * 10 == Decimal(expected)


def test_past_its_floor_the_whole_request_costs_the_step() -> None:
    below, above = CARD.price("gpt-5.6", Usage(fresh=272_000), NOW), CARD.price("gpt-5.6", Usage(fresh=272_001), NOW)
    assert below is not None and above is not None
    assert below.usd == Decimal("1.088")
    assert above.usd == Decimal(272_001) * 8 / 10**6


def test_prices_are_dated() -> None:
    before = CARD.price("gpt-5.6", Usage(fresh=1000), datetime(2026, 8, 20, tzinfo=UTC).timestamp())
    after = CARD.price("gpt-5.6", Usage(fresh=1000), datetime(2026, 8, 22, tzinfo=UTC).timestamp())
    assert before is not None and after is not None
    assert (before.usd, after.usd) == (Decimal("0.005"), Decimal("0.004"))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(MODELS),
    st.integers(0, 400_000),
    st.integers(0, 400_000),
    st.integers(0, 50_000),
    st.integers(0, 86_399),
)
def test_the_same_as_the_tables_own_calculation(model: str, fresh: int, cached: int, output: int, second: int) -> None:
    from genai_prices import Usage as TheirUsage
    from genai_prices import calc_price

    at_s = datetime(2026, 11, 20, tzinfo=UTC).timestamp() + second
    theirs = calc_price(
        TheirUsage(input_tokens=fresh + cached, cache_read_tokens=cached, output_tokens=output),
        model_ref=model,
        genai_request_timestamp=datetime.fromtimestamp(at_s, UTC),
    )
    ours = CARD.price(model, Usage(fresh=fresh, cached=cached, output=output), at_s)

    assert ours is not None
    assert abs(ours.usd - theirs.total_price) <= Decimal("5e-13")


@pytest.mark.parametrize("model", ["gpt-4o-mini-2024-07-18", "openai/gpt-4o-mini"])
def test_dated_and_prefixed_names_resolve(model: str) -> None:
    assert CARD.rates(model, NOW) == CARD.rates("gpt-4o-mini", NOW)


def test_the_upstreams_address_helps_where_the_name_alone_does_not() -> None:
    assert CARD.price("text-embedding-3-small", Usage(fresh=1), NOW) is None
    by_url = RateCard({}, "", "https://api.openai.com/v1").price("text-embedding-3-small", Usage(fresh=10**6), NOW)
    assert by_url is not None
    assert by_url.usd == Decimal("0.02")


@pytest.mark.parametrize("model", ["", "no-such-model", "m\x00", "x" * 1000, "/", "openai/"])
def test_unknown_is_none_and_never_zero(model: str) -> None:
    assert CARD.price(model, Usage(fresh=1), NOW) is None
    assert CARD.describe(model, NOW) is None


def test_an_own_price_wins_and_fills_its_gaps() -> None:
    own = ModelPrice(input_usd_per_mtok=Decimal("0.0028"), output_usd_per_mtok=Decimal("1"))
    card = RateCard({"gpt-4o-mini": own}, "", "")
    price = card.price("gpt-4o-mini", Usage(fresh=1, cached=1, cache_write=1, output=1, reasoning=1), NOW)

    assert price is not None
    assert price.pico == 3 * 2800 + 2 * 10**6
    assert price.source == "config"


def test_what_is_described_names_rates_and_source() -> None:
    shown = CARD.describe("gpt-5.5", NOW)
    assert shown is not None
    assert "past 272,000 input tokens" in shown["input_usd_per_mtok"]
    assert shown["source"].startswith("genai-prices ")
