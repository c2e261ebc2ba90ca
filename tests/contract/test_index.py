"""One suite over every Index: exact, or (lists) right to half precision, and nothing that isn't there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.cache.index import BruteIndex, Index
from farthing.cache.index_growing import GrowingIndex
from farthing.cache.index_ivf import IvfIndex
from farthing.cache.index_pg import PgIndex, PgVectors
from farthing.proxy.clock import SystemClock
from tests.fakes.examples import examples
from tests.fakes.postgres import running_postgres

DIM = 8
Make = Callable[[int], Index]


# Half precision: 11 bits of each of 8 factors.
ROUGH = 2e-3


class Tended(GrowingIndex):
    """Rebuilt after every change: it turns into lists beyond 3 and back at none."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, grow_at=3)

    def add(self, number: int, vector: np.ndarray) -> None:
        super().add(number, vector)
        while self.tend():
            pass

    def remove(self, *numbers: int) -> None:
        super().remove(*numbers)
        while self.tend():
            pass


def three_lists(dim: int) -> IvfIndex:
    return IvfIndex(np.stack([unit(seed, dim) for seed in range(3)]), size=3)


class HalfTended(GrowingIndex):
    """Always in the middle of a rebuild: one vector moves with each change."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, grow_at=3)

    def add(self, number: int, vector: np.ndarray) -> None:
        super().add(number, vector)
        self.tend()


KINDS: dict[str, Make] = {
    "brute": BruteIndex, "ivf": three_lists, "growing": Tended, "half way": HalfTended
}  # fmt: skip


class Written(PgIndex):
    """Everything is in the table at once."""

    def add(self, number: int, vector: np.ndarray) -> None:
        super().add(number, vector)
        while self.tend():
            pass

    def remove(self, *numbers: int) -> None:
        super().remove(*numbers)
        while self.tend():
            pass


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Make]:
    """Makes an index in a real PostgreSQL, each one in a scope of its own."""
    with running_postgres() as server:
        table = PgVectors(server.url, model="m", dim=DIM, deadline_s=30, clock=SystemClock())
        scopes = itertools.count()
        yield lambda dim: Written(table, f"scope {next(scopes)}", dim)
        table.close()


@pytest.fixture(params=[*KINDS, "pgvector"])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "pgvector":
        make: Make = request.getfixturevalue("elsewhere")
        return make
    return KINDS[request.param]


def unit(seed: int, dim: int = DIM) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=dim).astype(np.float32)
    return vector / np.linalg.norm(vector)


def expected(kept: dict[int, np.ndarray], query: np.ndarray) -> list[tuple[int, float]]:
    return sorted(((n, float(v @ query)) for n, v in kept.items()), key=lambda pair: (-pair[1], pair[0]))


def test_an_empty_index_finds_nothing(make: Make) -> None:
    index = make(DIM)

    assert len(index) == 0
    assert index.search(unit(1), 3) == []
    assert index.items() == []


def test_the_nearest_comes_first_and_k_may_exceed_what_is_there(make: Make) -> None:
    index = make(DIM)
    for number in (5, 2**62, 0):
        index.add(number, unit(number % 1000))

    found = index.search(unit(5), 10)

    assert found[0][0] == 5
    assert found[0][1] == pytest.approx(1, abs=1e-6 if make is BruteIndex else ROUGH)
    assert {number for number, _ in found} == {5, 2**62, 0}
    assert [cosine for _, cosine in found] == sorted((cosine for _, cosine in found), reverse=True)
    assert index.search(unit(5), 1) == found[:1]
    assert index.search(unit(5), 0) == []


def test_what_was_removed_is_not_found_and_its_number_is_free(make: Make) -> None:
    index = make(DIM)
    for number in range(5):
        index.add(number, unit(number))

    index.remove(1, 3, 77)
    index.remove(1)
    index.add(3, unit(100))

    assert len(index) == 4
    assert {number for number, _ in index.search(unit(1), 9)} == {0, 2, 3, 4}
    assert index.search(unit(100), 1)[0][0] == 3


def test_what_moved_into_a_gap_can_be_removed_in_its_turn(make: Make) -> None:
    index = make(DIM)
    for number in range(3):
        index.add(number, unit(number))

    index.remove(0)
    index.remove(2)

    assert [number for number, _ in index.search(unit(2), 3)] == [1]
    assert [number for number, _ in index.items()] == [1]


def test_equal_vectors_come_in_the_order_of_their_numbers(make: Make) -> None:
    index = make(DIM)
    for number in (9, 4, 6):
        index.add(number, unit(1))

    assert [number for number, _ in index.search(unit(1), 3)] == [4, 6, 9]
    assert len(index.search(unit(1), 2)) == 2


def test_a_number_is_taken_once_and_vectors_must_fit(make: Make) -> None:
    index = make(DIM)
    index.add(1, unit(1))

    for number, vector in (
        (1, unit(2)),
        (-1, unit(2)),
        (2**63, unit(2)),
        (2, unit(2, DIM + 1)),
        (3, np.full(DIM, np.nan, np.float32)),
    ):
        with pytest.raises(ValueError, match=r"taken|wanted"):
            index.add(number, vector)

    assert len(index) == 1
    assert index.search(np.full(DIM, np.nan, np.float32), 1) == []


def test_items_are_what_was_added_and_can_move_to_another_index(make: Make) -> None:
    index, other = make(DIM), BruteIndex(DIM)
    for number in range(20):
        index.add(number, unit(number))
    index.remove(0, 7)

    for number, vector in index.items():
        other.add(number, vector)

    assert len(other) == 18
    for number, cosine in index.search(unit(3), 5):
        assert cosine == pytest.approx(float(unit(number) @ unit(3)), abs=ROUGH)
        assert index.vector(number) == pytest.approx(unit(number), abs=ROUGH)
    assert [n for n, _ in other.search(unit(3), 5)] == [n for n, _ in index.search(unit(3), 5)]
    assert sorted(index.numbers()) == [number for number in range(20) if number not in (0, 7)]


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=40), st.integers(0, 30), st.integers(1, 15))
def test_every_implementation_finds_what_a_full_sort_finds(steps: list[tuple[bool, int]], asked: int, k: int) -> None:
    for build in KINDS.values():
        finds_what_a_full_sort_finds(build, steps, asked, k)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=40), st.integers(0, 30), st.integers(1, 15))
def test_a_table_finds_what_a_full_sort_finds(
    elsewhere: Make, steps: list[tuple[bool, int]], asked: int, k: int
) -> None:
    finds_what_a_full_sort_finds(elsewhere, steps, asked, k)


def finds_what_a_full_sort_finds(build: Make, steps: list[tuple[bool, int]], asked: int, k: int) -> None:
    index: Index = build(DIM)
    kept: dict[int, np.ndarray] = {}
    for step, (adds, number) in enumerate(steps):
        if not adds:
            index.remove(number)
            kept.pop(number, None)
        elif number not in kept:
            kept[number] = unit(1000 + step)
            index.add(number, kept[number])
    wanted = expected(kept, unit(asked))

    found = index.search(unit(asked), k)

    assert len(index) == len(kept)
    close = 1e-5 if build is BruteIndex else ROUGH
    assert [c for _, c in found] == pytest.approx([c for _, c in wanted[:k]], abs=close)
    assert all(c == pytest.approx(float(kept[n] @ unit(asked)), abs=close) for n, c in found)
    assert len({n for n, _ in found}) == len(found)
    if build is BruteIndex:
        assert [n for n, _ in found] == [n for n, _ in wanted[:k]]
