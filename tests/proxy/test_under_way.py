"""Limits on requests under way: in one process, and over workers that share a board."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.policies.affinity import NO_PREFIX
from farthing.proxy.board import PLACES, Board
from farthing.proxy.clock import FakeClock, SystemRandomness
from farthing.proxy.config_upstream import Upstream
from farthing.proxy.crew import Crew
from farthing.proxy.errors import ConfigFault, UpstreamFault
from farthing.proxy.peers import Peers
from farthing.proxy.pool import Lease, Pool, Seat
from farthing.proxy.pool_open import open_pool
from farthing.proxy.tasks import TaskGroup
from farthing.proxy.under_way import Counts
from tests.fakes.examples import examples


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board.make(2)
    yield board
    board.close()


def crew(board: Board, slot: int) -> Crew:
    return Crew(slot, 2 * slot, Peers(TaskGroup(), lambda: None), board)


def pool(counts: Counts, most: int, *urls: str) -> Pool:
    upstream = Upstream(replicas=urls, max_in_flight=most)
    spawn = TaskGroup().spawn
    return open_pool(upstream, spawn=spawn, clock=FakeClock(), randomness=SystemRandomness(), counts=counts)


def picked(pool: Pool) -> Lease | None:
    try:
        return pool.pick(NO_PREFIX)
    except UpstreamFault as fault:
        assert (fault.status, fault.retry_after_s) == (429, 1.0)
        return None


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 1), st.booleans()), max_size=40))
def test_no_limit_is_passed_whoever_asks_and_a_place_that_is_free_is_given(
    most: int, steps: list[tuple[int, bool]]
) -> None:
    board = Board.make(2)
    pools = [pool(Counts(crew(board, slot)), most, "http://one/v1", "http://two/v1") for slot in (0, 1)]
    held: list[list[Lease]] = [[], []]
    for slot, begins in steps:
        if begins:
            lease = picked(pools[slot])
            assert (lease is None) == (sum(map(len, held)) == 2 * most)
            held[slot] += [] if lease is None else [lease]
        elif held[slot]:
            held[slot].pop().done()
        for name in ("one", "two"):
            assert sum(lease.replica.name == name for leases in held for lease in leases) <= most
    for one in pools:
        one.close()
    board.close()


def test_who_was_not_alone_at_the_last_place_steps_back(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = (Counts(crew(board, slot)) for slot in (0, 1))
    one = pool(here, 1, "http://one/v1")
    other = there.at("default http://one/v1")
    looked = Pool._seat

    def and_then_another_begins(self: Pool, *given: Any) -> Seat:
        seat = looked(self, *given)
        other.begin()
        return seat

    monkeypatch.setattr(Pool, "_seat", and_then_another_begins)
    assert picked(one) is None
    assert here.at("default http://one/v1").here == 0
    one.close()


def test_what_is_under_way_is_everybodys_in_whatever_order_they_count_it(board: Board) -> None:
    one, two = Counts(crew(board, 0)), Counts(crew(board, 1))
    names = ["a", "b", "c"]
    for name in names:
        one.at(name)
    for name in reversed(names):
        two.at(name)
    one.at("a").begin()
    two.at("a").begin()
    two.at("a").begin()
    two.at("c").begin()

    assert [(one.at(name).all, two.at(name).all) for name in names] == [(3, 3), (0, 0), (1, 1)]
    assert (one.at("a").here, two.at("a").here) == (1, 2)
    assert one.at("only here").all == 0
    board.gone(2)  # the second one has died
    assert [one.at(name).all for name in names] == [1, 0, 0]


def test_more_places_than_the_board_has_are_the_operators_to_know_of(board: Board) -> None:
    counts = Counts(crew(board, 0))
    for number in range(PLACES):
        counts.at(f"{number}")
    with pytest.raises(ConfigFault, match="workers"):
        counts.at("one more")


def test_alone_it_counts_itself() -> None:
    counts = Counts()
    counts.at("a").begin()
    assert (counts.at("a").all, counts.at("b").all) == (1, 0)
    counts.at("a").end()
    assert counts.at("a").all == 0
