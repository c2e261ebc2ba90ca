"""What a slice of rows adds is what SQLite makes of them by the measures' own SQL, whatever stands in the rows."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.proxy.figures_sql import LATENCIES, MEASURES
from farthing.proxy.figures_values import CAUSES
from farthing.proxy.ledger_file import INSERT, connect
from farthing.proxy.rollup_slice import Reader
from farthing.proxy.row import MONEY_COLUMNS, Row
from farthing.proxy.sketch import bins_of
from tests.fakes.examples import examples
from tests.fakes.rows import row

AT_S = 1_800_000_000.0
amounts = st.one_of(
    st.none(), st.integers(-(10**12), 10**12), st.sampled_from([-(2**63), 2**63 - 1, -1, 999_999, -1_000_000])
)
tokens = st.one_of(st.none(), st.integers(0, 10**6), st.sampled_from([10**10, 10**10 + 1, -(10**10), 2**63 - 1, -5]))
times = st.one_of(st.none(), st.floats(0, 1e5))


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """Any row, whether or not its money adds up: amounts may be unknown one by one."""
    return row(
        id=draw(st.uuids()).hex,
        ts=AT_S + draw(st.integers(-1, 1)) * 3600.0 + draw(st.floats(0, 200)),
        endpoint=draw(st.sampled_from(["chat", "audit"])),
        status=draw(st.sampled_from([200, 400, 503])),
        outcome=draw(st.sampled_from(["completed", "failed", "abandoned"])),
        key_hash=draw(st.sampled_from(["", "k1", "k2"])),
        model_requested=draw(st.sampled_from(["a", "b"])),
        cache=draw(st.sampled_from(["hit-exact", "hit-semantic", "joined", "miss", "bypass"])),
        cache_reason=draw(st.sampled_from(["", "UNPROVEN by far", "proved"])),
        compress=draw(st.sampled_from(["", "tidy", "recode", "squeeze"])),
        modelled=draw(st.integers(0, 2)),
        latency_ms=draw(st.floats(0, 1e5)),
        **{name: draw(times) for name in ("ttft_ms", "upstream_ms")},
        **{name: draw(tokens) for name in ("tokens_in_original", "tokens_in_sent", "tokens_in_cached", "tokens_out")},
        **{name: draw(amounts) for name in MONEY_COLUMNS},
    )


def ledger(made: list[Row]) -> sqlite3.Connection:
    conn, _ = connect(Path(":memory:"), whole=False)
    conn.executemany(INSERT, made)
    return conn


@settings(max_examples=examples(150), deadline=None)
@given(made=st.lists(rows(), min_size=1, max_size=25), after=st.integers(0, 24), most=st.integers(1, 25))
def test_a_slice_holds_what_sqlite_makes_of_its_rows(made: list[Row], after: int, most: int) -> None:
    with closing(ledger(made)) as conn:
        slice = Reader(conn).read(after, most)
        within = f"from (select * from requests where rowid > {after} order by rowid limit {most})"
        each = [f"coalesce({sql}, 0)" for sql in MEASURES.values()]
        if slice is None:
            assert after >= len(made)
            return
        assert slice.rows == len(made[after : after + most])
        assert slice.last == (after + slice.rows, made[after + slice.rows - 1].id)
        exact = np.array(conn.execute(f"select {', '.join(each)} {within}").fetchall(), dtype=np.int64).sum(axis=0)
        assert dict(zip(MEASURES, slice.measures.sum(axis=0).tolist(), strict=True)) == dict(
            zip(MEASURES, exact.tolist(), strict=True)
        )
        for (column, condition), (_, bins, counts) in zip(LATENCIES.values(), slice.bins, strict=True):
            found = conn.execute(f"select {column} {within} where {condition} and {column} is not null").fetchall()
            told: Counter[int] = Counter()
            for bin, count in zip(bins.tolist(), counts.tolist(), strict=True):
                told[bin] += count
            assert told == Counter(bins_of(np.array([ms for (ms,) in found], dtype=np.float64)).tolist())
        hits = " + ".join(f"({MEASURES[name]})" for name in ("is_hit_exact", "is_hit_semantic", "is_joined"))
        parts = (" + ".join(f"coalesce({MEASURES[f'{cause}_{half}']}, 0)" for cause in CAUSES) for half in "up")
        saved = ", ".join(f"sum({sql})" for sql in parts)
        query = f"""
            select cast(ts / 3600 as integer) * 3600, key_hash, count(*), sum({hits}), {saved}, max(ts)
                   {within} where key_hash <> '' and {MEASURES["requests"]} group by 1, 2"""
        assert sorted(coming[:7] for coming in slice.comings) == sorted(conn.execute(query).fetchall())
        for coming in slice.comings:
            assert (
                coming.model
                == max(
                    (one.ts, one.model_requested)
                    for one in made[after : after + most]
                    if (one.ts // 3600 * 3600, one.key_hash) == coming[:2] and one.endpoint == "chat"
                )[1]
            )


@pytest.mark.parametrize(("value", "counts"), [("a damaged text", 0), (b"\xff", 0), (7.5, 7), ("7", 7)])
def test_what_is_no_integer_in_a_damaged_file_stops_no_roll_up(value: Any, counts: int) -> None:
    with closing(ledger([row(id="a", cost_usd=1, baseline_usd=1), row(id="b", tokens_out=None)])) as conn:
        conn.execute("update requests set tokens_out = ?, cost_usd = ?, baseline_usd = ? where id = 'a'", (value,) * 3)
        slice = Reader(conn).read(0, 10)
        assert slice is not None
        found = dict(zip(MEASURES, slice.measures.sum(axis=0).tolist(), strict=True))
        assert (found["rows"], found["tokens_out"], found["cost_p"]) == (2, counts, counts)
