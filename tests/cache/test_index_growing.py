"""An index that is rebuilt aside: it serves all the while, in small slices, and is trained anew when it is worn."""

from __future__ import annotations

import time

import numpy as np
import pytest

from farthing.cache.index_growing import GrowingIndex
from farthing.cache.index_ivf import PASSES, IvfIndex, Training

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


def test_it_serves_and_takes_changes_while_it_is_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farthing.cache.index_ivf._MACS_AT_ONCE", 10_000)  # as few at once as of large vectors
    index = filled(200, grow_at=20)
    assert index.restless
    for step in range(28):
        assert index.tend()
        index.add(1_000 + step, unit(1_000 + step))
        index.remove(step)
        assert nearest(index, 1_000 + step) == 1_000 + step
        assert nearest(index, step) != step
        assert index.kind == "flat"
    assert isinstance(index._next, IvfIndex) and len(index._next) > 28, "it was in the midst of being filled"

    settle(index)

    assert index.kind == "ivf"
    assert sorted(index.numbers()) == [*range(28, 200), *range(1_000, 1_028)]
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
        broken.setattr(IvfIndex, "extend", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            settle(index)
        assert index._next is None
        index._next = IvfIndex(np.stack([unit(1)]), size=40)
        index.add(40, unit(40))
    assert index.kind == "flat"
    assert nearest(index, 7) == 7
    assert nearest(index, 40) == 40

    settle(index)

    assert index.kind == "ivf"
    assert sorted(index.numbers()) == list(range(41))


def test_a_slice_moves_few_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farthing.cache.index_ivf._MACS_AT_ONCE", 1_000)
    index = filled(60, grow_at=20)

    # 14 lists: 4 vectors of 60 to a step of each pass; 20 to a slice, the fewest.
    assert settle(index) >= 3 + PASSES * 15


def test_as_many_new_ones_as_there_were_and_it_is_trained_anew() -> None:
    index = filled(600, grow_at=500)
    settle(index)
    first = index._now
    for number in range(600, 1_200):
        index.add(number, unit(number))
        index.remove(number - 600)
        assert not index.restless
    index.add(1_200, unit(1_200))
    assert index.restless

    settle(index)

    assert isinstance(index._now, IvfIndex) and index._now is not first
    assert not index._now.worn
    assert sorted(index.numbers()) == list(range(600, 1_201))
    assert sum(nearest(index, number) == number for number in range(600, 1_201, 10)) == 61


def test_whatever_is_found_is_there_and_its_cosine_is_right() -> None:
    index = filled(3_000, grow_at=500)
    settle(index)
    assert isinstance(index._now, IvfIndex)
    exact = filled(3_000, grow_at=3_000)

    for seed in range(10_000, 10_020):
        found = index.search(unit(seed), 8)
        assert len(found) == 8
        assert all(cosine == pytest.approx(float(exact.vector(n) @ unit(seed)), abs=2e-3) for n, cosine in found)


@pytest.mark.parametrize("spread", [0.05, 0.5])
def test_near_ones_are_found_in_islands_of_near_copies_and_without_any(spread: float) -> None:
    """A graph's links lead to an entry's own island only, once it is larger than what building looks at."""
    chance = np.random.default_rng(7)
    centres = chance.normal(size=(8, DIM))
    rows = np.repeat(centres, 400, axis=0) + spread * chance.normal(size=(3_200, DIM))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    index = GrowingIndex(DIM, grow_at=1_000)
    for number, row in enumerate(rows):
        index.add(number, row)
    settle(index)

    asked = rows[::20] + 0.01 * chance.normal(size=(160, DIM)).astype(np.float32)
    right = (asked @ rows.T).argmax(axis=1)

    assert index.kind == "ivf"
    found = [index.search(one, 1)[0] for one in asked]
    ties = [float(rows[number] @ one) for (number, _), one in zip(found, asked, strict=True)]
    assert ties == pytest.approx([float(rows[n] @ one) for n, one in zip(right, asked, strict=True)], abs=2e-3)


@pytest.mark.parametrize("left", [0, 15, 25])
def test_most_may_go_while_it_is_trained(left: int) -> None:
    index = filled(60, grow_at=20)
    index.tend()
    assert isinstance(index._next, Training)
    index.remove(*range(left, 60))
    settle(index)

    assert index.kind == ("ivf" if left > 20 else "flat")
    assert not index.restless and sorted(index.numbers()) == list(range(left))
    assert all(nearest(index, number) == number for number in range(left))


@pytest.mark.parametrize("kept", [0, 1, 600, 1_500])
def test_most_that_would_be_trained_on_may_be_exchanged_meanwhile(kept: int) -> None:
    index = filled(2_001, grow_at=2_000)
    index.tend()
    index.remove(*range(2_001 - kept))
    for number in range(2_001, 4_002 - kept):
        index.add(number, unit(number))
    settle(index)

    assert isinstance(index._now, IvfIndex)
    assert index._now._lists == 2 * 44, "as many as ever, trained on half of the sample at least"
    assert sorted(index.numbers()) == list(range(2_001 - kept, 4_002 - kept))


def test_copies_of_one_vector_are_all_there() -> None:
    index = GrowingIndex(DIM, grow_at=100)
    for number in range(300):
        index.add(number, unit(1))
    settle(index)
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
    assert index.kind == "flat"

    assert np.array_equal(index.vector(7), before)


@pytest.mark.parametrize("dim", [384])
def test_a_slice_is_short_at_a_real_size(dim: int) -> None:
    """A look-up waits for one slice at most. Measured: 1.1 ms; the bound leaves room for a busy machine."""
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

    assert index.kind == "ivf"
    assert sorted(took)[int(0.95 * len(took))] < 0.010
