"""Roll-ups answer as the rows do: random rows, spans and groups; clocks that go back; bounds; removed rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.proxy import figures_read, rollup
from farthing.proxy.figures import GROUPS, Bucket, Figures, series, summary, top_repeated
from farthing.proxy.figures_values import CAUSES
from farthing.proxy.ledger_file import INSERT, connect
from farthing.proxy.ledger_upkeep import rebuild, remove_rows
from farthing.proxy.rollup import Roller
from farthing.proxy.rollup_plan import DAY_S
from farthing.proxy.rollup_tables import marks
from farthing.proxy.row import Row
from farthing.proxy.sketch import BINS, ERROR, LONGEST_BYTES, PACKED_BYTES, bins_of, unpack
from tests.fakes.examples import examples
from tests.fakes.rows import row

DAY0_S = 20_000.0 * DAY_S
MODELS = ("gpt-4o-mini", "claude", "llama \N{GRINNING FACE}", "m" * 300, "nul\0l", "")
TAGS = (
    "{}", "", "not json", '["a"]', '{"team":"search"}', '{"team":"docs","n":5,"deep":{"a":1}}', '{"team":""}',
    '{"team":null,"ok":true}', '{"a b":1.5,"team":"\u00e9"}', '{"team":["x","y"]}', '{"t.x":"dot","team":"(others)"}',
)  # fmt: skip
BY = [*((group,) for group in GROUPS), ("tag:team",), ("tag:n",), ("tag:never",), ("tag:a b",), ("tag:t.x",),
      ("model", "tag:team"), ("tenant", "cache", "endpoint"), ("user", "model"), ("tag:team", "tag:n")]  # fmt: skip

amounts = st.integers(-(10**13), 10**15)
tokens = st.one_of(st.none(), st.integers(0, 200_000), st.sampled_from([-5, 2**63 - 1, -(2**63)]))
times = st.one_of(st.none(), st.floats(0, 1e5), st.sampled_from([0.0, 1e-9, 3.25, 1e18]))


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """Any row that the ledger may hold, within three days; its identity holds."""
    cost, saved = draw(st.one_of(st.none(), amounts)), [draw(amounts) for _ in CAUSES]
    baseline = None if cost is None or draw(st.integers(0, 9)) == 0 else cost + sum(saved)
    near_edge = st.builds(
        lambda edge, off: edge * 300.0 + off, st.integers(0, 864), st.sampled_from([0.0, 1e-6, -1e-6])
    )
    return row(
        id=draw(st.uuids()).hex,
        ts=DAY0_S + draw(st.one_of(st.floats(0, 3 * DAY_S - 1), near_edge)),
        endpoint=draw(st.sampled_from(["chat", "embeddings", "audit", "judge"])),
        status=draw(st.sampled_from([200, 429, 500])),
        outcome=draw(st.sampled_from(["completed", "failed", "abandoned"])),
        tenant=draw(st.sampled_from(["a", "b"])),
        key_hash=draw(st.sampled_from(["", "k1", "k2", "k3"])),
        user=draw(st.sampled_from(["u1", "u2", "u3", ""])),
        tags=draw(st.sampled_from(TAGS)),
        model_requested=draw(st.sampled_from(MODELS)),
        model_served=draw(st.sampled_from(MODELS)),
        cache=draw(st.sampled_from(["hit-exact", "hit-semantic", "joined", "miss", "bypass", "new-kind"])),
        cache_reason=draw(st.sampled_from(["", "unproven", "proved"])),
        compress=draw(st.sampled_from(["", "tidy", "recode", "squeeze"])),
        modelled=draw(st.sampled_from([0, 1])),
        cost_usd=cost,
        baseline_usd=baseline,
        overhead_usd=draw(st.one_of(st.none(), amounts)),
        latency_ms=draw(st.floats(0, 1e6)),
        overhead_ms=draw(st.floats(0, 1e3)),
        ttft_ms=draw(times),
        **{name: draw(tokens) for name in ("tokens_in_original", "tokens_in_sent", "tokens_in_cached", "tokens_out")},
        **{f"saved_{cause}_usd": amount for cause, amount in zip(CAUSES, saved, strict=True)},
    )


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    made, _ = connect(tmp_path / "ledger.db", whole=False)
    with closing(made):
        yield made


def fresh() -> sqlite3.Connection:
    made, _ = connect(Path(":memory:"), whole=True)
    return made


def rolled(conn: sqlite3.Connection, most: int = 7) -> None:
    roller = Roller(conn)
    while roller.roll(most):
        pass


def asked(conn: sqlite3.Connection, since_s: float, until_s: float) -> tuple[list[Figures], list[tuple[Bucket, ...]]]:
    return (
        [summary(conn, since_s, until_s, by) for by in [(), *BY]],
        [series(conn, since_s, until_s, buckets) for buckets in (1, 3, 48)],
    )


def same(a: Any, b: Any) -> None:
    """Sums exactly, percentiles nearly."""
    assert a.sums == b.sums
    near(a.times, b.times)


def near(approximate: Any, exact: Any) -> None:
    for name, told in approximate.items():
        true = exact[name]
        assert told.count == true.count
        for p in ("p50", "p95", "p99"):
            if (value := getattr(true, p)) is not None and value < 1e14:
                assert abs(getattr(told, p) - value) <= ERROR * value + 0.0010001, name


def check_same(found: Any, exact: Any) -> None:
    for one, true in zip(found[0], exact[0], strict=True):
        assert one.total == true.total
        assert {group.key for group in one.groups} == {group.key for group in true.groups}, one.by
        near(one.times, true.times)
        for a, b in zip(one.groups, true.groups, strict=True):
            assert a.key == b.key
            same(a, b)
    for buckets, true_buckets in zip(found[1], exact[1], strict=True):
        for a, b in zip(buckets, true_buckets, strict=True):
            same(a, b)


spans = st.tuples(st.floats(-DAY_S, 3 * DAY_S), st.floats(60, 4 * DAY_S)).map(
    lambda span: (DAY0_S + span[0], DAY0_S + span[0] + span[1])
)
whole_spans = st.tuples(st.integers(-12, 800), st.integers(1, 900)).map(
    lambda span: (DAY0_S + span[0] * 300.0, DAY0_S + (span[0] + span[1]) * 300.0)
)


@settings(max_examples=examples(60), deadline=None)
@given(
    made=st.lists(rows(), max_size=60),
    part=st.integers(0, 60),
    span=st.one_of(spans, whole_spans),
    most=st.sampled_from([1, 7, 100]),
)
def test_rollups_answer_as_the_rows_do(made: Sequence[Row], part: int, span: tuple[float, float], most: int) -> None:
    """Rows come in any order of time, and only the first `part` of them are rolled up."""
    with closing(fresh()) as conn, pytest.MonkeyPatch.context() as patch:
        conn.executemany(INSERT, made[:part])
        rolled(conn, most)
        conn.executemany(INSERT, made[part:])
        patch.setattr(figures_read, "EXACT_ROWS", -1)
        found = asked(conn, *span)
        patch.undo()
        conn.execute("update meta set value = 0 where key = 'rolled'")
        exact = asked(conn, *span)
        check_same(found, exact)
        keeps_the_identity(conn)


def keeps_the_identity(conn: sqlite3.Connection) -> None:
    saved = " + ".join(f"{cause}_{part} * {10**6 if part == 'u' else 1}" for cause in CAUSES for part in "up")
    broken = conn.execute(
        f"select count(*) from rollups where baseline_u * 1000000 + baseline_p - cost_u * 1000000 - cost_p <> {saved}"
    ).fetchone()[0]
    assert broken == 0


MADE = tuple(
    row(
        id=f"{i:05d}", ts=DAY0_S + i * 97.0, user=f"u{i % 7}", tags=('{"team":"a"}', '{"team":"b"}')[i % 2],
        key_hash=f"k{i % 11}", cache=("hit-exact", "miss")[i % 3 > 0],
        cost_usd=10 * i, baseline_usd=12 * i, saved_exact_usd=2 * i,
        model_requested=f"m{i % 3}", latency_ms=float(i), tokens_out=i,
    )
    for i in range(3000)
)  # fmt: skip
END_S = DAY0_S + 3000 * 97.0


def kept_exactly(conn: sqlite3.Connection, since_s: float) -> list[Any]:
    all_of_it = [summary(conn, since_s, END_S, by) for by in [(), *BY]]
    return [[found.total, {group.key: group.sums for group in found.groups}] for found in all_of_it]


def test_rows_that_are_removed_stay_in_every_figure(conn: sqlite3.Connection) -> None:
    conn.executemany(INSERT, MADE)
    before = kept_exactly(conn, DAY0_S)
    assert remove_rows(conn, DAY0_S + 2 * DAY_S, 10_000) == 0  # nothing is rolled up yet
    rolled(conn, 500)
    count = sum(each.ts < DAY0_S + 2 * DAY_S for each in MADE)
    removed = 0
    while done := remove_rows(conn, DAY0_S + 2 * DAY_S, 300):
        assert done <= 300
        removed += done
    assert removed == count
    after = kept_exactly(conn, DAY0_S)
    known = [i for i, by in enumerate([(), *BY]) if len(by) < 2 or {*by} == {"tenant", "cache", "endpoint"}]
    for i in known:
        assert after[i] == before[i]
    # What no roll-up keeps apart is told as such, and the total is still whole.
    groups = after[[(), *BY].index(("user", "model"))][1]
    assert groups["(others)", "(others)"].rows == count
    assert sum(sums.cost for sums in groups.values()) == before[0][0].cost


def test_where_rows_are_gone_a_span_begins_with_its_hour(conn: sqlite3.Connection) -> None:
    conn.executemany(INSERT, MADE)
    rolled(conn, 500)
    while remove_rows(conn, DAY0_S + DAY_S, 500):
        pass
    found = summary(conn, DAY0_S + 3700.0, END_S, ("user",))
    assert found.since_s == DAY0_S + 3600.0
    assert found.total.rows == sum(group.sums.rows for group in found.groups)
    whole = series(conn, DAY0_S + 100.0, END_S, 7)
    assert sum(each.sums.rows for each in whole) == sum(each.ts >= DAY0_S for each in MADE)


def test_late_rows_of_removed_days_count_too(conn: sqlite3.Connection) -> None:
    conn.executemany(INSERT, MADE)
    rolled(conn, 500)
    while remove_rows(conn, DAY0_S + DAY_S, 500):
        pass
    late = row(id="late", ts=DAY0_S + 5.0, user="u9", baseline_usd=7, cost_usd=7)
    conn.execute(INSERT, late)
    for _ in range(2):
        users = {g.key: g.sums for g in summary(conn, DAY0_S, END_S, ("user",)).groups}
        assert users["u9",].rows == 1
        rolled(conn)
    assert remove_rows(conn, DAY0_S + DAY_S, 500) == 0  # the mark is on it
    conn.execute(INSERT, row(id="now", ts=END_S))
    rolled(conn)
    assert remove_rows(conn, DAY0_S + DAY_S, 500) == 1
    assert summary(conn, DAY0_S, END_S).total.rows == len(MADE) + 1


def test_beyond_the_bound_names_are_others_and_nothing_is_lost(
    conn: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "MOST_KEYS", {60: 1, 3600: 2, 86400: 3})
    conn.executemany(INSERT, MADE)
    rolled(conn, 500)
    per_line = conn.execute(
        "select max(n) from (select count(*) as n from rollups where key not in ('(others)', char(1)) "
        "group by cut, length_s, start_s)"
    ).fetchone()[0]
    assert per_line == 3
    monkeypatch.setattr(figures_read, "EXACT_ROWS", -1)
    found = summary(conn, DAY0_S, DAY0_S + 3 * DAY_S, ("user",))
    assert max(found.groups, key=lambda group: group.sums.rows).key == ("(others)",)
    assert sum(group.sums.cost for group in found.groups) == found.total.cost
    assert found.times["latency"].approximate
    # The rows that are there tell several groups apart all the same.
    pairs = summary(conn, DAY0_S, DAY0_S + 3 * DAY_S, ("model", "cache"))
    assert len(pairs.groups) == 3


def test_the_mark_is_found_again_after_rows_are_numbered_anew(conn: sqlite3.Connection) -> None:
    conn.executemany(INSERT, MADE)
    rolled(conn, 500)
    while remove_rows(conn, DAY0_S + DAY_S, 500):
        pass
    conn.execute("vacuum")
    conn.execute(INSERT, row(id="next", ts=END_S - 1))
    assert summary(conn, DAY0_S, END_S).total.rows == len(MADE) + 1
    rolled(conn)
    assert summary(conn, DAY0_S, END_S).total.rows == len(MADE) + 1
    assert marks(conn).rolled == conn.execute("select max(rowid) from requests").fetchone()[0]


def test_rollups_are_made_anew_without_those_of_removed_days(conn: sqlite3.Connection) -> None:
    conn.executemany(INSERT, MADE)
    rolled(conn, 500)
    before = summary(conn, DAY0_S, END_S)
    while remove_rows(conn, DAY0_S + DAY_S, 500):
        pass
    conn.execute("delete from requests where rowid = (select max(rowid) from requests)")  # somebody else's doing
    with pytest.raises(LookupError, match="02999"):
        rolled(conn)
    rebuild(conn)
    rolled(conn, 500)
    assert summary(conn, DAY0_S, END_S).total.rows == len(MADE) - 1
    assert before.total.rows == len(MADE)


def test_a_failing_slice_changes_nothing(conn: sqlite3.Connection) -> None:
    conn.executemany(INSERT, MADE[:100])
    roller = Roller(conn)
    conn.execute("create trigger t before insert on repeated begin select raise(fail, 'no room'); end")
    with pytest.raises(sqlite3.IntegrityError):
        roller.roll(100)
    assert conn.execute("select count(*) from rollups").fetchone()[0] == 0
    conn.execute("drop trigger t")
    assert roller.roll(100) == 100
    assert summary(conn, DAY0_S, END_S).total.rows == 100


def test_repeated_prompts_are_told_exactly_from_rows_and_at_least_from_lines(
    conn: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn.executemany(INSERT, MADE)
    exact = top_repeated(conn, DAY0_S, END_S, 5)
    best = max(range(11), key=lambda k: sum(i % 11 == k for i in range(3000)))
    of_best = [each for each in MADE if each.key_hash == f"k{best}"]
    assert exact[0]._replace(key_hash="") == (
        "", len(of_best), sum(each.cache == "hit-exact" for each in of_best), exact[0].saved_usd,
        max(each.ts for each in MADE if each.key_hash == exact[0].key_hash),
        max((each.ts, each.model_requested) for each in MADE if each.key_hash == exact[0].key_hash)[1], False,
    )  # fmt: skip
    rolled(conn, 500)
    monkeypatch.setattr(figures_read, "EXACT_ROWS", -1)
    found = top_repeated(conn, DAY0_S, END_S, 11)
    assert all(each.at_least for each in found)
    assert {each.key_hash: each[1:6] for each in found} == {
        each.key_hash: each[1:6] for each in top_repeated(plain(MADE), DAY0_S, END_S, 11)
    }


def plain(rows: Sequence[Row]) -> sqlite3.Connection:
    made = fresh()
    made.executemany(INSERT, rows)
    return made


def test_a_histogram_is_as_long_as_its_bins_however_often_it_is_added_to(conn: sqlite3.Connection) -> None:
    roller = Roller(conn)
    for number in range(40):
        made = [row(id=f"{number}-{n}", ts=DAY0_S, latency_ms=1.1 ** (n + number)) for n in range(30)]
        conn.executemany(INSERT, made)
        assert roller.roll(100) == 30
    longest, lines = conn.execute("select max(length(counts)), count(*) from rollup_times").fetchone()
    assert longest <= LONGEST_BYTES + 30 * PACKED_BYTES and lines
    query = "select counts from rollup_times where cut = '' and length_s = 60 and name = 'latency'"
    exact = np.bincount(bins_of(np.array([1.1 ** (n + i) for i in range(40) for n in range(30)])), minlength=BINS)
    assert (unpack(packed for (packed,) in conn.execute(query)) == exact).all()
