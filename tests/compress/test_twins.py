"""Sentences that say the same, and which of them stays."""

from __future__ import annotations

import pytest

from farthing.compress.split import split
from farthing.compress.twins import twins

PAD = " ".join(f"Some other sentence of kind {kind} stands here for length." for kind in "abcdefghij")


def repeats(first: str, second: str, heads: tuple[str, str] = ("[a]", "[b]")) -> tuple[list[str], list[str]]:
    """The repeated and the superseded sentences of two passages, each beside padding of its own."""
    text = f"{heads[0]}\n{first} {PAD}\n\n{heads[1]}\n{second} {PAD.replace('other', 'more')}"
    units = split(text).units
    repeated, superseded = ([units[i].text.strip() for i in sorted(found)] for found in twins(units))
    return repeated, superseded


ONE = "The pump at the station delivers 40 litres an hour."


@pytest.mark.parametrize(
    "other, is_repeat",
    [
        (ONE, True),
        ("The  pump at the station\ndelivers 40 litres an hour!", True),
        ("The pump at a station delivers 40 litres an hour.", False),
        ("The pump at the station delivers 41 litres an hour.", False),
        ("The pump at the station never delivers 40 litres an hour.", False),
        ("Litres an hour: the station delivers 40 at the pump.", False),
    ],
)
def test_what_counts_as_the_same(other: str, is_repeat: bool) -> None:
    found, superseded = repeats(ONE, other)

    assert found == ([other] if is_repeat else []) and superseded == []


def test_short_sentences_mean_what_their_place_says() -> None:
    assert repeats("Yes, it does.", "Yes, it does.") == ([], [])


@pytest.mark.parametrize(
    "heads, older",
    [
        (("[doc v1]", "[doc v2]"), 0),
        (("[doc v10]", "[doc v9]"), 1),
        (("[release 2.10.1]", "[release 2.9]"), 1),
        (("[note of 2026-01-15]", "[note of 2025-12-31]"), 1),
        (("[rev 3, 2026-01-15]", "[rev 4, 2026-01-15]"), 0),
    ],
)
def test_the_newest_stays(heads: tuple[str, str], older: int) -> None:
    first, second = "The limit in force is 40 units.", "The limit in force is 50 units."

    assert repeats(first, second, heads) == ([], [(first, second)[older]])
    found, _ = repeats(ONE, ONE.replace(".", "!"), heads)
    assert found == [(ONE, ONE.replace(".", "!"))[older]]
