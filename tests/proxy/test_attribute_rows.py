"""A hundred thousand rows of all kinds mixed: the identity in every one, and all together what a meter charged."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from functools import partial
from random import Random

from farthing.proxy.attribute import (
    UNKNOWN,
    Money,
    as_asked,
    attribute_deferred,
    attribute_failure,
    attribute_hit,
    attribute_joined,
    attribute_upstream,
    overhead_money,
)
from farthing.proxy.config_prices import ModelPrice, Tier
from farthing.proxy.exchange import Billed
from farthing.proxy.prices import RateCard
from farthing.proxy.usage import Usage, UsageSource

AT = 1_800_000_000.0
ROWS = 100_000
# Pico-dollars per token: fresh, cached, cache write, output and reasoning.
METER = {"big": (3_000_000, 300_000, 3_750_000, 15_000_000), "small": (2_800, 350, 2_800, 420_000)}
CARD = RateCard(
    {
        name: ModelPrice(
            input_usd_per_mtok=Decimal(fresh) / 10**6,
            cached_usd_per_mtok=Decimal(cached) / 10**6,
            cache_write_usd_per_mtok=Decimal(write) / 10**6,
            output_usd_per_mtok=Decimal(output) / 10**6,
            tiers={"batch": Tier(times=Decimal("0.5"))} if name == "big" else {},
        )
        for name, (fresh, cached, write, output) in METER.items()
    }
)


def charged(model: str, usage: Usage) -> int:
    fresh, cached, write, output = METER[model]
    given = usage.fresh * fresh + usage.cached * cached + usage.cache_write * write
    return given + (usage.output + usage.reasoning) * output


def some_usage(chance: Random) -> Usage:
    source = UsageSource.COUNTED if chance.random() < 0.1 else UsageSource.UPSTREAM  # a stream that was cut
    return Usage(*[int(10 ** chance.uniform(0, 6)) if chance.random() < 0.7 else 0 for _ in range(5)], source)


def row(chance: Random, kind: str) -> tuple[Money, int | None]:
    """One request's money, and what the upstreams' meter charged for it; None where one of them has no price."""
    asked = chance.choice(("big", "small", "unknown")) if chance.random() < 0.1 else "big"
    served = asked if chance.random() < 0.6 else chance.choice(("big", "small", "unknown"))
    usage: Usage | None = None if chance.random() < 0.02 else some_usage(chance)
    would = chance.choice((None, 0, int(10 ** chance.uniform(0, 6))))
    writes = chance.random() < 0.5
    others = [Billed(chance.choice(("big", "small")), some_usage(chance)) for _ in range(chance.choice((0, 0, 1, 3)))]
    if chance.random() < 0.02:
        others.append(Billed("unknown", some_usage(chance)))
    earlier = [some_usage(chance) for _ in range(chance.choice((0, 0, 0, 2)))]
    if kind in ("hit-exact", "hit-semantic", "joined"):
        saved = int(chance.uniform(-100, 5000)) if chance.random() < 0.3 else 0  # its answer's prompt was shortened
        whole = as_asked(usage, saved)
        how = partial(attribute_joined, CARD, asked, whole)
        if kind != "joined":
            how = partial(attribute_hit, CARD, asked, whole, semantic=kind == "hit-semantic")
        return how(at_s=AT, model_served=served, would_read=would, charges_writes=writes, shortened=bool(saved)), 0
    if kind == "failed":
        if (earlier or others) and asked not in METER:
            return attribute_failure(CARD, asked, AT, earlier, others), None
        meter = sum(charged(asked, one) for one in earlier) + priced(others)
        return attribute_failure(CARD, asked, AT, earlier, others), None if priced(others) < 0 else meter
    if kind == "own":
        money = overhead_money(CARD, served, usage, AT)
        return money, None if usage is None or served not in METER else charged(served, usage)
    marked = chance.random() < 0.3  # for the provider's prompt cache, by us
    known = Usage(fresh=int(10 ** chance.uniform(0, 6)), source=UsageSource.UPSTREAM) if kind == "part" else None
    if kind == "deferred":
        others, earlier = [], []
    money = attribute_upstream(
        CARD,
        model_requested=asked,
        model_served=served,
        usage=usage,
        at_s=AT,
        tokens_saved=int(chance.uniform(-100, 5000)) if kind == "compressed" else 0,
        saved_before=int(chance.uniform(0, 2000)) if kind == "compressed" else 0,
        tokens_before=int(chance.uniform(0, 20_000)) if kind == "compressed" else 0,
        would_read=would,
        would_read_whole=would,
        charges_writes=writes,
        other_attempts=others,
        retrieved=earlier,
        would_write=chance.choice((0, int(10 ** chance.uniform(0, 6)))) if marked else None,
        for_an_hour=marked and chance.random() < 0.5,
        known=known,
    )
    if kind == "deferred" and usage is not None:
        money = attribute_deferred(
            CARD,
            money,
            model_requested=asked,
            model_served=served,
            usage=usage,
            at_s=AT,
            tier="batch",
            times=0.5,
        )
        return money, None if asked not in METER or served not in METER else charged(served, usage) // 2
    if usage is None or asked not in METER or served not in METER or priced(others) < 0:
        return money, None
    return money, charged(served, usage) + priced(others) + sum(charged(served, one) for one in earlier)


def priced(others: list[Billed]) -> int:
    """What other attempts were charged with; -1 where one of them has no price."""
    return (
        -1
        if any(each.model not in METER for each in others)
        else sum(charged(each.model, each.usage) for each in others)
    )


def test_the_identity_holds_in_every_row_and_the_sum_is_the_meters() -> None:
    chance = Random(5)
    kinds = ("sent", "sent", "compressed", "part", "deferred", "hit-exact", "hit-semantic", "joined", "failed", "own")
    met: Counter[tuple[str, bool]] = Counter()
    paid = meter = 0
    for _ in range(ROWS):
        kind = chance.choice(kinds)
        money, charge = row(chance, kind)
        known = money.baseline is not None
        met[kind, known and money.overhead is not None] += 1
        if not known:
            assert money == UNKNOWN
            continue
        assert money.baseline is not None
        assert money.cost is not None
        causes = money[3:8]
        assert money.baseline - money.cost == sum(causes)
        assert all(type(amount) is int for amount in causes)
        if money.overhead is None:
            assert charge is None
            continue
        assert charge is not None, (kind, money)
        paid += money.cost + money.overhead
        meter += charge

    assert paid == meter > 0
    assert all(met[kind, known] > 100 for kind in set(kinds) for known in (True, False))
