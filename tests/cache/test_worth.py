"""Which entries leave first."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.cache.worth import Worth
from tests.fakes.examples import examples


def leaving(worth: Worth, count: int) -> list[int]:
    found = []
    for number, _ in worth.lowest():
        found.append(number)
        worth.drop(number)
        if len(found) == count:
            break
    return found


def test_price_hits_and_bytes_decide() -> None:
    worth = Worth()
    worth.add(1, 1000, 0.01)
    worth.add(2, 1000, 0.10)
    worth.add(3, 4000, 0.10)
    worth.add(4, 1000, 0.01)
    assert worth.use(4) == 1
    for _ in range(5):
        worth.use(1)

    assert leaving(worth, 4) == [4, 3, 1, 2]


def test_among_equals_the_least_recently_used_leaves() -> None:
    worth = Worth()
    for number in range(3):
        worth.add(number, 10, 0.5)
    worth.use(0)

    assert leaving(worth, 2) == [1, 2]


def test_what_was_worth_much_long_ago_leaves_in_the_end() -> None:
    worth = Worth()
    worth.add(0, 1, 50.0)
    for number in range(1, 200):
        worth.add(number, 1, 1.0)
        if leaving(worth, 1) == [0]:
            assert number > 40
            break
    else:
        raise AssertionError("it stays for ever")


def test_an_unknown_price_is_the_mean_of_those_known() -> None:
    worth = Worth()
    worth.add(1, 10, 0.1)
    worth.add(2, 10, 0.3)
    worth.add(3, 10, None)
    worth.add(4, 10, 0.0)

    assert leaving(worth, 4) == [1, 3, 4, 2]


def test_hits_of_an_earlier_life_count() -> None:
    worth = Worth()
    worth.add(1, 10, 0.1, uses=3)
    worth.add(2, 10, 0.1)

    assert leaving(worth, 1) == [2]


steps = st.lists(st.tuples(st.sampled_from(["add", "use", "drop", "leave"]), st.integers(0, 9)), max_size=400)


@settings(max_examples=examples(60), deadline=None)
@given(steps)
def test_its_books_balance_and_its_heap_is_bounded(taken: list[tuple[str, int]]) -> None:
    worth, held = Worth(), {}
    for what, number in taken:
        if what == "add" and number not in held:
            worth.add(number, 10 + number, number / 10)
            held[number] = 10 + number
        elif what == "use" and number in held:
            worth.use(number)
        elif what == "drop":
            worth.drop(number)
            held.pop(number, None)
        elif what == "leave":
            for gone in leaving(worth, 1):
                del held[gone]
    assert worth.bytes == sum(held.values())
    assert len(worth) == len(held)
    assert len(worth._heap) <= 2 * len(held) + 257
    assert sorted(leaving(worth, 99)) == sorted(held)
