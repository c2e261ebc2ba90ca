"""How many served answers were wrong, at most: true whatever changes, as long as the coin is fair."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.account import Account, _unseen

LEVEL = 0.05
# Who knows all before but the coin: when is the next answer wrong, given how many hits, and how many were found?
FOES: dict[str, Callable[[int, float], bool]] = {
    "always": lambda hits, found: True,
    "until it is found": lambda hits, found: found == 0,
    "in bursts": lambda hits, found: hits % 100 < 20,
    "late": lambda hits, found: hits >= 200,
    "more, the less is found": lambda hits, found: found < 0.02 * hits,
}


@pytest.mark.parametrize("foe", FOES)
@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.2, 0.05)])
def test_it_is_rarely_wrong_whatever_happens(foe: str, shares: tuple[float, float]) -> None:
    """Looked at after every answer, the audited share falling on the way."""
    false = 0
    runs = 200
    for seed in range(runs):
        account, random, wrong = Account(), Random(seed), 0
        for hits in range(400):
            share = shares[0] if hits < 200 else shares[1]
            bad = FOES[foe](hits, account.found)
            account.serve(share)
            wrong += bad
            if bad and random.random() < share:
                account.wrong(1.0)
            if wrong > account.at_most(LEVEL):
                false += 1
                break

    assert false <= 19  # 5 % of 200 and three standard errors


def test_it_would_be_wrong_if_audits_were_rarer_than_it_is_told() -> None:
    """The check above can fail."""
    false = 0
    for seed in range(100):
        account, random = Account(), Random(seed)
        for _ in range(400):
            account.serve(0.2)
            if random.random() < 0.1:
                account.wrong(1.0)
        false += account.at_most(LEVEL) < 400

    assert false > 50


@given(st.integers(0, 30), st.floats(0.005, 0.9))
def test_the_count_is_where_the_product_reaches_its_mark(found: int, chance: float) -> None:
    """With half of the capital on one factor the product is a bet anybody can check."""
    count = _unseen(float(found), chance, LEVEL)
    alone = min(
        (math.log(4 / LEVEL) - found * math.log(g)) / math.log((1 - chance * g) / (1 - chance))
        for g in (0.02, 0.3, 0.6, 0.85)
    )

    assert math.log(1 / LEVEL) / -math.log(1 - chance) <= count * 1.001
    assert count <= alone * 1.001


@pytest.mark.parametrize(("less", "more"), [((0.0, 0.05), (1.0, 0.05)), ((2.0, 0.05), (2.0, 0.04))])
def test_what_is_found_and_what_is_not_looked_at_make_it_larger(
    less: tuple[float, float], more: tuple[float, float]
) -> None:
    assert _unseen(*less, LEVEL) < _unseen(*more, LEVEL)


def test_it_never_says_more_than_were_served() -> None:
    account = Account()
    account.serve(0.05)

    assert account.at_most(LEVEL) == 1.0
    assert Account().at_most(LEVEL) == 0.0


def test_where_all_are_audited_it_says_what_was_found() -> None:
    account = Account()
    for number in range(100):
        account.serve(1.0)
        account.wrong(float(number % 10 == 0))

    assert account.at_most(LEVEL) == 10.0


def test_a_judge_who_overlooks_half_makes_it_larger() -> None:
    account = Account(hits=10_000, found=3.0, least=0.1)

    assert account.at_most(LEVEL, seen=0.5) > 1.8 * account.at_most(LEVEL)


def test_a_few_found_at_once_are_borne_and_hits_without_fault_bear_more() -> None:
    assert not Account(hits=10, found=3.0, least=0.05).overdrawn(0.01, LEVEL)
    assert Account(hits=10_000, found=30.0, least=0.05).overdrawn(0.01, LEVEL)
    assert not Account(hits=100_000, found=30.0, least=0.05).overdrawn(0.01, LEVEL)
