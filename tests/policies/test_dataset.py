"""Datasets, samples and parts."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.dataset import EvalCase, dumped, read_cases
from farthing.policies.sampling import allocation, stratified
from farthing.policies.slices import slices_of
from farthing.policies.splits import groups_of, in_time


def one(value: Any) -> EvalCase | tuple[int, str]:
    return next(read_cases([orjson.dumps(value)]))


def test_a_case_comes_back_as_it_was_written() -> None:
    case = EvalCase("a", {"messages": []}, "chat", {"x": 1}, {"length": "short"}, 2.5, 7.0, "t", "rating", "b", "same")
    assert next(read_cases([dumped(case)])) == case


def test_people_may_write_the_shortest_thing() -> None:
    case = one({"prompt": "2+2?", "reference": "4"})
    assert isinstance(case, EvalCase)
    assert (case.id, case.request["messages"][0]["content"]) == ("line-1", "2+2?")
    assert case.reference is not None and case.reference["choices"][0]["message"]["content"] == "4"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "not an object"),
        ({}, "no request"),
        ({"prompt": "x", "weight": 0}, "weight"),
        ({"prompt": "x", "weight": True}, "weight"),
        ({"prompt": "x", "ts": "now"}, "ts"),
        ({"prompt": "x", "slices": {"a": 1}}, "slices"),
        ({"prompt": "x", "reference": 4}, "reference"),
        ({"prompt": "x", "expect": "maybe"}, "expect"),
        ({"prompt": "x", "endpoint": "embeddings"}, "endpoint"),
    ],
)
def test_a_bad_line_says_what_is_wrong(value: Any, reason: str) -> None:
    found = one(value)
    assert isinstance(found, tuple) and found[0] == 1 and reason in found[1]


def test_the_others_are_read_and_an_id_comes_once() -> None:
    lines = [b'{"id":"a","prompt":"x"}', b"{", b"", b'{"id":"a","prompt":"y"}', b'{"prompt":"z"}']
    found = list(read_cases(lines))
    assert [case.id if isinstance(case, EvalCase) else case[0] for case in found] == ["a", 2, 4, "line-5"]


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 50)), min_size=1, max_size=60),
    st.integers(1, 80),
    st.integers(0, 3),
    st.integers(0, 9),
)
def test_a_sample_has_productions_shares(items: list[tuple[int, int]], size: int, least: int, seed: int) -> None:
    drawn = stratified(items, lambda i: i[0], lambda i: float(i[1]), size, random.Random(seed), least)
    assert len(drawn) <= min(size, len(items)) and len({one.at for one in drawn}) == len(drawn)
    whole: Counter[int] = Counter()
    for kind, count in items:
        whole[kind] += count
    held: Counter[int] = Counter()
    for one_drawn in drawn:
        held[items[one_drawn.at][0]] += one_drawn.weight  # type: ignore[assignment]
    for kind, weight in held.items():
        assert weight == pytest.approx(whole[kind])
    if size >= len(whole) and least:
        assert set(held) == set(whole)


def test_a_rare_kind_is_seen_and_the_rest_is_in_proportion() -> None:
    assert allocation([900, 90, 10], [900, 90, 10], 100) == [90, 9, 1]
    assert allocation([960, 39, 1], [960, 39, 1], 50) == [
        48,
        1,
        1,
    ]  # one of the rare kind, though its share is a twentieth of one
    assert allocation([5, 1, 1], [5, 1, 1], 2) == [1, 1, 0]
    assert allocation([1, 1], [1, 1], 9) == [1, 1]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), max_size=60),
    st.sampled_from([(1.0,), (0.6, 0.4), (0.6, 0.2, 0.2), (0.0, 1.0)]),
)
def test_nothing_leaks_backwards(items: list[tuple[int, int]], shares: tuple[float, ...]) -> None:
    found = in_time([float(ts) for ts, _ in items], [group for _, group in items], shares)
    everything = [at for part in found.parts for at in part] + list(found.left_out)
    assert sorted(everything) == list(range(len(items)))
    for early, late in zip(found.parts, found.parts[1:], strict=False):
        assert not {items[at][1] for at in early} & {items[at][1] for at in late}
        if early and late:
            assert max(items[at][0] for at in early) <= min(items[at][0] for at in late)


def test_pairs_make_groups() -> None:
    assert groups_of(5, [(0, 3), (3, 4)]) == [0, 1, 2, 0, 0]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"model": "m", "messages": [{"role": "user", "content": "Wie hoch ist der Preis?"}]}, {"language": "de"}),
        ({"messages": [{"role": "user", "content": "これは何ですか"}]}, {"turns": "one", "tools": "no"}),
        ({"messages": [{"role": "user", "content": "x" * 3000}], "tools": [{}]}, {"length": "long", "tools": "yes"}),
        ({"input": "a", "text": {"format": {"type": "json_object"}}}, {"format": "json", "length": "short"}),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant"}, {"role": "user", "content": "b"}]},
            {"turns": "several"},
        ),
    ],
)
def test_slices(body: dict[str, Any], found: dict[str, str]) -> None:
    slices = slices_of("chat", body, [("team", "x")], "0123456789")
    assert found.items() <= slices.items()
    assert (slices["tag:team"], slices["tenant"]) == ("x", "01234567")
