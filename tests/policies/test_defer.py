"""Which requests go together, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.defer import Group, Rules, Waiting, ready

RULES = Rules(min_s=0, flush_s=60, max_items=3, max_bytes=100)
A, B = Group("a", "u", "/v1/chat/completions", "m"), Group("b", "u", "/v1/chat/completions", "m")


def rules(_: Group) -> Rules:
    return RULES


def waiting(id: str, group: Group = A, size: int = 10, since_s: float = 0.0) -> Waiting:
    return Waiting(id, group, size, since_s, since_s + 86_400)


def ids(batches: list[list[Waiting]]) -> list[list[str]]:
    return [[one.id for one in batch] for batch in batches]


def test_waits_for_others_until_the_first_has_waited_long_enough() -> None:
    two = [waiting("2", since_s=50), waiting("1", since_s=10)]
    assert ready(two, rules, 69.9) == []
    assert ids(ready(two, rules, 70)) == [["1", "2"]]


def test_a_full_batch_does_not_wait() -> None:
    four = [waiting(str(number), since_s=number) for number in range(4)]
    assert ids(ready(four, rules, 4)) == [["0", "1", "2"]]
    assert ids(ready([waiting("1", size=60), waiting("2", size=60)], rules, 0)) == [["1"]]
    assert ids(ready([waiting("1", size=100)], rules, 0)) == [["1"]]


def test_groups_are_apart() -> None:
    assert ids(ready([waiting("1"), waiting("2", B), waiting("3", A._replace(hurried=True))], rules, 60)) == [
        ["1"],
        ["2"],
        ["3"],
    ]


@given(
    st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 100), st.floats(0, 200)), max_size=40),
    st.floats(0, 300),
)
def test_bounds_hold_and_nobody_is_in_two(given_all: list[tuple[Group, int, float]], now_s: float) -> None:
    all_of_them = [waiting(str(i), group, size, since) for i, (group, size, since) in enumerate(given_all)]
    batches = ready(all_of_them, rules, now_s)
    sent = [one.id for batch in batches for one in batch]
    assert len(sent) == len(set(sent))
    for batch in batches:
        assert 0 < len(batch) <= RULES.max_items
        assert sum(one.size for one in batch) <= RULES.max_bytes
        assert len({one.group for one in batch}) == 1
    left = [one for one in all_of_them if one.id not in sent]
    assert all(now_s - one.since_s < RULES.flush_s for one in left)


def test_a_batch_has_no_more_to_embed_than_its_bound() -> None:
    three = [
        waiting(str(number), size=1, since_s=number)._replace(inputs=inputs) for number, inputs in enumerate((4, 5, 9))
    ]
    assert ids(ready(three, lambda _: Rules(max_inputs=10, flush_s=60), 3)) == [["0", "1"]]
    assert ids(ready(three[2:], lambda _: Rules(max_inputs=9, flush_s=60), 3)) == [["2"]]
    assert ready(three[2:], lambda _: Rules(max_inputs=10, flush_s=60), 3) == []


def test_each_group_has_its_providers_bounds() -> None:
    many = [waiting(str(number), group) for group in (A, B._replace(kind="anthropic")) for number in range(2)]
    found = ready(many, lambda group: Rules(max_items=1 if group.kind == "anthropic" else 2), 0)
    assert sorted(map(len, found)) == [1, 1, 2]
