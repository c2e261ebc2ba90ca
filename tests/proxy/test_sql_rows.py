"""Many rows in few steps: all of them, in their order, and so that no more statements run than are said."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy.ledger_file import INSERTS, connect
from farthing.proxy.rollup import Roller
from farthing.proxy.rollup_slice import _SELECT, Reader
from farthing.proxy.sql_rows import Rows
from tests.fakes.rows import NOW_S, plausible, row

MOST_STEPS = 128


@pytest.fixture
def conn() -> Iterator[sqlite3.Connection]:
    with closing(connect(Path(":memory:"), whole=False)[0]) as made:
        yield made


@given(st.integers(0, 700))
def test_all_are_there_in_their_order_after_few_statements(count: int) -> None:
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("create table t (a, b)")
        ran: list[str] = []
        conn.set_trace_callback(ran.append)
        Rows("insert into t", 2).put(conn, ((number, f"{number}") for number in range(count)))
        conn.set_trace_callback(None)
        assert conn.execute("select * from t order by rowid").fetchall() == [(n, f"{n}") for n in range(count)]
    assert sum(one.startswith("insert") for one in ran) <= count // 128 + 7


def test_what_is_put_twice_is_added_within_one_statement() -> None:
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("create table t (a primary key, n)")
        Rows("insert into t", 2, "on conflict do update set n = n + excluded.n").put(conn, [("a", 1), ("b", 2)] * 100)
        assert conn.execute("select * from t").fetchall() == [("a", 100), ("b", 200)]


def test_rows_are_written_and_rolled_up_in_few_steps(conn: sqlite3.Connection) -> None:
    """With a step for each row, requests that kept the interpreter busy kept rows waiting until they were dropped."""
    ran: list[str] = []
    conn.set_trace_callback(ran.append)
    INSERTS.put(conn, [row(id=f"{number}", ts=NOW_S, key_hash="same") for number in range(4000)])
    assert len(ran) < 60
    ran.clear()
    assert Roller(conn).roll(4000) == 4000
    assert len(ran) < MOST_STEPS * 2, len(ran)


# SQLite writes a float with all its digits, but for the last one of those near the ends of what a float can be.
numbers = st.floats(1e-9, 1e15) | st.sampled_from([0.0, -1.5])
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.tuples(numbers, numbers | st.none(), words, st.integers(-(2**63), 2**63 - 1)), max_size=8))
def test_all_rows_in_one_value_are_the_rows(told: list[tuple[float, float | None, str, int]]) -> None:
    with closing(connect(Path(":memory:"), whole=False)[0]) as conn:
        INSERTS.put(
            conn,
            [
                row(id=f"{number}", ts=ts, ttft_ms=ttft_ms, user=user, cost_usd=cost)
                for number, (ts, ttft_ms, user, cost) in enumerate(told)
            ],
        )
        read = Reader(conn)._columns(0, 100)
        rows = conn.execute(_SELECT, (0, 100)).fetchall()
    assert (read is None) == (not rows)
    if read is not None:
        last, columns = read
        assert last == rows[-1][0]
        assert [repr(each) for each in zip(*columns.values(), strict=True)] == [repr(each[1:]) for each in rows]


@pytest.mark.parametrize("damage", ["user = x'00ff'", "tokens_out = 9e999"])
def test_what_json_cannot_hold_is_read_row_by_row(conn: sqlite3.Connection, damage: str) -> None:
    INSERTS.put(conn, plausible(20, days=1))
    conn.execute(f"update requests set {damage} where rowid = 3")
    read = Reader(conn)._columns(0, 100)
    rows = conn.execute(_SELECT, (0, 100)).fetchall()
    assert read is not None and read[0] == rows[-1][0]
    assert [*zip(*read[1].values(), strict=True)] == [each[1:] for each in rows]
    assert Roller(conn).roll(100) == 20
