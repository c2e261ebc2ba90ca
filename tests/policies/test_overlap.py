"""Which routes meet the same requests in part."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.overlap import meet, narrower_in_kind, overlapping
from farthing.policies.routes import Conditions, Facts, contains
from tests.policies.test_routes import CONDITIONS, FACTS

PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]", "["]), max_size=4).map("".join)


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ({"model": "gpt-4*"}, {"model": "*-mini"}, True),
        ({"model": "gpt-4*"}, {"model": "gpt-4o*"}, False),  # the later one never gets a request: that is refused
        ({"model": "gpt-4o*"}, {"model": "gpt-4*"}, False),  # the narrower one comes first
        ({"model": "gpt-4*"}, {"model": "o3*"}, False),
        ({"model": "a"}, {"model": "b"}, False),
        ({"model": "a*"}, {"tag": "team=x"}, True),
        ({"tag": "team=x"}, {"tag": "team=y"}, False),
        ({"tag": "team=x"}, {"tag": "feature=y"}, True),
        ({"tools": True}, {"images": True}, True),
        ({"tools": True}, {"tools": False}, False),
        ({"tools": True}, {}, False),
        ({"max_tokens_in": 100}, {"min_tokens_in": 50}, True),
        ({"max_tokens_in": 100}, {"min_tokens_in": 101}, False),
        ({"endpoint": "chat"}, {"endpoint": "messages"}, False),
        ({"endpoint": "embeddings"}, {"model": "a"}, False),
        ({"tenant": "a"}, {"tenant": "b"}, False),
        ({"tenant": "a"}, {"model": "m"}, False),
        ({"model": "m"}, {"tenant": "a"}, True),
        ({"tag": "team=x"}, {"model": "a*"}, False),  # whoever says a tag first means it
        ({"model": "a*", "tools": True}, {"model": "*b"}, False),  # it asks for more
        ({"model": "*b"}, {"model": "a*", "tools": True}, True),
    ],
)
def test_what_overlaps_in_part(one: dict[str, Any], other: dict[str, Any], found: bool) -> None:
    assert overlapping([Conditions(**one), Conditions(**other)]) == ([(1, (0,))] if found else [])


@given(PATTERNS, PATTERNS, st.text("ab", max_size=4))
def test_a_name_that_fits_both_patterns_is_found(one: str, other: str, name: str) -> None:
    assert meet(one, other) == meet(other, one)
    if (not one or fnmatchcase(name, one)) and (not other or fnmatchcase(name, other)):
        assert meet(one, other)


@given(st.text("ab*?", max_size=4), st.text("ab", max_size=4))
def test_a_plain_name_meets_only_what_it_fits(pattern: str, name: str) -> None:
    assert meet(pattern, name) == (not pattern or not name or fnmatchcase(name, pattern))


@given(st.lists(CONDITIONS, max_size=3), FACTS)
def test_of_two_that_take_a_request_something_is_known(listed: list[Conditions], facts: Facts) -> None:
    told = {(later, one) for later, earlier in overlapping(listed) for one in earlier}
    single = len({one.partition("=")[0] for one in facts.tags}) == len(facts.tags)
    taking = [place for place, one in enumerate(listed) if one.holds(facts)] if single else []
    for at, earlier in enumerate(taking):
        for later in taking[at + 1 :]:
            pair = listed[earlier], listed[later]
            if not narrower_in_kind(*pair):
                assert (later, earlier) in told or contains(*pair) or contains(*reversed(pair))
