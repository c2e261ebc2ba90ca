"""Rows of the replicas' log as bytes, and what replicas' sums say of each other."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.cache.convergence import compare, last
from farthing.cache.log_redis_wire import CHUNKS, Names, pack, unpack
from farthing.cache.semantic_disk import Row
from farthing.proxy.seal import Sealer

DIM = 8
ROW = Row("a scope", "key", "what is the capital of França", 4e9, np.arange(DIM, dtype=np.float32) / 8, 0.25)


@given(text=st.text(max_size=50), scope=st.text(max_size=50), worth=st.none() | st.floats(0, 1e6))
def test_a_row_comes_back_as_it_was(text: str, scope: str, worth: float | None) -> None:
    row = Row(scope, "key", text, 1e9, np.linspace(-1, 1, DIM, dtype=np.float32), worth)
    found = unpack("key", pack(row, None), DIM, None)

    assert found is not None
    assert (found.scope, found.text, found.expires_s, found.worth_usd) == (scope, text, 1e9, worth)
    assert found.vector.dtype == np.float32 and found.vector == pytest.approx(row.vector, abs=1e-3)


@pytest.mark.parametrize("seal", [None, Sealer([secrets.token_bytes(32)], secrets.token_bytes)], ids=["open", "sealed"])
def test_damaged_or_cut_anywhere_it_is_no_row(seal: Sealer | None) -> None:
    packed = pack(ROW, seal)
    for at in range(len(packed)):
        damaged = packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :]
        assert unpack("key", damaged, DIM, seal) is None
        assert unpack("key", packed[:at], DIM, seal) is None
    assert unpack("key", packed, DIM + 1, seal) is None


def test_sealed_it_shows_no_text_and_opens_only_under_its_key_and_for_its_entry() -> None:
    seal, other = (Sealer([secrets.token_bytes(32)], secrets.token_bytes) for _ in range(2))
    packed = pack(ROW, seal)

    assert b"capital" not in packed and b"scope" not in packed
    assert unpack("key", packed, DIM, seal) is not None
    assert unpack("key", packed, DIM, other) is None
    assert unpack("another key", packed, DIM, seal) is None
    assert unpack("key", packed, DIM, None) is None


def test_a_vector_that_is_no_vector_is_no_row() -> None:
    row = Row("s", "key", "t", 1e9, np.full(DIM, np.nan, np.float32))
    assert unpack("key", pack(row, None), DIM, None) is None


def test_all_names_of_a_log_are_in_one_slot_and_models_are_apart() -> None:
    names, others = Names("p", "one model"), Names("p", "another")
    every = [names.about, names.stream, names.told, *names.chunks]

    assert len(set(every)) == CHUNKS + 3
    assert len({name[name.index("{") : name.index("}")] for name in every}) == 1
    assert not set(every) & {others.about, others.stream, *others.chunks}
    assert names.chunk("key") in names.chunks


def test_replicas_are_compared_at_the_last_mark_that_both_have() -> None:
    ours = {5: (2, "a"), 9: (3, "b"), 12: (3, "c")}
    found = compare(
        ours,
        {
            "same": {9: (3, "b")},
            "differs now": {5: (2, "a"), 12: (4, "c")},
            "differed before": {5: (1, "z"), 12: (3, "c")},
            "elsewhere": {7: (3, "b")},
            "new": {},
        },
    )

    assert (found.others, found.compared, found.differing, found.seq) == (5, 3, {"differs now"}, 12)
    assert compare({}, {"x": {}}) == (1, 0, frozenset(), 0)
    assert last(ours, 2) == {9: (3, "b"), 12: (3, "c")}
