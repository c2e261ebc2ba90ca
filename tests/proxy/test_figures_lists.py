"""Lists out of the ledger: every filter alone and together, pages without a gap or a double, names, repeats, times."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest

from farthing.proxy.dashboard import told
from farthing.proxy.figures import STATUSES, series, top_repeated
from farthing.proxy.figures_lists import ANSWERS, Filter, filter_of, matching, names
from farthing.proxy.row import Row
from tests.fakes.rows import DOLLAR, NOW_S, ledger, plausible, row

SPAN = (NOW_S - 8 * 86_400, NOW_S + 1)
ROWS = plausible(600)


@pytest.fixture
def conn() -> sqlite3.Connection:
    return ledger(":memory:", ROWS)


def failed(each: Row) -> bool:
    return each.outcome == "failed" or (each.status >= 400 and each.outcome != "abandoned")


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        (Filter(model="gpt-4o"), lambda each: each.model_requested == "gpt-4o"),
        (Filter(cache="joined"), lambda each: each.cache == "joined"),
        (Filter(answer="5xx"), lambda each: each.status >= 500 and each.outcome != "abandoned"),
        (Filter(answer="abandoned"), lambda each: each.outcome == "abandoned"),
        (Filter(tag="team=search"), lambda each: '"team": "search"' in each.tags),
        (Filter(endpoint="embeddings"), lambda each: each.endpoint == "embeddings"),
        (Filter(failed=True), failed),
        (Filter(text="u7"), lambda each: each.user == "u7"),
        (Filter(text="req_000123"), lambda each: each.id == "req_000123"),
        (Filter(text="ANSWERED 503"), lambda each: "answered 503" in each.error),
        (
            Filter(model="gpt-4o", tag="team=docs"),
            lambda each: each.model_requested == "gpt-4o" and "docs" in each.tags,
        ),
    ],
    ids=lambda value: "" if callable(value) else str(value),
)
def test_a_filter_finds_what_it_says_and_nothing_else(
    conn: sqlite3.Connection, wanted: Filter, holds: Callable[[Row], bool]
) -> None:
    expected = {each.id for each in ROWS if holds(each)}

    assert {each.id for each in matching(conn, wanted, SPAN, 1000).rows} == expected
    assert 0 < len(expected) < len(ROWS)


def test_pages_join_without_a_gap_or_a_double(conn: sqlite3.Connection) -> None:
    conn.executemany(
        f"insert into requests values ({', '.join('?' * len(ROWS[0]))})", [row(id=f"same{i}") for i in range(9)]
    )
    seen: list[Row] = []
    before = None
    while before is not None or not seen:
        page = matching(conn, Filter(), SPAN, 7, before)
        seen += page.rows
        before = page.next
        assert page.looked_to_s is None

    assert [each.id for each in seen] == [each.id for each in matching(conn, Filter(), SPAN, 1000).rows]
    assert len({each.id for each in seen}) == len(ROWS) + 9


@pytest.mark.parametrize("limit", [1, 7, 1000])
@pytest.mark.parametrize(
    "wanted", [Filter(model="gpt-4o"), Filter(tag="team=nobody"), Filter(text="u7"), Filter(failed=True)], ids=str
)
def test_a_filtered_page_looks_at_so_many_rows_and_the_next_goes_on_there(
    conn: sqlite3.Connection, wanted: Filter, limit: int
) -> None:
    conn.executemany(
        f"insert into requests values ({', '.join('?' * len(ROWS[0]))})", [row(id=f"same{i}") for i in range(90)]
    )
    moments = sorted(ts for (ts,) in conn.execute("select ts from requests where ts >= ? and ts < ?", SPAN))
    seen: list[Row] = []
    pages, before = 0, None
    while before is not None or not pages:
        page = matching(conn, wanted, SPAN, limit, before, 50)
        if page.looked_to_s is not None:
            begin_s = SPAN[1] if before is None else before[0]
            looked = sum(page.looked_to_s <= ts < begin_s for ts in moments)
            assert looked <= 50 + 90
            assert len(page.rows) < limit or page.rows[-1].ts >= page.looked_to_s
            assert page.next == (page.looked_to_s, "")
        pages, seen, before = pages + 1, [*seen, *page.rows], page.next

    assert seen == [*matching(conn, wanted, SPAN, 1000, most_looked=10**6).rows]
    assert pages >= (len(ROWS) + 90) // 50 - 1


def test_an_id_is_found_by_its_index_however_far_back(conn: sqlite3.Connection) -> None:
    oldest = min(ROWS, key=lambda each: each.ts)

    found = matching(conn, Filter(text=oldest.id), (0, SPAN[1]), 9, most_looked=5)
    assert (found.rows, found.next, found.looked_to_s) == ((oldest,), None, None)
    assert matching(conn, Filter(text=oldest.id, model="nobody"), SPAN, 9, most_looked=5).rows == ()


def test_the_span_bounds_the_list(conn: sqlite3.Connection) -> None:
    span = (NOW_S - 3 * 86_400, NOW_S - 2 * 86_400)

    assert {each.id for each in matching(conn, Filter(), span, 1000).rows} == {
        each.id for each in ROWS if span[0] <= each.ts < span[1]
    }


def test_a_tag_that_was_given_twice_is_found_by_each_value() -> None:
    conn = ledger(
        ":memory:",
        [row(id="a", tags='{"team":"search|docs"}'), row(id="b", tags='{"team":"sea"}'), row(id="c", tags="x")],
    )

    found = {
        tag: [each.id for each in matching(conn, Filter(tag=f"team={tag}"), SPAN, 9).rows] for tag in ("docs", "sea")
    }
    assert found == {"docs": ["a"], "sea": ["b"]}


def test_a_hostile_filter_is_a_value(conn: sqlite3.Connection) -> None:
    hostile = "x' or 1=1 --"

    assert matching(conn, Filter(model=hostile, text=hostile, tag=f"team={hostile}", cache=hostile), SPAN, 9).rows == ()


def test_a_query_makes_a_filter() -> None:
    assert filter_of({"model": " m ", "failed": "1", "tag": "a=b", "more": "x"}) == Filter(
        model="m", failed=True, tag="a=b"
    )
    assert [filter_of({"cache": each}).cache for each in STATUSES] == [*STATUSES]
    assert [filter_of({"answer": each}).answer for each in ANSWERS] == [*ANSWERS]


def test_repeats_are_counted_with_their_hits_and_savings() -> None:
    hit = {"cache": "hit-exact", "baseline_usd": 2 * DOLLAR, "saved_exact_usd": 2 * DOLLAR, "key_hash": "k"}
    rows = [
        row(id="first", key_hash="k", ts=NOW_S - 90, baseline_usd=2 * DOLLAR, cost_usd=2 * DOLLAR),
        row(id="second", ts=NOW_S - 50, **hit),
        row(id="third", ts=NOW_S - 40, model_requested="later", **hit),
        row(id="once", key_hash="one"), row(id="no key"), row(id="no key either"),
        *(row(id=f"u{i}", key_hash="u", cache=cache, baseline_usd=None, cost_usd=None) for i, cache in
          enumerate(["miss", "hit-exact"])),
        row(id="own", key_hash="k", endpoint="judge"),
    ]  # fmt: skip
    first, second = map(told, top_repeated(ledger(":memory:", rows), *SPAN)[:2])

    assert (first["key_hash"], first["requests"], first["hits"], first["saved_usd"]) == ("k", 3, 2, "4")
    assert (first["last_s"], first["model"], first["at_least"]) == (NOW_S - 40, "later", False)
    assert (second["key_hash"], second["requests"], second["hits"]) == ("u", 2, 1)
    assert second["saved_usd"] is None


def test_savings_beyond_64_bits_add_up() -> None:
    big = {"key_hash": "k", "baseline_usd": 8 * 10**18, "saved_exact_usd": 8 * 10**18, "cache": "hit-exact"}

    assert top_repeated(ledger(":memory:", [row(id=f"{i}", **big) for i in range(5)]), *SPAN)[0].saved_usd == 4 * 10**19


def test_names_are_the_models_and_tags_that_occur(conn: sqlite3.Connection) -> None:
    conn.executemany(f"insert into requests values ({', '.join('?' * len(ROWS[0]))})", [row(id="odd", tags="no json")])
    found = names(conn, SPAN)

    assert set(found["models"]) == {each.model_requested for each in ROWS}
    assert set(found["tags"]) == {"team=search", "team=support", "team=docs", "feature=faq"}
    assert found["tags"][0] == "feature=faq"


def test_the_upstreams_time_is_a_nearest_rank_in_each_slice() -> None:
    rows = [row(id=f"{i}", ts=NOW_S - 5, upstream_ms=float(i)) for i in range(1, 101)]
    rows += [row(id="gone", ts=NOW_S - 5, upstream_ms=9e9, outcome="abandoned"), row(id="hit", ts=NOW_S - 5)]
    slices = series(ledger(":memory:", rows), NOW_S - 20, NOW_S, 2)
    empty, full = (each.times["upstream"] for each in slices)

    assert (full.count, full.p50, full.p95, full.p99) == (100, 50.0, 95.0, 99.0)
    assert (empty.count, empty.p50) == (0, None)
