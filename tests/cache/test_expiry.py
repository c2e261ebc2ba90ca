"""Expiries: what comes out, and what is held by those that are filed and taken out again before their time."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from farthing.cache.disk import Record
from farthing.cache.expiry import Expiries

BUCKET_S = 15


def record(name: object, expires_s: float) -> Record:
    return Record(str(name), "", "", "", 1, expires_s, 1e9)


def test_expiries_are_never_early_and_at_most_a_bucket_late() -> None:
    expiries = Expiries()
    chance = random.Random(5)
    records = [
        Record(str(n), "", "", "", 1, 1e9 + chance.choice([10, 1000, 10**7]) * chance.random(), 1e9) for n in range(500)
    ]
    for record in records:
        expiries.add(record, 1e9)
    for record in records[:50]:
        expiries.discard(record)
        expiries.discard(record)
    waiting = set(records[50:])
    now_s = 1e9
    while waiting:
        now_s += chance.choice([1, 20, 5000, 200_000])
        more = True
        while more:
            expired, more = expiries.due(now_s, 7)
            assert len(expired) <= 7
            for record in expired:
                assert record.expires_s <= now_s
                waiting.remove(record)
        assert all(record.expires_s > now_s - 15 for record in waiting)
    assert len(expiries) == 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from([-20.0, 1.0, 14.0, 16.0, 40.0, 3000.0, 1e6])),
        st.tuples(st.just("discard"), st.integers(0, 60)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 5.0, 15.0, 100.0, 7e5])),
    ),
    max_size=200,
)


@given(STEPS)
def test_what_is_in_comes_out_once_and_what_was_taken_out_never(steps: list[tuple[str, float]]) -> None:
    expiries, held = Expiries(), dict[str, Record]()
    now_s, named = 1e9, 0
    for what, amount in steps:
        if what == "add":
            named += 1
            held[str(named)] = new = record(named, now_s + amount)
            expiries.add(new, now_s)
        elif what == "discard":
            one = held.pop(str(int(amount)), None)
            if one is not None:
                expiries.discard(one)
                expiries.discard(one)
        else:
            now_s += amount
            for expired in all_due(expiries, now_s):
                assert held.pop(expired.key) is expired
                assert expired.expires_s <= now_s
            assert all(one.expires_s > now_s - BUCKET_S for one in held.values())
        assert len(expiries) == len(held)
    assert {one.key for one in all_due(expiries, now_s + 1e7)} == held.keys()


def test_one_that_others_have_filed_is_not_taken_out() -> None:
    ours, theirs = Expiries(), Expiries()
    mine, foreign = record("mine", 2e9), record("foreign", 2e9)
    ours.add(mine, 1e9)
    theirs.add(foreign, 1e9)
    ours.discard(foreign)
    assert (len(ours), len(theirs)) == (1, 1)
    assert [one.key for one in all_due(ours, 3e9)] == ["mine"]


def test_what_was_evicted_before_its_time_leaves_nothing_behind() -> None:
    """Answers are kept for a day, and evicted after a minute: over ten hours, no bucket remembers how full it was."""
    expiries, now_s, kept = Expiries(), 1e9, list[Record]()
    tracemalloc.start()
    try:
        early = 0
        for bucket in range(2_400):
            now_s += BUCKET_S
            kept += [record(number, now_s + 86_400) for number in range(50)]
            for one in kept[-50:]:
                expiries.add(one, now_s)
            for one in kept[:-200]:
                expiries.discard(one)
            del kept[:-200]
            if bucket == 20:
                early = tracemalloc.get_traced_memory()[0]
        late = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(expiries) == 200
    assert late < early + 5_000


def test_one_that_stays_in_each_bucket_holds_its_own_room_only() -> None:
    """What is asked for again and again stays, and most beside it goes."""
    expiries, now_s = Expiries(), 1e9
    tracemalloc.start()
    try:
        stay = []
        for _ in range(400):
            now_s += BUCKET_S
            filed = [record(number, now_s + 86_400) for number in range(200)]
            for one in filed:
                expiries.add(one, now_s)
            for one in filed[1:]:
                expiries.discard(one)
            stay.append(filed[0])
        del filed, one
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(expiries) == 400
    assert used < 400 * 1_000


def all_due(expiries: Expiries, now_s: float) -> Iterable[Record]:
    more = True
    while more:
        expired, more = expiries.due(now_s, 7)
        yield from expired
