"""An index that is rebuilt aside: it serves all the while, in small slices, and tombstones don't pile up."""

from __future__ import annotations

import time

import numpy as np
import pytest

from farthing.cache.index_growing import GrowingIndex
from farthing.cache.index_hnsw import HnswIndex

DIM = 16


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def filled(size: int, grow_at: int) -> GrowingIndex:
    index = GrowingIndex(DIM, grow_at)
    for number in range(size):
        index.add(number, unit(number))
    return index


def settle(index: GrowingIndex) -> int:
    slices = 0
    while index.tend():
        slices += 1
    return slices


def nearest(index: GrowingIndex, seed: int) -> int:
    return index.search(unit(seed), 1)[0][0]


def test_a_small_one_has_nothing_to_tend() -> None:
    index = filled(20, grow_at=20)

    assert not index.restless
    assert index.tend() is False
    assert index.kind == "flat"


def test_it_serves_and_takes_changes_while_it_is_rebuilt() -> None:
    index = filled(40, grow_at=20)
    assert index.restless
    for step in range(8):
        assert index.tend()
        index.add(100 + step, unit(100 + step))
        index.remove(step)
        assert nearest(index, 100 + step) == 100 + step
        assert nearest(index, step) != step
        assert index.kind == "flat"

    settle(index)

    assert index.kind == "graph"
    assert sorted(index.numbers()) == [*range(8, 40), *range(100, 108)]
    assert all(nearest(index, number) == number for number in index.numbers())


def test_a_number_removed_and_taken_again_during_a_rebuild_is_the_new_one() -> None:
    index = filled(30, grow_at=20)
    index.tend()
    for number in range(30):
        index.remove(number)
        index.add(number, unit(1000 + number))

    settle(index)

    assert all(nearest(index, 1000 + number) == number for number in range(30))
    assert len(index) == 30


def test_a_new_index_that_fails_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    index = filled(40, grow_at=20)
    index.tend()
    with monkeypatch.context() as broken:
        broken.setattr(HnswIndex, "add", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            index.tend()
        index._next = HnswIndex(DIM)
        index.add(40, unit(40))
    assert index.kind == "flat"
    assert nearest(index, 7) == 7
    assert nearest(index, 40) == 40

    settle(index)

    assert index.kind == "graph"
    assert sorted(index.numbers()) == list(range(41))


def test_a_slice_moves_few_vectors() -> None:
    index = filled(60, grow_at=20)

    assert settle(index) >= 60 // HnswIndex.slice - 1


def test_tombstones_are_cleared_away_and_found_never() -> None:
    index = filled(2_000, grow_at=500)
    settle(index)
    index.remove(*range(0, 2_000, 3))
    assert index.restless

    found = {number for query in range(50) for number, _ in index.search(unit(query), 8)}
    settle(index)

    assert all(number % 3 for number in found)
    assert isinstance(index._now, HnswIndex)
    assert index._now.dead == 0
    assert len(index) == 2_000 - 667
    assert sum(nearest(index, number) == number for number in range(1, 2_000, 30)) >= 44  # of 45 kept


def test_what_tombstones_crowd_round_is_still_found() -> None:
    index = HnswIndex(DIM)
    for number in range(300):
        index.add(number, unit(1))
    index.add(300, unit(2))
    index.remove(*range(299))

    assert {number for number, _ in index.search(unit(1), 2)} == {299, 300}


def test_a_shrunken_one_turns_flat_again() -> None:
    index = filled(60, grow_at=20)
    settle(index)
    index.remove(*range(9, 60))

    settle(index)

    assert index.kind == "flat"
    assert sorted(index.numbers()) == list(range(9))


def test_half_precision_changes_nothing_when_it_is_rebuilt_again() -> None:
    index = filled(30, grow_at=20)
    settle(index)
    before = index.vector(7)
    index._now.remove(*range(8, 30))
    settle(index)

    assert np.array_equal(index.vector(7), before)


@pytest.mark.parametrize("dim", [384])
def test_a_slice_is_short_at_a_real_size(dim: int) -> None:
    """A look-up waits for one slice at most. Measured: 0.3 ms; the bound leaves room for a busy machine."""
    chance = np.random.default_rng(1)
    rows = chance.normal(size=(1_500, dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    index = GrowingIndex(dim, grow_at=1_000)
    for number, row in enumerate(rows):
        index.add(number, row)
    took = []
    more = True
    while more:
        began = time.thread_time()
        more = index.tend()
        took.append(time.thread_time() - began)

    assert index.kind == "graph"
    assert sorted(took)[int(0.95 * len(took))] < 0.010
