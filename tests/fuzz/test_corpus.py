"""What was fuzzed holds: for every seed, for all that was kept, and for what hypothesis makes of both by joining."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.corpus import kept
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

EXAMPLES = int(os.environ.get("FARTHING_FUZZ_EXAMPLES", "60"))
SEEDS = seeds()


def test_every_target_has_seeds() -> None:
    assert SEEDS.keys() == TARGETS.keys() and all(SEEDS.values())


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_was_kept_hold(name: str) -> None:
    for one in [*SEEDS[name], *kept(name)]:
        TARGETS[name](one)


@pytest.mark.parametrize("name", TARGETS)
def test_pieces_of_them_hold_however_they_are_joined(name: str) -> None:
    known = [*SEEDS[name], *kept(name)][:200]

    @st.composite
    def joined(draw: st.DrawFn) -> bytes:
        parts = []
        for one in draw(st.lists(st.sampled_from(known), min_size=1, max_size=3)):
            start = draw(st.integers(0, len(one)))
            parts += [one[start : draw(st.integers(start, len(one)))], draw(st.binary(max_size=4))]
        return b"".join(parts)

    @seed(20261126)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(joined())
    def holds(data: bytes) -> None:
        TARGETS[name](data)

    holds()
