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

    first = vectors.all_of(["apples", "pears", "apples"])
    again = vectors.of("pears")

    assert calls == [["apples", "pears"]]
    assert first[0] is not None
    assert first[0] is first[2]
    assert np.array_equal(again, embed(["pears"])[0])  # type: ignore[arg-type]


def test_beyond_the_window_there_is_none_and_the_others_are_embedded() -> None:
    vectors = Vectors(Letters())

    long, short = vectors.all_of(["word " * 30, "plums"])

    assert long is None
    assert short is not None
    assert len(vectors) == 1


def test_the_least_recently_used_is_forgotten() -> None:
    letters = Letters()
    vectors = Vectors(letters, remembered=2)
    for text in ("a b", "c d", "a b", "e f", "a b", "c d"):
        vectors.of(text)

    assert letters.embedded == ["a b", "c d", "e f", "c d"]
    assert len(vectors) == 2
    vectors.clear()
    assert len(vectors) == 0


def test_a_batch_is_not_kept_alive_by_one_of_its_rows() -> None:
    found = Vectors(Letters()).all_of(["a b", "c d"])

    assert all(one is not None and one.base is None for one in found)


def test_lone_surrogates_and_nothing_are_texts_too() -> None:
    found = Vectors(Letters()).all_of(["\ud800", ""])

    assert all(one is not None for one in found)
