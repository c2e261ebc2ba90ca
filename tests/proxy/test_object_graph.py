"""Objects written and read again are the same graph; and nothing that bytes name is ever run."""

from __future__ import annotations

import json
import random
import threading
from collections import OrderedDict, deque
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.cache.index_growing import GrowingIndex
from farthing.proxy.attribute import Money
from farthing.proxy.exchange import CacheStatus
from farthing.proxy.object_graph import graph_of, lines_of_graph
from farthing.proxy.replay_sums import Sums
from farthing.proxy.whole_file import write_whole


def again(value: Any, **services: Any) -> Any:
    return graph_of(lines_of_graph(value, services), services)


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary(max_size=9)
    | st.text(st.characters(), max_size=9)
)  # fmt: skip
keys = scalars | st.tuples(scalars, scalars) | st.frozensets(scalars, max_size=2)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3) | st.tuples(inner, inner)
        | st.sets(keys, max_size=3) | st.lists(inner, max_size=3).map(deque)
        | st.dictionaries(keys, inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=12,
)  # fmt: skip


def typed(value: Any) -> Any:
    """With the kinds of numbers, which Python holds equal."""
    return repr(value) if isinstance(value, int | float) else value


@given(values)
def test_plain_values_come_back_equal(value: Any) -> None:
    found = again(value)
    assert found == value and type(found) is type(value) and typed(found) == typed(value)
    if isinstance(value, OrderedDict):
        assert list(found) == list(value)


def test_what_is_shared_stays_shared_and_circles_close() -> None:
    one: list[Any] = [1]
    one.append({"again": one, "twice": (one, one)})
    found = again(one)
    assert found[1]["again"] is found and found[1]["twice"][0] is found[1]["twice"][1] is found


def test_our_own_objects_are_filled_and_not_made() -> None:
    sums = Sums()
    sums.requests = 7
    money = Money(1, 2, 3, 4, 5, 6, 7, 8)
    found = again([sums, money, CacheStatus.MISS, write_whole])
    assert found[0].requests == 7 and type(found[0]) is Sums
    assert found[1] == money and type(found[1]) is Money
    assert found[2] is CacheStatus.MISS and found[3] is write_whole


def test_chance_goes_on_where_it_was_and_a_lock_is_a_new_one() -> None:
    rng = random.Random(5)
    rng.random()
    found, lock = again((rng, threading.Lock()))
    assert [found.random() for _ in range(3)] == [rng.random() for _ in range(3)]
    assert lock.acquire(blocking=False)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.array([], np.int64),
        np.array(3),
        np.array([True]),
        np.float32(1.5),
    ],
)
def test_numbers_keep_their_kind_and_shape(array: Any) -> None:
    found = again(array)
    assert type(found) is type(array) and found.dtype == array.dtype and found.shape == array.shape
    assert (found == array).all()


def test_indexes_find_the_same() -> None:
    drawn = np.random.default_rng(1).normal(size=(60, 8)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    for grow_at in (1000, 20):  # flat, and lists
        index = GrowingIndex(8, grow_at)
        for number, vector in enumerate(drawn):
            index.add(number, vector)
        while index.tend():
            pass
        found = again(index)
        assert found.kind == index.kind
        assert [found.search(vector, 3) for vector in drawn] == [index.search(vector, 3) for vector in drawn]
    bare = faiss.IndexFlatIP(8)
    bare.add(drawn)
    assert again(bare).ntotal == 60


def test_services_are_left_out_and_put_back() -> None:
    secret = {"key": "sk-secret"}
    lines = list(lines_of_graph([secret, secret], {"config": secret}))
    assert b"sk-secret" not in b"".join(lines)
    other: dict[str, Any] = {}
    found = graph_of(lines, {"config": other})
    assert found[0] is found[1] is other


@pytest.mark.parametrize("value", [object(), lambda: None, print, json.JSONDecoder(), bytearray(b"x"), np.array([{}])])
def test_what_is_not_known_is_refused_when_it_is_written(value: Any) -> None:
    with pytest.raises(TypeError, match="can't be written"):
        list(lines_of_graph([value], {}))


HOSTILE: list[list[Any]] = [
    ["object", "os:system"],
    ["object", "builtins:object"],
    ["object", "subprocess:Popen", "args", "x"],
    ["object", "farthing.proxy.whole_file:os.system"],
    ["object", "farthing.proxy.whole_file:Path"],
    ["object", "farthing.proxy.whole_file:write_whole"],
    ["object", "farthing.proxy.exchange:CacheStatus"],
    ["object", "farthing.no_such:Thing"],
    ["function", "os:system"],
    ["function", "farthing.proxy.whole_file:os.fsync"],
    ["function", "farthing.proxy.replay_sums:Sums"],
    ["named", "farthing.proxy.replay_sums:Sums"],
    ["enum", "farthing.proxy.exchange:CacheStatus", "__class__"],
    ["enum", "farthing.proxy.exchange:CacheStatus", "mro"],
    ["array", "O", [1], "AAAAAAAAAAA="],
    ["array", "<f4", [2**40], "AAAA"],
    ["random", [7]],
    ["service", "none"],
    ["exec", "1"],
    ["dict", 1],
    ["tuple", [0]],
    [],
]


@pytest.mark.parametrize("line", HOSTILE, ids=str)
def test_what_a_stranger_wrote_runs_nothing(line: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("it was run"))
    with pytest.raises(ValueError, match="no graph"):
        graph_of([b"[0]", json.dumps(line).encode()], {})


@pytest.mark.parametrize("lines", [[], [b""], [b"[0]"], [b"{"], [b"[1]", b'["list"]'], [b"null", b"7"]])
def test_damage_is_said(lines: list[bytes]) -> None:
    with pytest.raises(ValueError, match="no graph"):
        graph_of(lines, {})
