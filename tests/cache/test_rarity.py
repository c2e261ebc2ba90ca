"""Rarity on a route: learned online, bounded, on top of the language's."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.cache.rarity import RAREST, RouteWords, prior_of
from tests.fakes.examples import examples


def test_before_any_text_the_language_decides() -> None:
    words = RouteWords()

    assert (
        words.rarity("the", prior_of(0)) < words.rarity("card", prior_of(3_000)) < words.rarity("x", prior_of(40_000))
    )


def test_what_a_route_says_all_the_time_is_common_there() -> None:
    words = RouteWords()
    for number in range(200):
        words.learn(["translate", f"word{number}"])

    assert words.rarity("translate", prior_of(9_000)) < 1.0
    assert words.rarity("word7", prior_of(9_000)) > 5.0


def test_it_is_bounded_and_old_words_fade() -> None:
    words = RouteWords(most_words=100)
    for number in range(5_000):
        words.learn(["form", f"once{number}"])

    assert len(words) <= 100
    assert words.rarity("form", prior_of(9_000)) < 1.5
    assert words.rarity("once0", prior_of(40_000)) > 5.0


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=4, unique=True), max_size=30), st.integers(0, 10**6))
def test_it_is_always_finite_and_more_texts_with_a_word_make_it_no_rarer(texts: list[list[str]], rank: int) -> None:
    words = RouteWords(most_words=4)
    for text in texts:
        words.learn(text)
    before = words.rarity("a", prior_of(rank))
    words.learn(["a"])

    assert 0.0 <= before <= RAREST
    assert len(words) <= 4
    assert 0.0 <= words.rarity("a", prior_of(rank)) <= RAREST
