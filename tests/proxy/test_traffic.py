"""The demo's traffic: what ships, and how it is drawn."""

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from farthing.proxy.traffic import Question, load_questions, popularity, sample
from tests.fakes.examples import examples


def made_up(n: int) -> tuple[Question, ...]:
    return tuple(Question(f"question {i}", "any") for i in range(n))


def test_what_ships_is_distinct_and_has_rewordings() -> None:
    questions = load_questions()
    assert len({question.text for question in questions}) == len(questions) == 200
    per_intent = Counter(question.intent for question in questions)
    assert len(per_intent) == 25
    assert set(per_intent.values()) == {8}
    assert all(question.text == " ".join(question.text.split()) for question in questions)


@given(n=st.integers(1, 300), s=st.floats(0, 3))
@settings(max_examples=examples(50), deadline=None)
def test_popularity_is_a_falling_distribution(n: int, s: float) -> None:
    chances = popularity(n, s)
    assert len(chances) == n
    assert sum(chances) == pytest.approx(1.0)
    assert all(a >= b for a, b in pairwise(chances))


def test_popularity_follows_the_exponent() -> None:
    assert popularity(4, 0) == (0.25, 0.25, 0.25, 0.25)
    chances = popularity(100, 1.0)
    assert chances[0] / chances[9] == pytest.approx(10)
    with pytest.raises(ValueError, match="n >= 1"):
        popularity(0, 1)


@given(n=st.integers(1, 60), requests=st.integers(0, 200), seed=st.integers(0, 2**32))
@settings(max_examples=examples(50), deadline=None)
def test_a_seed_names_a_run(n: int, requests: int, seed: int) -> None:
    questions = made_up(n)
    asked = sample(questions, requests, random.Random(seed))
    assert len(asked) == requests
    assert set(asked) <= set(questions)
    assert asked == sample(questions, requests, random.Random(seed))


def test_draws_follow_zipf() -> None:
    """Chi-square over the ranks of 20,000 draws; the seed is fixed, so this passes always or never."""
    draws = 20_000
    asked = sample(made_up(20), draws, random.Random(5), s=1.0)
    counted = sorted(Counter(asked).values(), reverse=True)
    expected = [chance * draws for chance in popularity(20, 1.0)]
    assert stats.chisquare(counted, expected).pvalue > 0.001
    assert stats.chisquare(counted, [draws / 20] * 20).pvalue < 1e-6


def test_who_is_popular_depends_on_the_seed() -> None:
    questions = made_up(50)
    favourites = {Counter(sample(questions, 500, random.Random(seed))).most_common(1)[0][0] for seed in range(8)}
    assert len(favourites) > 1
