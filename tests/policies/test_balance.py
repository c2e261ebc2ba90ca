"""Least outstanding of two, and least work where caches are warm."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.affinity import UNDER_WAY_CHARS, Held, Prefix, Work, least_work
from farthing.policies.balance import Load, least, two_of

CHANCE = st.floats(0, 1, exclude_max=True)


@given(st.integers(2, 64), CHANCE)
def test_two_different_ones_are_drawn(count: int, chance: float) -> None:
    first, second = two_of(count, chance)

    assert first != second
    assert {first, second} <= set(range(count))


def test_every_ordered_pair_is_drawn_equally_often() -> None:
    pairs = Counter(two_of(4, (i + 0.5) / 1200) for i in range(1200))

    assert len(pairs) == 12
    assert set(pairs.values()) == {100}


@given(st.lists(st.integers(0, 50), min_size=2, max_size=20), CHANCE)
def test_the_most_loaded_is_never_chosen(loads: list[int], chance: float) -> None:
    chosen = least([Load(n) for n in loads], chance)

    assert loads.count(max(loads)) > 1 or loads[chosen] < max(loads)


def test_a_key_with_more_left_goes_before_one_with_fewer_under_way() -> None:
    loads = [Load(3, used_share=0.9, own_in_flight=0), Load(3, used_share=0.1, own_in_flight=3)]

    assert {least(loads, chance / 10) for chance in range(10)} == {1}


def test_two_choices_keep_many_replicas_even() -> None:
    dice, loads = random.Random(1), [0] * 20
    for _ in range(2000):
        loads[least([Load(n) for n in loads], dice.random())] += 1

    assert max(loads) - min(loads) <= 6


def prefix(*blocks: str) -> Prefix:
    keys, key = [], 0
    for block in blocks:
        key = hash((key, block))
        keys.append(key)
    return Prefix(keys, [512 * (i + 1) for i in range(len(blocks))])


def test_the_longest_prefix_is_known_and_no_other() -> None:
    held = Held()
    held.note(prefix("system", "a", "b"))

    assert held.chars(prefix("system", "a", "b", "c")) == 3 * 512
    assert held.chars(prefix("system", "x", "b")) == 512
    assert held.chars(prefix("other", "a", "b")) == 0
    assert held.chars(Prefix()) == 0
    held.forget()
    assert held.chars(prefix("system")) == 0


@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=8), max_size=30),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=8),
    st.integers(1, 20),
)
def test_it_is_bounded_and_what_it_knows_is_a_prefix_of_what_came(
    came: list[list[str]], asked: list[str], most: int
) -> None:
    held = Held(most)
    for blocks in came:
        held.note(prefix(*blocks))
    known = held.chars(prefix(*asked)) // 512

    assert len(held) <= most
    assert known == 0 or any(blocks[:known] == asked[:known] for blocks in came)
    if came:
        assert held.chars(prefix(*came[-1])) == 512 * min(len(came[-1]), most)


@given(
    st.lists(st.builds(Work, *[st.integers(0, 10_000)] * 2, st.integers(0, 9), st.integers(0, 99)), min_size=1), CHANCE
)
def test_the_least_work_is_chosen(works: list[Work], chance: float) -> None:
    chosen = works[least_work(works, chance)]

    assert chosen.chars == min(work.chars for work in works)


def test_a_warm_replica_draws_until_it_is_busier_than_the_saving_is_worth() -> None:
    cold = Work(8 * UNDER_WAY_CHARS, 0, 0, 0)

    assert least_work([cold, Work(0, 0, 7, 100)], 0.0) == 1
    assert least_work([cold, Work(0, 0, 9, 100)], 0.0) == 0


def test_of_cold_ones_the_emptiest_and_else_any() -> None:
    even = [Work(100, 0, 0, 5)] * 4

    assert least_work([Work(100, 0, 0, 9), Work(100, 0, 0, 5)], 0.0) == 1
    assert {least_work(even, chance / 8) for chance in range(8)} == {0, 1, 2, 3}
