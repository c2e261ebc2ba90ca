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
    assert found.kappa.high - found.kappa.value == pytest.approx(1.984 * 0.0955, rel=0.02)


def test_who_always_says_good_is_worth_nothing() -> None:
    found = agreement(verdicts({("good", "good"): 95, ("bad", "good"): 5}))

    assert found.agreed.value == 0.95
    assert found.kappa.value == pytest.approx(0.0)
    assert found.found["bad"].value == 0.0


def test_perfect_agreement_is_no_certainty() -> None:
    found = agreement(verdicts({("good", "good"): 15, ("bad", "bad"): 15}))

    assert found.kappa.value == 1.0
    assert 0.7 < found.kappa.low < 0.85


@pytest.mark.parametrize("table", [{}, {("good", "good"): 20}, {("good", None): 5}])
def test_where_nothing_can_be_known(table: dict[tuple[str, str | None], int]) -> None:
    found = agreement(verdicts(table))

    assert math.isnan(found.kappa.value)
    assert (found.kappa.low, found.kappa.high) == (-1.0, 1.0)


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


@pytest.mark.parametrize(("right", "groups", "each"), [(0.7, 60, 4), (0.97, 80, 1)])
def test_intervals_cover_as_often_as_they_say(right: float, groups: int, each: int) -> None:
    """People say good of 60 %; the judge is right with a chance that a whole group shares half of the time. Of 150
    worlds 5 % may be missed; more than 16 would happen to one honest interval in a thousand (binomial)."""
    rng = np.random.default_rng(7)
    true_kappa = (right - (chance := _chance(right))) / (1 - chance)
    misses = kappa_misses = 0
    for _ in range(150):
        rows = []
        for group in range(groups):
            shared = rng.random() < right
            for _ in range(each):
                human = rng.random() < 0.6
                agrees = shared if rng.random() < 0.5 else rng.random() < right
                judge = human if agrees else not human
                rows.append(Verdict("good" if human else "bad", "good" if judge else "bad", str(group)))
        found = agreement(rows)
        misses += not found.agreed.low <= right <= found.agreed.high
        kappa_misses += not found.kappa.low <= true_kappa <= found.kappa.high

    assert misses <= 16
    assert kappa_misses <= 16


def _chance(right: float) -> float:
    says_good = 0.6 * right + 0.4 * (1 - right)
    return 0.6 * says_good + 0.4 * (1 - says_good)


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
