"""What a deferred request reserved is the same again when another process reads it."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.bucket import Rate, Take
from farthing.policies.budget import Budget, Subject, Want
from farthing.proxy.budgets import Hold
from farthing.proxy.defer_hold import as_hold, hold_as

NAMES = st.text(max_size=8)
SUBJECTS = st.builds(Subject, st.sampled_from(["all", "key", "tag:team"]), st.lists(NAMES, max_size=2).map(tuple))
BUDGETS = st.builds(
    Budget, NAMES, st.integers(0, 10**22), st.sampled_from(["day", "week", "month"]), SUBJECTS, st.booleans(),
    st.lists(st.floats(0, 1), max_size=2).map(tuple),
)  # fmt: skip
RATES = st.builds(Rate, NAMES, st.sampled_from(["requests", "tokens"]), st.integers(1, 10**9), SUBJECTS)
HOLDS = st.builds(
    Hold,
    NAMES,
    st.lists(st.builds(Want, NAMES, NAMES, st.integers(0, 2**40), BUDGETS), max_size=3).map(tuple),
    st.integers(0, 2**60),
    st.booleans(),
    st.lists(st.builds(Take, NAMES, st.integers(0, 2**40), RATES, NAMES), max_size=2).map(tuple),
    st.integers(0, 2**40),
)


@given(st.none() | HOLDS)
def test_it_is_the_same_again(hold: Hold | None) -> None:
    assert as_hold(orjson.loads(orjson.dumps(hold_as(hold)))) == hold
