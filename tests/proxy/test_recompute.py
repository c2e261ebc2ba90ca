"""Yesterday's ledger comes to the same pico-dollar today, and what doesn't is told."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from farthing.policies.spend import DayTotal
from farthing.proxy.account import Account
from farthing.proxy.attribute import overhead_money
from farthing.proxy.clock import FakeClock
from farthing.proxy.config_prices import Change, ModelPrice, Tier
from farthing.proxy.exchange import CacheStatus, Head
from farthing.proxy.prices import RateCard
from farthing.proxy.recompute import Verdict, recompute
from farthing.proxy.row import Row
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage
from tests.fakes.examples import examples
from tests.fakes.rows import row
from tests.proxy.test_account import exchange
from tests.proxy.test_attribute import USAGES

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
OWN = ModelPrice(
    input_usd_per_mtok=Decimal("0.0000000001"),
    output_usd_per_mtok=Decimal(3),
    audio_input_usd_per_mtok=Decimal(30),
    cache_write_usd_per_mtok=Decimal("1.25"),
    cache_write_1h_usd_per_mtok=Decimal(2),
    past=({"tokens": 500_000, "input_usd_per_mtok": Decimal(2)},),
    tiers={"flex": Tier(times=Decimal("0.5"))},
    changes=(Change(valid_from=date(2027, 1, 1), input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal("2.7")),),
)
CARD = RateCard({"own": OWN})


def booked(
    usage: Usage | None,
    earlier: list[Usage],
    *,
    card: RateCard = CARD,
    model: str = "own",
    served: str = "own",
    at_s: float = NEW_YEAR,
    status: int = 200,
    **changes: Any,
) -> Row:
    """The row that the account itself writes of such an answer."""
    account = Account(card, None, Tokenizer(), DayTotal(), FakeClock())
    ex = exchange()
    ex.model, ex.received_s, ex.compress, ex.tokens_saved = model, at_s, "", 0
    call = ex.call
    assert call is not None
    call.usage, call.earlier, call.model_served, call.head = usage, earlier, served, Head(status, CIMultiDict())
    call.attempts[-1].status = status
    for name, value in changes.items():
        setattr(ex, name, value)
    return account.row(ex, usage, account.money(ex, usage))


@settings(max_examples=examples(300), deadline=None)
@given(
    st.none() | USAGES,
    st.lists(USAGES, max_size=2),
    st.sampled_from(["own", "claude-sonnet-5", "gpt-5.6", "unknown"]),
    st.integers(-40 * 86_400, 5 * 86_400),
)
def test_every_row_comes_to_what_was_booked_across_a_change_of_prices(
    usage: Usage | None, earlier: list[Usage], model: str, after_s: int
) -> None:
    told = booked(usage, earlier, model=model, served=model, at_s=NEW_YEAR + after_s)
    again = recompute(told, RateCard({"own": OWN}))
    assert again.verdict is (Verdict.UNPRICED if told.cost_usd is None else Verdict.SAME)
    assert again.now == told.cost_usd


def test_on_both_sides_of_new_year() -> None:
    usage = Usage(fresh=10**6, output=10**6)
    old, new = booked(usage, [], at_s=NEW_YEAR - 1), booked(usage, [], at_s=NEW_YEAR)
    assert (old.cost_usd, new.cost_usd) == (5 * 10**12, 3_700_000_000_000)
    for told in (old, new):
        assert recompute(told, CARD).verdict is Verdict.SAME
    swapped = recompute(old._replace(ts=NEW_YEAR), CARD)
    assert (swapped.verdict, swapped.then, swapped.now) == (Verdict.DIFFERS, 5 * 10**12, 3_700_000_000_000)


def test_history_that_somebody_rewrote_is_found_and_a_price_declared_since_is_told_apart() -> None:
    told = booked(Usage(fresh=1000), [], model="gpt-4o-mini", served="gpt-4o-mini-2024-07-18")
    assert recompute(told, CARD).verdict is Verdict.SAME
    declared = RateCard({"gpt-4o-mini": ModelPrice(input_usd_per_mtok=Decimal(9))})
    assert recompute(told, declared).verdict is Verdict.OTHER_SOURCE
    rewritten = RateCard({"own": ModelPrice(input_usd_per_mtok=Decimal(9))})
    assert recompute(booked(Usage(fresh=1000), []), rewritten).verdict is Verdict.DIFFERS
    estimated = booked(Usage(fresh=1000), [])._replace(modelled=1)
    assert recompute(estimated, rewritten).verdict is Verdict.MODELLED


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        (row(cache="hit-exact", tokens_in_sent=0, cost_usd=0), Verdict.SAME),
        (row(cache="joined", cost_usd=0, tokens_out=50), Verdict.SAME),
        (row(cost_usd=None), Verdict.UNPRICED),
        (row(endpoint="other", cost_usd=0, tokens_in_sent=None), Verdict.SAME),
        (row(status=500, attempts_detail='[{"status":500}]', cost_usd=0, tokens_in_sent=None), Verdict.SAME),
        (row(status=500, attempts_detail='[{"status":500}]', cost_usd=0, tokens_in_sent=9), Verdict.SAME),
        (row(tokens_in_sent=-5, attempts_detail='[{"status":200}]', cost_usd=7), Verdict.UNREADABLE),
        (row(tokens_in_sent="x", attempts_detail='[{"status":200}]', cost_usd=7), Verdict.UNREADABLE),
    ],
)
def test_rows_of_every_kind(told: Row, verdict: Verdict) -> None:
    assert recompute(told, CARD).verdict is verdict


@pytest.mark.parametrize("status", [500, 429])
def test_what_was_billed_before_a_failure_is_priced_as_it_was_booked(status: int) -> None:
    """The model asked for and the dated one that answered before have different rates (gpt-3.5-turbo-1106)."""
    names = {"model": "gpt-3.5-turbo", "served": "gpt-3.5-turbo-1106"}
    told = booked(None, [Usage(fresh=1000), Usage(output=9)], status=status, **names)
    assert told.cost_usd == 1000 * 500_000 + 9 * 1_500_000
    assert recompute(told, CARD).verdict is Verdict.SAME


def test_an_errands_price_is_its_overhead() -> None:
    usage = Usage(fresh=1000, output=10)
    money = overhead_money(CARD, "own", usage, NEW_YEAR)
    told = booked(usage, [], cache=CacheStatus.BYPASS)._replace(
        endpoint="judge", cost_usd=0, overhead_usd=money.overhead, price_source=money.price_source
    )
    again = recompute(told, CARD)
    assert (again.verdict, again.now) == (Verdict.SAME, money.overhead)
    assert recompute(told._replace(overhead_usd=1), CARD).verdict is Verdict.DIFFERS
