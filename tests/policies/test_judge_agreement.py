"""A judge beside people: the figures by hand, their coverage by simulation, and the labelled set's lines."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from farthing.policies.answer import Answer
from farthing.policies.judge_agreement import PREFERENCE, Verdict, agreement, read_labelled, word_of
from farthing.policies.judges import Score


def verdicts(table: dict[tuple[str, str | None], int]) -> list[Verdict]:
    pairs = [pair for pair, count in table.items() for _ in range(count)]
    return [Verdict(human, judge, str(number)) for number, (human, judge) in enumerate(pairs)]


def test_the_figures_by_hand() -> None:
    """Cohen's own kind of example: 45 + 25 of 100 agree; chance brings .60 x .60 + .40 x .40 = .52."""
    found = agreement(
        verdicts({("good", "good"): 45, ("good", "bad"): 15, ("bad", "good"): 15, ("bad", "bad"): 25, ("bad", None): 7})
    )

    assert (found.cases, found.unsaid) == (107, 7)
    assert found.agreed.value == pytest.approx(0.70)
    assert found.kappa.value == pytest.approx(0.375)
    assert found.found["good"].value == pytest.approx(45 / 60)
    assert found.found["bad"].value == pytest.approx(25 / 40)
    assert found.matrix[("good", "bad")] == 15
    # Fleiss, Cohen & Everitt's standard error of this table is .0955; t instead of the normal widens it a little.
    assert (found.kappa.high - found.kappa.low) / 2 == pytest.approx(1.984 * 0.0955, rel=0.05)


def test_who_always_says_good_is_worth_nothing() -> None:
    found = agreement(verdicts({("good", "good"): 95, ("bad", "good"): 5}))

    assert found.agreed.value == 0.95
    assert found.kappa.value == pytest.approx(0.0)
    assert found.found["bad"].value == 0.0
    assert found.kappa.low < 0 < found.kappa.high  # and that isn't certain either


def test_perfect_agreement_is_no_certainty() -> None:
    found = agreement(verdicts({("good", "good"): 15, ("bad", "bad"): 15}))

    assert found.kappa.value == 1.0
    assert 0.7 < found.kappa.low < 0.85


@pytest.mark.parametrize("table", [{}, {("good", "good"): 20}, {("good", None): 5}])
def test_where_nothing_can_be_known(table: dict[tuple[str, str | None], int]) -> None:
    found = agreement(verdicts(table))

    assert math.isnan(found.kappa.value)
    assert (found.kappa.low, found.kappa.high) == (-1.0, 1.0)


def test_one_group_is_worth_one_case() -> None:
    found = agreement([Verdict("good", "good", "a"), Verdict("bad", "bad", "b"), Verdict("bad", "bad", "b")])

    assert found.found["good"] == found.found["bad"] == pytest.approx((1.0, 0.025, 1.0))
    mixed = agreement([Verdict("good", "good", "a"), Verdict("good", "bad", "a")]).agreed
    assert mixed.value == 0.5 and mixed.low < 0.05 and mixed.high > 0.95


def test_copies_of_a_case_make_no_evidence() -> None:
    """Ten copies of every case in its own group leave the intervals where they were; as cases of their own they'd
    shrink."""
    once = verdicts({("good", "good"): 30, ("good", "bad"): 12, ("bad", "good"): 10, ("bad", "bad"): 28})
    copied = [one for one in once for _ in range(10)]
    alone = [one._replace(group=f"{number}") for number, one in enumerate(copied)]

    assert agreement(copied).kappa == pytest.approx(agreement(once).kappa)
    assert agreement(copied).agreed == pytest.approx(agreement(once).agreed)
    wide, narrow = agreement(copied).kappa, agreement(alone).kappa
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)


@pytest.mark.parametrize(
    ("groups", "each", "finds_good", "finds_bad", "good", "shared"),
    [
        (60, 4, 0.7, 0.7, 0.6, 0.7),  # cases of a group go together
        (80, 1, 0.97, 0.97, 0.6, 0.0),
        (80, 1, 0.02, 0.98, 0.5, 0.0),  # hardly ever says good
        (40, 6, 0.98, 0.98, 0.5, 0.9),
        (100, 1, 0.9, 0.99, 0.08, 0.0),  # few good ones
    ],
)
def test_intervals_cover_as_often_as_they_say(
    groups: int, each: int, finds_good: float, finds_bad: float, good: float, shared: float
) -> None:
    """In 150 worlds 5 % may be missed; more than 16 would happen to one honest interval in 700 (binomial)."""
    rng = np.random.default_rng(3)
    says_good = good * finds_good + (1 - good) * (1 - finds_bad)
    agreed = good * finds_good + (1 - good) * finds_bad
    chance = good * says_good + (1 - good) * (1 - says_good)
    truth = {"agreed": agreed, "kappa": (agreed - chance) / (1 - chance), "good": finds_good}
    missed = dict.fromkeys(truth, 0)
    for _ in range(150):
        rows = []
        for group in range(groups):
            its_luck, its_kind = rng.random(), rng.random()
            for _ in range(each):
                luck, kind = (own if rng.random() >= shared else its for its, own in
                              ((its_luck, rng.random()), (its_kind, rng.random())))  # fmt: skip
                human = kind < good
                judge = human if luck < (finds_good if human else finds_bad) else not human
                rows.append(Verdict("good" if human else "bad", "good" if judge else "bad", str(group)))
        found = agreement(rows)
        given = {"agreed": found.agreed, "kappa": found.kappa, "good": found.found.get("good")}
        for name, one in given.items():
            missed[name] += one is not None and not one.low <= truth[name] <= one.high

    assert max(missed.values()) <= 16, missed


@pytest.mark.parametrize(
    ("value", "words", "word"),
    [
        (None, PREFERENCE, None),
        (0.5, PREFERENCE, "tie"),
        (0.75, PREFERENCE, "better"),
        (0.25, PREFERENCE, "worse"),
        (0.5, ("good", "bad"), "good"),
        (0.49, ("good", "bad"), "bad"),
    ],
)
def test_scores_in_peoples_words(value: float | None, words: tuple[str, ...], word: str | None) -> None:
    assert word_of(Score(value, ""), words) == word


def test_lines_of_a_labelled_set() -> None:
    chat = {"choices": [{"index": 0, "message": {"content": "5"}, "finish_reason": "stop"}]}
    lines = [
        {"prompt": "2+2?", "answer": "4", "reference": "four", "label": True, "group": "sums"},
        {"request": {"input": "2+3?"}, "answer": chat, "label": "worse"},
        {"prompt": "2+2?", "answer": "4"},
        {"prompt": "2+2?", "answer": "4", "label": 1},
        {"answer": "4", "label": "good"},
        {"prompt": "2+2?", "answer": {"no": "answer"}, "label": "good"},
        [1],
    ]
    first, second, *wrong = read_labelled([*(json.dumps(line).encode() for line in lines), b"{", b" "])

    assert first.label == "good" and first.group == "sums"  # type: ignore[union-attr]
    assert first.case.reference == Answer("four")  # type: ignore[union-attr]
    assert second.label == "worse" and second.case.answer.text == "5"  # type: ignore[union-attr]
    assert [number for number, _ in wrong] == [3, 4, 5, 6, 7, 8]  # type: ignore[misc]
