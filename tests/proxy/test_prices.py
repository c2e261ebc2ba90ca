"""Prices: the table's own figures, exact to the pico-dollar; unknown is unknown."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.proxy.config_prices import ModelPrice
from farthing.proxy.prices import RateCard
from farthing.proxy.usage import Usage
from tests.fakes.examples import examples

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
MOMENT = datetime.fromtimestamp(NOW, UTC)
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


@settings(max_examples=examples(60), deadline=None)
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


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "http://127.0.0.1:9000/v1", "https://gateway.test/v1"])
@pytest.mark.parametrize(("model", "usd"), [("text-embedding-3-small", "0.02"), ("text-embedding-3-large", "0.13")])
def test_embeddings_have_a_price_behind_any_address(url: str, model: str, usd: str) -> None:
    price = RateCard({}, "", url).price(model, Usage(fresh=10**6), NOW)
    assert price is not None
    assert price.usd == Decimal(usd)
    assert price.source.endswith("by openai") == ("api.openai.com" not in url)


def test_a_bare_id_is_priced_only_where_nobody_differs() -> None:
    """Over the whole table: what the name alone doesn't decide costs OpenAI's price, or the one that all agree on."""
    from genai_prices.data_snapshot import get_snapshot

    moment = datetime.fromtimestamp(NOW, UTC)
    listed: dict[str, dict[str, Any]] = {}
    for provider in get_snapshot().providers:
        for info in provider.models:
            listed.setdefault(info.id.lower(), {})[provider.id] = info.get_prices(moment)
    outcomes = set()
    for model, prices in listed.items():
        rates = CARD.rates(model, NOW)
        if rates is not None and ", by " not in rates.source:
            continue  # the name tells its provider
        agree = all(price == next(iter(prices.values())) for price in prices.values())
        if rates is not None:
            assert rates.source.rpartition(" by ")[2] == ("openai" if "openai" in prices else next(iter(prices)))
            outcomes.add("openai" if "openai" in prices else "alone" if len(prices) == 1 else "agreed")
        elif not agree:
            assert "openai" not in prices or prices["openai"].input_mtok is None
            outcomes.add("differ")
    assert outcomes == {"openai", "alone", "agreed", "differ"}


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
    assert shown["table"].startswith("newest change of a price 2026-")
    card = RateCard({"m": ModelPrice(input_usd_per_mtok=Decimal("1.50"), source="contract 7")})
    described = card.describe("m", NOW)
    assert described is not None
    assert described == {
        "model": "m",
        "input_usd_per_mtok": "$1.50",
        "cached_usd_per_mtok": "$1.50",
        "cache_write_usd_per_mtok": "$1.50",
        "output_usd_per_mtok": "$0",
        "reasoning_usd_per_mtok": "$0",
        "source": "contract 7",
    }


@pytest.mark.parametrize(
    ("model", "tier", "fresh", "cached", "cache_write", "cache_write_1h", "output"),
    [
        ("gpt-5.6", "", "4", "0.4", "5", None, "20"),
        ("gpt-5.6", "flex", "2", "0.2", "2.5", None, "10"),
        ("gpt-5.6", "priority", "8", "0.8", "10", None, "40"),
        ("claude-sonnet-5", "", "2", "0.2", "2.5", "4", "10"),
        ("claude-sonnet-5", "batch", "1", "0.1", "1.25", "2", "5"),
        ("claude-opus-5", "", "5", "0.5", "6.25", "10", "25"),
        ("claude-opus-5", "fast", "10", "1", "12.5", "20", "50"),
        ("gemini-3.5-flash", "", "1.5", "0.15", "1.5", "1.5", "9"),  # no write rate: as fresh
    ],
)
def test_worked_examples(
    model: str, tier: str, fresh: str, cached: str, cache_write: str, cache_write_1h: str | None, output: str
) -> None:
    """One request with tokens in every bucket, against sums done by hand from the published rates."""
    usage = Usage(fresh=1000, cached=2000, cache_write=300, output=40, reasoning=7, tier=tier)
    by_hand = 1000 * Decimal(fresh) + 2000 * Decimal(cached) + 300 * Decimal(cache_write) + 47 * Decimal(output)
    price = CARD.price(model, usage, NOW)
    assert price is not None
    assert price.usd == by_hand / 10**6

    hour = CARD.price(model, usage._replace(cache_write_1h=500), NOW)
    if cache_write_1h is None:
        assert hour is None  # writes cost extra there, and nobody says what an hour's would
    else:
        assert hour is not None
        assert hour.usd == (by_hand + 500 * Decimal(cache_write_1h)) / 10**6


def test_deepseek_chat_costs_what_the_table_says_by_the_hour_of_the_day() -> None:
    """Another map in use has 0.28, 0.028 and 0.42 at any hour: who pays that declares it."""
    rates = {"input": "0.28", "cached": "0.028", "output": "0.42"}
    declared = ModelPrice(**{f"{name}_usd_per_mtok": Decimal(rate) for name, rate in rates.items()})
    own = RateCard({"deepseek-chat": declared}).price("deepseek-chat", Usage(100, 200, output=30), NOW)
    assert own is not None
    assert own.usd == (100 * Decimal("0.28") + 200 * Decimal("0.028") + 30 * Decimal("0.42")) / 10**6
    for hour, by_hour in ((12, ("0.27", "0.07", "1.1")), (20, ("0.135", "0.035", "0.55"))):
        fresh, cached, output = map(Decimal, by_hour)
        at_s = datetime(2026, 11, 23, hour, tzinfo=UTC).timestamp()
        price = CARD.price("deepseek-chat", Usage(fresh=100, cached=200, output=30), at_s)
        assert price is not None
        assert price.usd == (100 * fresh + 200 * cached + 30 * output) / 10**6


def test_past_the_cliff_every_bucket_and_tier_is_repriced() -> None:
    below, above = Usage(fresh=200_000, cached=72_000, output=10), Usage(fresh=200_001, cached=72_000, output=10)
    for tier, times in (("", 1), ("flex", Decimal("0.5")), ("batch", Decimal("0.5")), ("priority", 2)):
        for usage, rates in ((below, ("4", "0.4", "20")), (above, ("8", "0.8", "30"))):
            price = CARD.price("gpt-5.6", usage._replace(tier=tier), NOW)
            fresh, cached, output = map(Decimal, rates)
            by_hand = usage.fresh * fresh + usage.cached * cached + usage.output * output
            assert price is not None
            assert price.usd == by_hand * times / 10**6


@pytest.mark.parametrize("tier", ["scale", "turbo", "priority+us", "mixed"])
def test_a_tier_that_nobody_prices_has_no_price(tier: str) -> None:
    assert CARD.price("gpt-5.6", Usage(fresh=10, tier=tier), NOW) is None


def test_before_anybody_looked_a_tier_has_no_price() -> None:
    at_s = datetime(2026, 10, 1, tzinfo=UTC).timestamp()
    assert CARD.price("gpt-5.6", Usage(fresh=10), at_s) is not None
    assert CARD.price("gpt-5.6", Usage(fresh=10, tier="flex"), at_s) is None


def test_audio_is_never_priced_as_text() -> None:
    spoken = Usage(fresh=100, audio_in=200, output=30, audio_out=40)
    price = CARD.price("gpt-audio", spoken, NOW)
    assert price is not None
    assert price.usd == (100 * Decimal("2.5") + 200 * 32 + 30 * 10 + 40 * 64) / 10**6
    assert CARD.price("gpt-4o", spoken, NOW) is None  # the table has no rate for audio there
    seen = CARD.price("gpt-4o", Usage(fresh=100, image_in=765), NOW)
    assert seen == CARD.price("gpt-4o", Usage(fresh=865), NOW)  # images in are billed as text
    assert CARD.price("gpt-4o", Usage(image_out=1), NOW) is None


def test_web_searches_cost_what_they_cost() -> None:
    price = CARD.price("claude-sonnet-5", Usage(fresh=1000, searches=3), NOW)
    assert price is not None
    assert price.usd == Decimal("0.002") + 3 * Decimal("0.01")
    assert CARD.price("deepseek-chat", Usage(searches=1), NOW) is None


TIERS = {"": {}, "batch": {"processing": "batch"}} | {tier: {"service_tier": tier} for tier in ("flex", "priority")}


@cache
def models_of(kind: str) -> list[tuple[Any, Any]]:
    """The table's providers and models: all, or those that have prices for tiers, or for audio."""
    from genai_prices.data_snapshot import get_snapshot

    listed = [(provider, model) for provider in get_snapshot().providers for model in provider.models]
    if kind == "tiers":
        return [(provider, model) for provider, model in listed if model.price_variants]
    if kind == "audio":
        return [(one, model) for one, model in listed if model.get_prices(MOMENT).input_audio_mtok is not None]
    return listed


@settings(max_examples=examples(300), deadline=None)
@given(
    st.integers(0, 10**9),
    st.sampled_from([*TIERS, "", ""]),
    st.tuples(*[st.integers(0, 300_000)] * 3, *[st.integers(0, 50_000)] * 2),
    st.tuples(*[st.just(0) | st.integers(0, 9_000)] * 3),
    st.integers(0, 365 * 86_400),
)
def test_every_model_of_the_table_like_the_table_itself(
    which: int, tier: str, five: tuple[int, ...], more: tuple[int, ...], ago_s: int
) -> None:
    """Their calculation with many buckets at once, on any model that is priced by tokens, at any moment of a year."""
    from genai_prices import Usage as TheirUsage

    listed = models_of("tiers" if tier else "audio" if which % 3 == 0 else "")  # few have any
    provider, model = listed[which % len(listed)]
    at_s = float(int(NOW) - ago_s)
    moment = datetime.fromtimestamp(at_s, UTC)
    if model.get_prices(moment).input_mtok is None or not model.is_match(model.id):
        return
    _, cached, cache_write, _, reasoning = five
    hour, audio_in, audio_out = more
    usage = Usage(*five, cache_write_1h=hour, audio_in=audio_in, audio_out=audio_out, tier=tier)
    ours = RateCard({}, provider.id).price(model.id, usage, at_s)

    first = provider.find_model(model.id)
    assert first is not None
    active = [
        variant
        for variant in first.price_variants or ()
        if variant.when == TIERS[tier] and (variant.constraint is None or variant.constraint.active(moment))
    ]
    prices = first.get_prices(moment, TIERS[tier])
    wanting = [
        key
        for key, count in (("input_audio_mtok", audio_in), ("output_audio_mtok", audio_out))
        if count and getattr(prices, key) is None
    ]
    if hour and prices.cache_write_1h_mtok is None and prices.cache_write_mtok is not None:
        wanting.append("cache_write_1h_mtok")
    if prices.input_mtok is None:  # a tier of which the table says nothing any more: they call that free
        wanting.append("input_mtok")
    if wanting or (tier and not active):
        assert ours is None
        return
    given_usage = TheirUsage(
        input_tokens=usage.tokens_in,
        cache_read_tokens=cached,
        cache_write_tokens=cache_write + hour,
        cache_write_1h_tokens=hour,
        input_audio_tokens=audio_in,
        output_tokens=usage.tokens_out,
        output_audio_tokens=audio_out,
        output_reasoning_tokens=reasoning,
        # As it asks for them: of what is said both of audio and of the cache there is nothing here.
        **dict.fromkeys(("cache_audio_read_tokens", "output_audio_reasoning_tokens", "cache_audio_write_tokens"), 0),
    )
    theirs = first.calc_price(given_usage, provider, genai_request_timestamp=moment, price_context=TIERS[tier])

    assert ours is not None
    assert abs(ours.usd - theirs.total_price) <= Decimal("5.01e-13")  # theirs is rounded to 28 digits along the way


def test_prices_by_time_of_day_change_on_the_half_hour_only() -> None:
    """What lets a rate be remembered until the next half hour."""
    from genai_prices.data_snapshot import get_snapshot
    from genai_prices.types import TimeOfDateConstraint

    found = [
        edge
        for provider in get_snapshot().providers
        for model in provider.models
        for priced in (model.prices if isinstance(model.prices, list) else [])
        if isinstance(priced.constraint, TimeOfDateConstraint)
        for edge in (priced.constraint.start_time, priced.constraint.end_time)
    ]
    assert found
    assert all((edge.minute % 30, edge.second, edge.microsecond) == (0, 0, 0) for edge in found)
    assert all(edge.tzinfo is None or edge.utcoffset() == UTC.utcoffset(None) for edge in found)


def test_amounts_are_exact_and_rounded_once_half_to_even() -> None:
    def pico(per_mtok: str, tokens: int) -> int:
        price = RateCard({"m": ModelPrice(input_usd_per_mtok=Decimal(per_mtok))}).price("m", Usage(fresh=tokens), NOW)
        assert price is not None
        return price.pico

    assert pico("0.0028", 1) == 2800
    assert [pico("0.0000005", n) for n in (1, 2, 3, 5, 7)] == [0, 1, 2, 2, 4]
    assert pico("0.00000051", 1) == 1
    assert pico("123456789.123456789", 10**15) == 123456789123456789 * 10**12
    assert pico("1E+2", 3) == 300_000_000


@given(st.lists(st.integers(0, 10**7), min_size=5, max_size=5), st.lists(st.integers(0, 10**7), min_size=5, max_size=5))
def test_prices_add_up_in_tokens(a: list[int], b: list[int]) -> None:
    rates = CARD.rates("claude-sonnet-5", NOW)
    assert rates is not None
    assert rates.pico(Usage(*a)) + rates.pico(Usage(*b)) == rates.pico(Usage(*map(sum, zip(a, b, strict=True))))


@given(
    st.sampled_from(["claude-sonnet-5", "gpt-4o", "gemini-2.5-pro", "claude-haiku-4-5"]),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**5),
)
def test_what_text_may_cost_is_what_it_costs(model: str, fresh: int, cached: int, output: int) -> None:
    rates = CARD.rates(model, NOW)
    assert rates is not None
    assert rates.pico_of_text(fresh, cached, output) == rates.pico(Usage(fresh, cached, output=output))


def test_a_fee_for_each_request_is_charged_once() -> None:
    card = RateCard({}, "perplexity")
    price, nothing = card.price("sonar", Usage(fresh=1000), NOW), card.price("sonar", Usage(), NOW)
    assert price is not None and nothing is not None
    assert (price.usd, nothing.usd) == (Decimal("0.013"), Decimal("0.012"))


def test_unknown_names_are_not_remembered_for_ever() -> None:
    """Clients choose model names: neither our memory nor the library's may grow with them."""
    from genai_prices.data_snapshot import get_snapshot

    card = RateCard({}, "", "https://api.openai.com/v1")
    snapshot = get_snapshot()
    before = len(snapshot._provider_misses) + len(snapshot._lookup_cache) + len(snapshot._provider_cache)
    for n in range(5000):
        assert card.price(f"unknown-{n}", Usage(fresh=1), NOW) is None
    assert len(card._known) <= 4096
    after = len(snapshot._provider_misses) + len(snapshot._lookup_cache) + len(snapshot._provider_cache)
    assert after == before
