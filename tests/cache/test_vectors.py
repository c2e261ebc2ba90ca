"""Vectors with a memory."""

from __future__ import annotations

import numpy as np

from farthing.cache.vectors import Vectors
from tests.cache.test_semantic import Letters


def test_a_text_is_embedded_once_and_texts_go_together() -> None:
    letters = Letters()
    calls: list[list[str]] = []
    embed = letters.embed
    letters.embed = lambda texts: calls.append(list(texts)) or embed(texts)  # type: ignore[method-assign]
    vectors = Vectors(letters)

    first = vectors.all_of([("s", "apples"), ("s", "pears"), ("s", "apples")])
    again = vectors.of("s", "pears")

    assert calls == [["apples", "pears"]]
    assert first[0] is not None
    assert first[0] is first[2]
    assert np.array_equal(again, embed(["pears"])[0])  # type: ignore[arg-type]


def test_no_scope_is_spared_what_another_has_had_embedded_even_in_one_call() -> None:
    letters = Letters()
    vectors = Vectors(letters)

    one, other = vectors.all_of([("one", "plums"), ("other", "plums")])
    vectors.of("one", "plums")
    vectors.of("a third", "plums")

    assert letters.embedded == ["plums"] * 3
    assert np.array_equal(one, other)  # type: ignore[arg-type]
    vectors.all_of([("s", "1 x"), ("s1", " x"), ("", "s1 x")])  # where one ends and the other begins is part of it
    assert len(vectors) == 6


def test_beyond_the_window_there_is_none_and_the_others_are_embedded() -> None:
    vectors = Vectors(Letters())

    long, short = vectors.all_of([("s", "word " * 30), ("s", "plums")])

    assert long is None
    assert short is not None
    assert len(vectors) == 1


def test_the_least_recently_used_is_forgotten() -> None:
    letters = Letters()
    vectors = Vectors(letters, remembered=2)
    for text in ("a b", "c d", "a b", "e f", "a b", "c d"):
        vectors.of("s", text)

    assert letters.embedded == ["a b", "c d", "e f", "c d"]
    assert len(vectors) == 2
    vectors.clear()
    assert len(vectors) == 0


def test_a_batch_is_not_kept_alive_by_one_of_its_rows() -> None:
    found = Vectors(Letters()).all_of([("s", "a b"), ("s", "c d")])

    assert all(one is not None and one.base is None for one in found)


def test_lone_surrogates_and_nothing_are_texts_too() -> None:
    found = Vectors(Letters()).all_of([("s", "\ud800"), ("s", ""), ("", "")])

    assert all(one is not None for one in found)
