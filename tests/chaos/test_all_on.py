"""That each claim about near-duplicates, money and promised refusals can fail."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.chaos.alike import FORMS, WORDS, family, member
from tests.chaos.all_on import PRICE_PICO, agree, from_others, money
from tests.chaos.answers import answer
from tests.chaos.load import Asked
from tests.chaos.measured import Moments, line_of
from tests.chaos.test_measured import one

NUMBERS = range(1_230_001, 1_230_009)


def near(began: float, replica: int, number: int, form: int, cache: str = "hit-semantic") -> Asked:
    return Asked(member(number, form), False, began, began + 0.1, replica, 200, f"{began}", cache, "", True)


def test_families_are_told_apart_by_their_number_alone() -> None:
    for number in NUMBERS:
        forms = {member(number, form) for form in range(3)}
        assert all(family(prompt) == forms for prompt in forms)
        assert len(forms) == len(FORMS[number % len(FORMS)])
        assert all(any(word in prompt.encode() for word in WORDS) for prompt in forms)
    assert len({family(member(number, 0)) for number in NUMBERS}) == len(NUMBERS)
    for alone in ("known 1", "fresh 1 2", FORMS[1][0].format(number=4), "none"):
        assert family(alone) == {alone}
    assert answer(member(NUMBERS[0], 0)) != answer(member(NUMBERS[0], 1))


def test_a_near_duplicate_is_from_another_replica_where_this_one_was_not_asked_before() -> None:
    first, own, other, again = near(1, 0, 5, 0, "miss"), near(2, 0, 5, 1), near(3, 1, 5, 1), near(4, 1, 5, 1)

    assert from_others([again, other, own, first]) == [other]
    assert from_others([first, other], since=3.5) == []
    other.right = False
    assert from_others([first, other]) == []


@pytest.mark.parametrize(
    ("accounts", "broken"),
    [
        ([{"b": (10, 0)}, {"b": (10, 0)}], 0),
        ([{"b": (7, 3)}], 0),
        ([{"b": (20, 0)}], 0),
        ([{"b": (9, 0)}], 1),
        ([{"b": (21, 0)}], 1),
        ([{"b": (10, 0)}, {"b": (11, 0)}], 1),
        ([{}, {}], 1),
    ],
)
def test_money_that_is_not_in_the_books_or_was_never_charged_is_seen(
    accounts: list[dict[str, tuple[int, int]]], broken: int
) -> None:
    assert len(money(accounts, at_least=10, at_most=20)) == broken


def test_the_price_is_that_of_an_answer() -> None:
    assert pytest.approx((9 * 0.15 + 40 * 0.6) / 10**6) == PRICE_PICO / 10**12


@pytest.mark.parametrize(
    ("more", "held"),
    [
        ({}, True),
        ({"state": "away"}, False),
        ({"lag_changes": 1}, False),
        ({"compared_at_seq": 6}, False),
        ({"compared": 1}, False),
        ({"differing": 1}, False),
    ],
)
def test_replicas_agree_only_where_all_were_compared_after_the_last_change(more: dict[str, Any], held: bool) -> None:
    well = {"state": "current", "lag_changes": 0, "compared_at_seq": 7, "compared": 2, "differing": 0}

    assert agree([well, well, well | more], 7) is held


@pytest.mark.parametrize(
    ("began", "code", "failed", "refused"),
    [
        (3.0, "away", 0, 1),
        (3.0, "other", 1, 0),
        (1.0, "away", 1, 0),
        (5.0, "away", 0, 1),
        (9.5, "away", 1, 0),
    ],
)
def test_a_refusal_is_promised_by_its_code_and_while_the_fault_lasts(
    began: float, code: str, failed: int, refused: int
) -> None:
    asked = [one(0.5), one(began, status=503, right=False, cache="", code=code), one(10)]
    found = line_of("f", "p", asked, Counter("a"), Moments(2, 4, refusing=frozenset({"away"})), range(1))

    assert (found.failed, found.notes["refused"]) == (failed, refused)
    assert found.notes["with_the_upstream"] == 0
    assert ("nothing was refused, though it is promised" in found.broken) is not bool(refused)
    if began == 5.0:
        assert found.recovery_s == pytest.approx(6.01)  # the first hit after it


def test_what_a_place_claims_of_itself_breaks_its_line() -> None:
    found = line_of("f", "p", [one(0.5), one(4.1)], Counter("a"), Moments(2, 4), range(1), {"more_broken": ["x"]})

    assert "x" in found.broken
