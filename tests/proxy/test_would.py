"""Reads of a provider's cache in another world than the one that was billed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy.would import Before, Would, in_its_place, moved, placed

TOKENS = st.integers(0, 10_000)


def half(promised: int) -> int:
    return promised // 2


@pytest.mark.parametrize(
    ("cached", "here", "there", "expected"),
    [
        (1000, 1024, 1024, 1000),  # the worlds are one: as billed, whatever was promised
        (0, 0, 2048, 1024),  # colder here: half of the promise is believed
        (2000, 1024, 2048, 2048),  # never more than was promised there
        (3000, 1024, 2048, 3000),  # nor less than was billed
        (1500, 2048, 0, 476),  # warmer here
        (100, 2048, 0, 0),
    ],
)
def test_what_was_billed_and_the_difference_between_the_worlds(
    cached: int, here: int, there: int, expected: int
) -> None:
    assert moved(cached, here, there, half) == expected


@given(TOKENS, TOKENS, TOKENS)
def test_a_warmer_world_never_reads_less(cached: int, here: int, there: int) -> None:
    found = moved(cached, here, there, half)
    assert found >= 0
    assert (found - cached) * (there - here) >= 0


def test_a_prompt_that_was_sent_shorter_reads_what_the_whole_one_would_have() -> None:
    old = Before(saved=1000, sent=1000)
    assert in_its_place(2000, 1000, 1000, 1500, old, half, same_model=True) == Would(None, 2000)
    assert in_its_place(2000, 0, 0, 1500, old, half, same_model=True) == Would(500, 1000)
    assert placed(1800, 2000, 0, 1500, old, same_model=True) == Would(900, 1800)
