"""Embeddings item by item: taken apart and put together again without a vector changing or moving."""

from __future__ import annotations

import base64
import struct
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.cache.entry import Entry
from farthing.cache.items import Case, Vector, apportioned, asked_of, keys_in, read_answer
from farthing.proxy.usage import Usage, UsageSource

FULL = struct.unpack("<3f", struct.pack("<3f", 0.100000024, -0.23456789, 1e-5))  # one of them needs nine digits


def shortest(values: tuple[float, ...]) -> list[float]:
    """The shortest decimals of each float32, as a provider may print them."""
    import numpy as np

    return [float(str(np.float32(value))) for value in values]


def packed(values: tuple[float, ...]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def answer(*embeddings: Any, tokens: int | None = 8, order: list[int] | None = None, **more: Any) -> dict[str, Any]:
    rows = [{"object": "embedding", "index": i, "embedding": one} for i, one in enumerate(embeddings)]
    usage = {} if tokens is None else {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return {"object": "list", "data": [rows[i] for i in order or range(len(rows))], "model": "m-1"} | usage | more


def vector(embedding: Any) -> Vector:
    found = read_answer(answer(embedding), 1)
    assert found is not None
    return found.vectors[0]


def told(one: Vector, *, as_base64: bool) -> Any:
    said = one.told(as_base64=as_base64)
    return None if said is None else orjson.loads(said)


# -- the request


@pytest.mark.parametrize(
    ("given_input", "unique", "places"),
    [
        ("a", ("a",), (0,)),
        (["a"], ("a",), (0,)),
        (["a", "b", "a", ""], ("a", "b", ""), (0, 1, 0, 2)),
        ([1, 2, 3], ([1, 2, 3],), (0,)),
        ([[1, 2], [3], [1, 2]], ([1, 2], [3]), (0, 1, 0)),
    ],
)
def test_takes_a_request_apart(given_input: Any, unique: tuple[Any, ...], places: tuple[int, ...]) -> None:
    asked = asked_of({"model": "m", "input": given_input})
    assert asked is not None
    assert (asked.unique, asked.places) == (unique, places)


@pytest.mark.parametrize(
    "body",
    [
        {"input": []},
        {"input": None},
        {"input": ["a", 1]},
        {"input": ["a", ["b"]]},
        {"input": [[]]},
        {"input": [1, -2]},
        {"input": [1, 2.5]},
        {"input": [True]},
        {"input": {"text": "a"}},
        {"input": [{"text": "a"}]},
        {"input": "a", "encoding_format": "int8"},
        {"input": ["a"], "titles": ["t"]},
        {"input": ["a"], "options": {"x": 1}},
    ],
)
def test_leaves_whole_what_it_does_not_know(body: dict[str, Any]) -> None:
    assert asked_of({"model": "m"} | body) is None


def key(body: dict[str, Any], scope: bytes = b"s", variant: str = "") -> str:
    asked = asked_of({"model": "m", "input": "a"} | body)
    assert asked is not None
    return asked.keys(scope, variant)[0]


@pytest.mark.parametrize(
    "other",
    [{"model": "n"}, {"input": "b"}, {"input": [97]}, {"dimensions": 8}, {"truncate": "END"}, {"input": "a "}],
)
def test_what_changes_a_vector_is_in_its_key(other: dict[str, Any]) -> None:
    assert key({}) != key(other)


@pytest.mark.parametrize(
    "same", [{"input": ["a"]}, {"input": ["a", "b"]}, {"encoding_format": "base64"}, {"user": "u"}]
)
def test_what_does_not_is_not(same: dict[str, Any]) -> None:
    assert key({}) == key(same)


def test_scope_and_variant_are_in_the_key() -> None:
    assert key({}) != key({}, scope=b"t")
    assert key({}, variant=".3") == key({}) + ".3"


# -- vectors


@pytest.mark.parametrize(
    ("embedding", "floats", "as_base64"),
    [
        (packed(FULL), list(FULL), packed(FULL)),
        (list(FULL), list(FULL), packed(FULL)),
        (shortest(FULL), shortest(FULL), packed(FULL)),
        ([0.5, 1, -2.0], [0.5, 1, -2.0], None),  # may have been rounded before it was told
        ([0.1234, 0.1], [0.1234, 0.1], None),
        ([0.12345678901234, 0.1], [0.12345678901234, 0.1], None),  # doubles
        ([1e300, 0.1], [1e300, 0.1], None),
        (packed((float("nan"), 1.0)), None, packed((float("nan"), 1.0))),
    ],
)
def test_a_vector_is_said_in_the_other_encoding_only_where_that_is_exact(
    embedding: Any, floats: list[float] | None, as_base64: str | None
) -> None:
    one = vector(embedding)
    again = Vector.stored(one.body())
    assert again == one
    assert told(again, as_base64=False) == floats
    assert told(again, as_base64=True) == as_base64


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_base64_comes_back_bit_by_bit_and_its_floats_are_the_same_numbers(values: list[float]) -> None:
    text = packed(tuple(values))
    one = vector(text)
    assert told(one, as_base64=True) == text
    assert told(one, as_base64=False) == values


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5), min_size=1, max_size=20))
def test_floats_come_back_as_the_same_numbers(values: list[float]) -> None:
    one = vector(values)
    assert told(one, as_base64=False) == values
    if (said := told(one, as_base64=True)) is not None:
        singles = struct.unpack(f"<{len(values)}f", base64.b64decode(said))
        assert list(singles) == values or shortest(singles) == values


# -- answers


@pytest.mark.parametrize(
    "value",
    [
        None,
        answer([0.5]),
        answer([0.5], [0.5], [0.5]),
        answer([0.5], [0.5, 1.0]),
        answer([0.5], []),
        answer([0.5], ["x"]),
        answer([0.5], [[0.5]]),
        answer([0.5], "not base64"),
        answer([0.5], "AAA="),
        answer([0.5], [0.5], error={"message": "no"}),
        answer([0.5], [0.5], usage={"prompt_tokens": 3, "total_tokens": 4}),
        answer([0.5], [0.5], usage={"prompt_tokens": 3, "total_tokens": 3, "images": 2}),
        answer([0.5], [0.5], usage={"cost": 0}),
        answer([0.5], [0.5], data=[{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]),
        answer([0.5], [0.5], data=[{"index": 0, "embedding": [1.0]}, {"index": 2, "embedding": [1.0]}]),
        answer([0.5], [0.5], data=[{"index": i, "embedding": [1.0], "sparse": {}} for i in range(2)]),
        answer([0.5], [0.5], more="x" * 5000),
    ],
)
def test_an_unusual_answer_is_not_taken_apart(value: Any) -> None:
    assert read_answer(value, 2) is None


def test_reads_by_index_and_not_by_order() -> None:
    found = read_answer(answer([1.0], [2.0], [3.0], order=[2, 0, 1]), 3)
    assert found is not None
    assert [told(one, as_base64=False) for one in found.vectors] == [[1.0], [2.0], [3.0]]
    assert (found.tokens, found.model) == (8, "m-1")


@given(st.integers(0, 10_000), st.lists(st.integers(0, 500), min_size=1, max_size=30))
def test_tokens_are_shared_out_without_one_being_lost(tokens: int, counted: list[int]) -> None:
    usages = apportioned(tokens, counted)
    assert len(usages) == len(counted)
    exact = len(counted) == 1 or sum(counted) == tokens
    if exact or sum(counted):
        assert sum(one.fresh for one in usages) == tokens
    assert all((one.source is UsageSource.UPSTREAM) is exact for one in usages)


# -- the whole way


def entry(item_key: str, one: Vector, used: Usage, **changes: Any) -> Entry:
    made = Entry(item_key, "t", "embeddings", "m", "m-1", "whole", "x", one.body(), used, 10.0, 99.0)
    return made._replace(**changes)


def value_of(text: str) -> tuple[float, ...]:
    return (*FULL, float(len(text)), float(sum(map(ord, text)) % 1000))


@given(
    st.lists(st.text("abc", max_size=3), min_size=1, max_size=12),
    st.sets(st.text("abc", max_size=3), max_size=12),
    st.sampled_from(["float", "base64"]),
    st.sampled_from(["float", "base64"]),
)
def test_any_split_comes_back_in_order(texts: list[str], stored: set[str], stored_as: str, asked_for: str) -> None:
    def said(text: str, encoding: str) -> Any:
        return packed(value_of(text)) if encoding == "base64" else list(value_of(text))

    asked = asked_of({"model": "m", "input": texts, "encoding_format": asked_for})
    assert asked is not None
    case = Case(asked, asked.keys(b"s", ""))
    shelf = {
        item_key: entry(item_key, vector(said(text, stored_as)), Usage(fresh=len(text) + 1))
        for text, item_key in zip(asked.unique, case.keys, strict=True)
        if text in stored
    }
    case.take([shelf.get(item_key) for item_key in case.keys], not_before_s=0.0)
    sent = orjson.loads(case.to_send())
    assert sent == [text for text in dict.fromkeys(texts) if text not in stored]
    if sent:
        tokens = sum(len(text) + 1 for text in sent)
        answered = read_answer(answer(*(said(text, asked_for) for text in sent), tokens=tokens), len(sent))
        assert answered is not None
        assert case.fits(answered)
        case.fill(answered, apportioned(answered.tokens, [len(text) + 1 for text in sent]))
        body = case.answer()
        assert body is not None
        whole = orjson.loads(body)
        assert whole["model"] == "m-1" and whole["object"] == "list"
        assert whole["usage"] == dict.fromkeys(("prompt_tokens", "total_tokens"), sum(len(text) + 1 for text in texts))
    else:
        body = case.answer()
        assert body is not None
        whole = orjson.loads(body)
    assert [row["embedding"] for row in whole["data"]] == [said(text, asked_for) for text in texts]
    assert [row["index"] for row in whole["data"]] == list(range(len(texts)))
    used = case.usage()
    assert used is not None
    assert used.fresh == sum(len(text) + 1 for text in texts)


def test_only_vectors_of_one_model_and_length_stand_together() -> None:
    asked = asked_of({"model": "m", "input": ["a", "b", "c"]})
    assert asked is not None
    case = Case(asked, asked.keys(b"s", ""))
    old, new = vector([0.5, 1.0]), vector([0.5, 2.0])
    short = vector([0.5])
    case.take(
        [
            entry(case.keys[0], old, Usage(1), model_served="m-0", stored_s=1.0),
            entry(case.keys[1], new, Usage(1), stored_s=3.0),
            entry(case.keys[2], short, Usage(1), stored_s=2.0),
        ],
        not_before_s=0.0,
    )
    assert list(case.known) == [1]
    answered = read_answer(answer([0.5, 0.25], [0.5, 0.75]), 2)
    assert answered is not None
    assert case.fits(answered)
    assert not case.fits(answered._replace(model="m-2"))
    assert not case.fits(answered._replace(vectors=(short, short)))


def test_a_manifest_names_its_items() -> None:
    asked = asked_of({"model": "m", "input": ["a", "b"]})
    assert asked is not None
    for variant in ("", ".3"):
        case = Case(asked, asked.keys(b"s", variant))
        made = entry(f"{'a' * 32}{variant}.items", vector([0.5]), Usage(1), body=case.manifest())
        assert keys_in(made) == case.keys
