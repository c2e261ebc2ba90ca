"""BM25: against the formula worked out by hand, and terms that match across forms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.compress.bm25 import Words, rarity, scores
from tests.fakes.broken_texts import hostile_texts


def test_the_formula() -> None:
    texts = [["a", "b", "a"], ["b"], ["c", "d"]]
    idf_a, idf_b = math.log(1 + 2.5 / 1.5), math.log(1 + 1.5 / 2.5)
    found = scores(texts, {"a": 1.0, "b": 0.5})

    assert (rarity(3, 1), rarity(3, 2)) == pytest.approx((idf_a, idf_b))
    norm = 1.2 * (0.25 + 0.75 * 3 / 2)
    assert found[0] == pytest.approx(idf_a * 2 * 2.2 / (2 + norm) + 0.5 * idf_b * 2.2 / (1 + norm))
    assert found[1] == pytest.approx(0.5 * idf_b * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 1 / 2)))
    assert found[2] == 0


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=5), max_size=6), st.sampled_from("abcd"))
def test_zero_exactly_where_no_term_is_shared(texts: list[list[str]], term: str) -> None:
    assert [score > 0 for score in scores(texts, {term: 1.0})] == [term in text for text in texts]


@pytest.mark.parametrize(
    "one, other",
    [
        ("The sensors failed", "a sensor fails"),
        ("ord_8f3a", "ORD_8F3A"),
        ("cpu_pct", "the pct of a cpu"),
        ("東京タワー", "東京"),
        ("Straße", "STRASSE"),
    ],
)
def test_forms_of_a_word_share_terms(one: str, other: str) -> None:
    words = Words()

    assert set(words.terms(one)) & set(words.terms(other))


def test_small_words_are_no_terms_but_negations_are() -> None:
    assert Words().terms("It is not what the others have") == Words().terms("not others")


@given(hostile_texts())
def test_terms_are_the_same_each_time(text: str) -> None:
    words = Words()

    assert words.terms(text) == words.terms(text) == Words().terms(text)
