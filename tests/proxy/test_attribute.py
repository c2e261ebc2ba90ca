"""Attribution telescopes: for every row, baseline minus cost is exactly the sum of the savings."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy.attribute import (
    UNKNOWN,
    Money,
    as_asked,
    attribute_failure,
    attribute_hit,
    attribute_joined,
    attribute_upstream,
    overhead_money,
    same_model,
)
from farthing.proxy.config_prices import ModelPrice, Tier
from farthing.proxy.exchange import Billed
from farthing.proxy.prices import RateCard
from farthing.proxy.usage import EXTRAS, Usage, UsageSource

AT = 1_800_000_000.0


def own(given: str, cached: str, made: str) -> ModelPrice:
    return ModelPrice(
        input_usd_per_mtok=Decimal(given), cached_usd_per_mtok=Decimal(cached), output_usd_per_mtok=Decimal(made)
    )


RICH = {name: Decimal(n + 1) / 7 for n, name in enumerate(ModelPrice.model_fields) if name.endswith("_usd_per_mtok")}
RICH_PRICE = ModelPrice(**RICH, search_usd=Decimal("0.01"), tiers={"flex": Tier(times=Decimal("0.5"))})
CARD = RateCard({"big": own("3", "0.3", "15"), "small": own("0.0028", "0.00035", "0.42"), "rich": RICH_PRICE})
CARD.rates("unknown", AT)  # loads the table of prices, which takes longer than an example may
FIVE = st.builds(lambda *five: Usage(*five), *[st.integers(0, 10**6)] * 5, st.sampled_from(UsageSource))
USAGES = st.builds(
    lambda usage, *extras: usage._replace(**dict(zip(EXTRAS, extras, strict=False)), tier=extras[-1]),
    FIVE,
    *[st.just(0) | st.integers(0, 10**6)] * len(EXTRAS),
    st.sampled_from(["", "", "", "flex", "mixed"]),
)
MODELS = st.sampled_from(["big", "small", "rich", "rich", "unknown", ""])


def holds(money: Money) -> bool:
    parts = [money.saved_exact, money.saved_semantic, money.saved_compress, money.saved_route, money.saved_prompt_cache]
    if money.baseline is None or money.cost is None:
        return [money.baseline, money.cost, *parts] == [None] * 7
    return money.baseline - money.cost == sum(part or 0 for part in parts) and None not in parts


@given(
    MODELS,
    MODELS,
    st.none() | USAGES,
    st.integers(-1000, 10**6),
    st.none() | st.integers(-5, 10**6),
    st.booleans(),
    st.lists(st.builds(Billed, MODELS, USAGES), max_size=3),
    st.lists(USAGES, max_size=3),
)
def test_the_identity_holds_for_every_upstream_answer(
    asked: str,
    served: str,
    usage: Usage | None,
    saved: int,
    would_read: int | None,
    charges_writes: bool,
    others: list[Billed],
    retrieved: list[Usage],
) -> None:
    money = attribute_upstream(
        CARD,
        model_requested=asked,
        model_served=served,
        usage=usage,
        at_s=AT,
        tokens_saved=saved,
        would_read=would_read,
        charges_writes=charges_writes,
        other_attempts=others,
        retrieved=retrieved,
    )
    assert holds(money)


@given(MODELS, st.lists(USAGES, max_size=3))
def test_what_was_asked_back_is_compressions_to_pay(model: str, retrieved: list[Usage]) -> None:
    usage = Usage(fresh=1000, output=10)
    without = attribute_upstream(CARD, model_requested=model, model_served=model, usage=usage, at_s=AT, tokens_saved=9)
    money = attribute_upstream(
        CARD, model_requested=model, model_served=model, usage=usage, at_s=AT, tokens_saved=9, retrieved=retrieved
    )
    failed = attribute_failure(CARD, model, AT, retrieved)
    assert holds(failed)
    if without.cost is not None and without.saved_compress is not None:
        if failed.cost is None:
            assert money == UNKNOWN  # a part of what was asked back has no known price
            return
        assert money.baseline == without.baseline
        assert money.cost is not None
        assert money.cost - without.cost == failed.cost
        assert money.saved_compress == without.saved_compress - (failed.cost or 0)


@given(MODELS, st.none() | USAGES, st.booleans())
def test_and_for_hits_joined_calls_and_failures(model: str, usage: Usage | None, semantic: bool) -> None:
    assert holds(attribute_hit(CARD, model, usage, semantic=semantic, at_s=AT))
    assert holds(attribute_joined(CARD, model, usage, at_s=AT))
    assert holds(attribute_failure(CARD, model, AT))


def upstream(asked: str, served: str, usage: Usage, **more: object) -> Money:
    return attribute_upstream(CARD, model_requested=asked, model_served=served, usage=usage, at_s=AT, **more)  # type: ignore[arg-type]


def test_a_plain_answer_costs_what_it_costs_and_saves_nothing() -> None:
    money = upstream("big", "big", Usage(fresh=1000, output=100))
    assert (money.baseline, money.cost) == (4_500_000_000, 4_500_000_000)
    assert not money.modelled


def test_each_cause_gets_its_own() -> None:
    usage = Usage(fresh=1000, output=100)
    assert upstream("big", "big", usage, tokens_saved=500).saved_compress == 500 * 3_000_000
    routed = upstream("big", "small", usage)
    assert routed.saved_route == 4_500_000_000 - (1000 * 2800 + 100 * 420_000)
    assert routed.modelled
    assert upstream("big", "big", usage, other_attempts=[Billed("big", usage)]).saved_route == -4_500_000_000
    warmer = upstream("big", "big", Usage(fresh=200, cached=800, output=100), would_read=0)
    assert warmer.saved_prompt_cache == 800 * 2_700_000


def test_a_hit_saves_all_of_it_under_its_own_name() -> None:
    usage = Usage(fresh=1000, output=100)
    exact = attribute_hit(CARD, "big", usage, semantic=False, at_s=AT)
    semantic = attribute_hit(CARD, "big", usage, semantic=True, at_s=AT)
    assert (exact.cost, exact.saved_exact, exact.saved_semantic) == (0, 4_500_000_000, 0)
    assert (semantic.cost, semantic.saved_exact, semantic.saved_semantic) == (0, 0, 4_500_000_000)


@pytest.mark.parametrize("served", ["unknown", "small-ish"])
def test_an_unknown_price_leaves_every_field_empty(served: str) -> None:
    assert upstream("big", served, Usage(fresh=1)) == UNKNOWN
    assert upstream("unknown", "big", Usage(fresh=1)) == UNKNOWN


@pytest.mark.parametrize(
    ("asked", "served", "same"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "", True),
        ("claude-x", "claude-x-20250929", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        ("gpt-4o", "o1", False),
    ],
)
def test_a_dated_version_is_the_same_model(asked: str, served: str, same: bool) -> None:
    assert same_model(asked, served) is same


def test_an_estimate_is_marked() -> None:
    assert upstream("big", "big", Usage(fresh=1, source=UsageSource.COUNTED)).modelled
    assert upstream("big", "big", Usage(fresh=1), tokens_saved=1).modelled
    assert upstream("big", "big", Usage(fresh=1), would_read=1).modelled
    assert not upstream("big", "big", Usage(fresh=1, cached=1), would_read=1).modelled
    assert attribute_hit(CARD, "big", Usage(fresh=1), semantic=True, at_s=AT).modelled
    assert not attribute_hit(CARD, "big", Usage(fresh=1), semantic=False, at_s=AT).modelled


@pytest.mark.parametrize(
    ("own_names", "expected"),
    [
        ([], "1"),  # gpt-3.5-turbo-1106 in the table; gpt-3.5-turbo is 0.5
        (["gpt-3.5-turbo"], "7"),
        (["gpt-3.5-turbo-1106"], "7"),
    ],
)
def test_an_alias_costs_what_its_dated_version_does_unless_the_operator_says_otherwise(
    own_names: list[str], expected: str
) -> None:
    card = RateCard({name: own("7", "7", "7") for name in own_names}, "openai")
    usage = Usage(fresh=1000)
    asked, served = "gpt-3.5-turbo", "gpt-3.5-turbo-1106"
    miss = attribute_upstream(card, model_requested=asked, model_served=served, usage=usage, at_s=AT)
    hit = attribute_hit(card, asked, usage, semantic=False, at_s=AT, model_served=served)
    joined = attribute_joined(card, asked, usage, at_s=AT, model_served=served)

    assert miss.baseline == miss.cost == hit.baseline == joined.saved_exact == Decimal(expected) * 10**9
    assert (miss.saved_route, miss.modelled) == (0, False)


def test_a_hit_on_another_models_answer_is_worth_the_model_asked_for() -> None:
    hit = attribute_hit(CARD, "big", Usage(fresh=1000), semantic=False, at_s=AT, model_served="small")
    assert hit.baseline == 3_000_000_000


@given(st.lists(st.tuples(st.booleans(), FIVE, st.lists(FIVE, max_size=2)), max_size=8))
def test_all_costs_together_are_what_a_meter_charges(flights: list[tuple[bool, Usage, list[Usage]]]) -> None:
    """Outside the identity: leaders carry every billed attempt, followers and hits nothing, whatever was saved."""
    meter = sum(
        (u.fresh + u.cache_write) * 3_000_000 + u.cached * 300_000 + u.tokens_out * 15_000_000
        for _, served, others in flights
        for u in (served, *others)
    )
    cost = 0
    for compressed, served, others in flights:
        saved = 50 if compressed else 0
        rows = [
            upstream("big", "big", served, other_attempts=[Billed("big", u) for u in others], tokens_saved=saved),
            attribute_joined(CARD, "big", served, at_s=AT),
            attribute_hit(CARD, "big", served, semantic=False, at_s=AT),
        ]
        cost += sum((row.cost or 0) + (row.overhead or 0) for row in rows)

    assert cost == meter


@given(USAGES, st.integers(-500, 5000))
def test_a_hit_on_a_shortened_answer_is_worth_what_its_miss_was(usage: Usage, saved: int) -> None:
    miss = upstream("big", "big", usage, tokens_saved=saved)
    whole = as_asked(usage, saved)
    hit = attribute_hit(CARD, "big", whole, semantic=False, at_s=AT, shortened=bool(saved))
    assert whole is not None and holds(hit)
    assert (hit.baseline, hit.modelled) == (miss.baseline, miss.modelled)


def test_a_failure_costs_nothing_and_is_known() -> None:
    money = attribute_failure(CARD, "unknown", AT)
    assert (money.baseline, money.cost, money.price_source) == (0, 0, "")
    assert attribute_failure(CARD, "big", AT).price_source == "config"


def test_a_hit_on_an_answer_of_unknown_cost_claims_no_saving() -> None:
    usage = Usage(fresh=10)
    assert attribute_hit(CARD, "big", usage, semantic=False, at_s=AT, model_served="somebody-elses") == UNKNOWN
    assert attribute_hit(CARD, "big", usage, semantic=False, at_s=AT, model_served="small").baseline == 30_000_000


def test_another_upstreams_prices_are_its_own() -> None:
    """`UPSTREAM/MODEL` prices a model there; what isn't priced apart costs what it costs here."""
    card = RateCard(
        {"big": own("4", "4", "16"), "small": own("1", "1", "2"), "there/small": own("0.5", "0.5", "1")},
        elsewhere={"there": ("", "http://127.0.0.1:1/v1")},
    )
    used = Usage(fresh=100, output=10)
    here, there = (
        attribute_upstream(card, model_requested="big", model_served="small", usage=used, at_s=0.0, upstream=upstream)
        for upstream in ("default", "there")
    )
    assert (here.cost, there.cost) == (120 * 10**6, 60 * 10**6)
    assert here.baseline == there.baseline == 560 * 10**6
    assert there.saved_route == 500 * 10**6
    alike = {"model_requested": "small", "model_served": "small", "usage": used, "at_s": 0.0}
    same = attribute_upstream(card, **alike, upstream="there")
    assert (same.cost, same.saved_route, same.modelled) == (60 * 10**6, 60 * 10**6, True)
    assert card.at("there").at("anything") is card.at("there")
    only = RateCard({"there/tiny": own("1", "1", "2")}, elsewhere={"there": ("", "http://127.0.0.1:1/v1")})
    assert only.rates("tiny", 0.0) == only.at("there").rates("tiny", 0.0) is not None


def test_an_errand_pays_for_what_it_tried_too() -> None:
    card = RateCard({"big": own("4", "4", "16"), "small": own("1", "1", "2")})
    tried = Billed("small", Usage(fresh=10, output=5))
    money = overhead_money(card, "big", Usage(fresh=10), 0.0, "default", [tried])
    assert (money.overhead, money.cost) == ((40 + 20) * 10**6, 0)
    assert overhead_money(card, "big", Usage(), 0.0, "", [Billed("nobody's", Usage())]).overhead is None
