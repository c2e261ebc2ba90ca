"""Sums, rates and percentiles against values worked out by hand, and against plain Python."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.proxy import figures
from farthing.proxy.figures import farthing_since, one, recent, saved_by_form, series, summary
from tests.fakes.examples import examples
from tests.fakes.rows import DOLLAR, NOW_S, ledger, plausible, row

DAY_S = 86_400.0


Opener = Callable[..., sqlite3.Connection]


@pytest.fixture
def opened() -> Iterator[Opener]:
    with ExitStack() as stack:
        yield lambda *rows: stack.enter_context(closing(ledger(":memory:", rows)))


SMALL = (
    # A miss: $0.010 asked for, tidied by $0.002, paid $0.008.
    row(id="a", cache="miss", tokens_in_original=1000, tokens_in_sent=800, tokens_in_cached=100, tokens_out=50,
        baseline_usd=10 * DOLLAR // 1000, cost_usd=8 * DOLLAR // 1000, saved_compress_usd=2 * DOLLAR // 1000,
        overhead_usd=DOLLAR // 1000, latency_ms=900.0, overhead_ms=2.0, ttft_ms=300.0, modelled=1,
        tags='{"team":"search"}', ts=NOW_S - 100),
    # An exact hit: $0.010 saved.
    row(id="b", cache="hit-exact", tokens_in_original=1000, tokens_in_sent=0, tokens_out=50, attempts=0,
        baseline_usd=10 * DOLLAR // 1000, saved_exact_usd=10 * DOLLAR // 1000, latency_ms=2.0, overhead_ms=2.0,
        tags='{"team":"search"}', ts=NOW_S - 90),
    # A semantic hit that nobody has proved: $0.004 saved.
    row(id="c", cache="hit-semantic", cache_reason="unproven", baseline_usd=4 * DOLLAR // 1000,
        saved_semantic_usd=4 * DOLLAR // 1000, latency_ms=6.0, overhead_ms=6.0, ts=NOW_S - 80),
    # A cache write's premium that never paid: it cost $0.003 more than plain.
    row(id="d", cache="miss", baseline_usd=2 * DOLLAR // 1000, cost_usd=5 * DOLLAR // 1000,
        saved_prompt_cache_usd=-3 * DOLLAR // 1000, latency_ms=700.0, overhead_ms=1.0, ts=NOW_S - 70),
    # Nobody knows this model's price.
    row(id="e", model_requested="house-70b", cache="miss", baseline_usd=None, cost_usd=None, overhead_usd=None,
        saved_exact_usd=None, saved_semantic_usd=None, saved_compress_usd=None, saved_route_usd=None,
        saved_prompt_cache_usd=None, tokens_in_original=70, tokens_in_sent=70, tokens_out=None, latency_ms=400.0,
        tags="", ts=NOW_S - 60),
    # The cost is known, what it would have cost is not.
    row(id="f", model_requested="house-70b", cache="bypass", baseline_usd=None, cost_usd=7 * DOLLAR // 1000,
        saved_exact_usd=None, status=503, outcome="failed", latency_ms=500.0, tags="not json", ts=NOW_S - 50),
    row(id="g", cache="joined", outcome="abandoned", latency_ms=1.0, ts=NOW_S - 40),
    row(id="old", cache="hit-exact", baseline_usd=DOLLAR, saved_exact_usd=DOLLAR, ts=NOW_S - 8 * DAY_S),
)  # fmt: skip


@pytest.fixture
def small(opened: Opener) -> sqlite3.Connection:
    return opened(*SMALL)


def test_the_sums_are_those_worked_out_by_hand(small: sqlite3.Connection) -> None:
    total = summary(small, NOW_S - 7 * DAY_S, NOW_S).total
    assert total.requests == 7
    assert dict(total.cache) == {"hit-exact": 1, "hit-semantic": 1, "joined": 1, "miss": 3, "bypass": 1}
    assert (total.errors, total.abandoned, total.unproven, total.modelled) == (1, 1, 1, 1)
    assert total.hit_rate_all == 3 / 7
    assert total.hit_rate_eligible == 3 / 6
    assert (total.tokens_in_original, total.tokens_in_sent, total.tokens_in_cached, total.tokens_out) == (
        2070, 870, 100, 100,
    )  # fmt: skip
    milli = DOLLAR // 1000
    assert total.unpriced == 2
    assert (total.baseline, total.cost, total.cost_unpriced, total.overhead) == (
        26 * milli, 13 * milli, 7 * milli, milli,
    )  # fmt: skip
    assert dict(total.saved) == {
        "exact": 10 * milli, "semantic": 4 * milli, "compress": 2 * milli, "route": 0, "prompt_cache": -3 * milli,
    }  # fmt: skip
    assert total.saved_total == 13 * milli == total.baseline - total.cost
    assert total.net_saving == 12 * milli == total.baseline - total.spent
    assert total.unattributed == 0


def test_the_percentiles_leave_out_who_left(small: sqlite3.Connection) -> None:
    times = summary(small, NOW_S - 7 * DAY_S, NOW_S).times
    assert (times["latency"].count, times["latency"].p50, times["latency"].p99) == (6, 400.0, 900.0)
    assert (times["latency_miss"].count, times["latency_miss"].p50) == (4, 500.0)
    assert (times["latency_hit"].count, times["latency_hit"].p50, times["latency_hit"].p95) == (2, 2.0, 6.0)
    assert (times["overhead"].count, times["overhead"].p95) == (7, 6.0)
    assert (times["ttft"].count, times["ttft"].p50) == (1, 300.0)


def test_groups_add_up_to_the_total_and_name_what_has_no_tag(small: sqlite3.Connection) -> None:
    found = summary(small, NOW_S - 7 * DAY_S, NOW_S, ["tag:team", "model"])
    assert {group.key: group.sums.requests for group in found.groups} == {
        ("search", "gpt-4o-mini"): 2, ("", "gpt-4o-mini"): 3, ("", "house-70b"): 2,
    }  # fmt: skip
    assert sum(group.sums.baseline for group in found.groups) == found.total.baseline
    assert found.groups[0].key == ("search", "gpt-4o-mini"), "the dearest first"
    assert found.groups[0].times["latency"].p95 == 900.0


def test_what_stands_in_rows_alone_is_told_from_them(opened: Opener) -> None:
    conn = opened(
        row(id="a", upstream="openai/api.example:443#1", status=200, outcome="completed", ts=NOW_S - 3),
        row(id="b", upstream="openai/api.example:443#2", status=429, outcome="failed", ts=NOW_S - 2),
        row(id="c", upstream="here", status=200, outcome="abandoned", ts=NOW_S - 1),
    )

    def told(*by: str) -> dict[tuple[str, ...], int]:
        return {group.key: group.sums.requests for group in summary(conn, NOW_S - 10, NOW_S, by).groups}

    assert told("upstream") == {("openai",): 2, ("here",): 1}
    assert told("replica") == {("openai/api.example:443#1",): 1, ("openai/api.example:443#2",): 1, ("here",): 1}
    assert told("status") == {("200",): 2, ("429",): 1}
    assert told("upstream", "outcome")["openai", "failed"] == 1


def test_an_empty_ledger_has_no_rates_and_no_percentiles(opened: Opener) -> None:
    found = summary(opened(), 0, NOW_S, ["model"])
    assert found.total.requests == 0
    assert found.total.hit_rate_all is None
    assert found.times["latency"].p50 is None
    assert found.groups == ()


def test_more_money_than_64_bits_of_picodollars(opened: Opener) -> None:
    dear = 5_000_000 * DOLLAR + 1
    conn = opened(*(row(id=str(i), baseline_usd=dear, saved_exact_usd=-7, cost_usd=dear + 7) for i in range(5)))
    total = summary(conn, 0, NOW_S).total
    assert (total.baseline, total.cost, total.saved["exact"]) == (5 * dear, 5 * dear + 35, -35)


def test_groups_beyond_the_bound_are_counted(monkeypatch: pytest.MonkeyPatch, opened: Opener) -> None:
    monkeypatch.setattr(figures, "MAX_GROUPS", 2)
    found = summary(opened(*(row(id=str(i), user=f"u{i}") for i in range(5))), 0, NOW_S, ["user"])
    assert (len(found.groups), found.left_out) == (2, 3)


@pytest.mark.parametrize("by", ["cost", "tag:", 'tag:a"b', "tag:a\\b", "model;drop table requests", ""])
def test_an_unknown_group_is_refused(by: str, opened: Opener) -> None:
    with pytest.raises(ValueError, match=r"split|tag"):
        summary(opened(), 0, NOW_S, [by])


@pytest.mark.parametrize("name", ["a.b", "a'b", "$[0]", "ünï"])
def test_a_tag_of_any_other_name_is_only_a_name(name: str, opened: Opener) -> None:
    conn = opened(row(tags=f'{{"{name}": "x"}}'))
    assert [group.key for group in summary(conn, 0, NOW_S, [f"tag:{name}"]).groups] == [("x",)]


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=120))
def test_percentiles_are_the_nearest_rank(values: list[float]) -> None:
    with closing(ledger(":memory:", (row(id=str(i), latency_ms=x) for i, x in enumerate(values)))) as conn:
        found = summary(conn, 0, NOW_S).times["latency"]
    ordered = sorted(values)
    expected = [ordered[math.ceil(len(values) * percent / 100) - 1] for percent in (50, 95, 99)]
    assert [found.p50, found.p95, found.p99] == expected


def test_a_series_cuts_the_same_total_into_slices(opened: Opener) -> None:
    rows = plausible(600)
    conn = opened(*rows)
    whole = summary(conn, NOW_S - 7 * DAY_S, NOW_S).total
    slices = series(conn, NOW_S - 7 * DAY_S, NOW_S, 29)
    assert len(slices) == 29
    for name in ("requests", "baseline", "cost", "unpriced", "tokens_out"):
        assert sum(getattr(each.sums, name) for each in slices) == getattr(whole, name)
    first = slices[0]
    assert first.sums.requests == sum(first.start_s <= each.ts < first.start_s + first.length_s for each in rows)
    assert whole.unattributed == 0


@pytest.mark.parametrize(("since_s", "buckets"), [(NOW_S, 10), (0, 0), (0, 100_000)])
def test_a_series_of_nothing_or_too_much_is_refused(since_s: float, buckets: int, opened: Opener) -> None:
    with pytest.raises(ValueError, match=r"empty|buckets"):
        series(opened(), since_s, NOW_S, buckets)


def test_the_newest_come_first_and_one_is_found_by_id(small: sqlite3.Connection) -> None:
    assert [each.id for each in recent(small, 3)] == ["g", "f", "e"]
    assert recent(small, -1) == ()
    assert one(small, "a") == SMALL[0]
    assert one(small, "nobody") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", NOW_S - 7 * DAY_S),
        (" 24h ", NOW_S - DAY_S),
        ("90m", NOW_S - 5400),
        ("2w", NOW_S - 14 * DAY_S),
        ("999999d", 0.0),
        ("2026-01-01", 1_767_225_600.0),
        ("2026-01-01T01:00:00+01:00", 1_767_225_600.0),
    ],
)
def test_since_reads_spans_and_dates(text: str, expected: float) -> None:
    assert farthing_since(text, NOW_S) == expected


@pytest.mark.parametrize(
    "text", ["", "7", "d", "0d", "-7d", "7y", "yesterday", "2026-13-01", "2999-01-01", "٧d", "1e9h"]
)
def test_since_says_what_would_do(text: str) -> None:
    with pytest.raises(ValueError, match=r"write 90m, 24h, 7d|not in the past") as raised:
        farthing_since(text, NOW_S)
    assert repr(text) in str(raised.value)


FORMS = (
    row(id="t", compress="tidy", tokens_in_original=100, tokens_in_sent=90, saved_compress_usd=1, baseline_usd=1),
    row(id="r", compress="recode", tokens_in_original=100, tokens_in_sent=40, saved_compress_usd=6, baseline_usd=6),
    row(id="s", compress="squeeze", tokens_in_original=None, tokens_in_sent=None, baseline_usd=None, cost_usd=None),
    row(id="h", cache="hit-exact", tokens_in_original=100, tokens_in_sent=0),
    # Of farthing's own: what it asked in a form saved nobody anything.
    row(id="o", endpoint="shadow", compress="recode", tokens_in_original=100, tokens_in_sent=40, overhead_usd=2),
    row(id="w", compress="recode", tokens_in_original=9, tokens_in_sent=1, ts=NOW_S - 9 * DAY_S, saved_compress_usd=7),
)  # fmt: skip


def test_tokens_that_compression_saved_are_kept_apart_from_what_caches_saved(opened: Opener) -> None:
    total = summary(opened(*FORMS), NOW_S - DAY_S, NOW_S).total
    assert (total.tokens_saved_tidy, total.tokens_saved_recode, total.tokens_saved_squeeze) == (10, 60, 0)
    bucket = series(opened(*FORMS), NOW_S - DAY_S, NOW_S, 1)[0].sums
    assert (bucket.tokens_saved_tidy, bucket.tokens_saved_recode) == (10, 60)


def test_by_compress_each_form_has_its_line_and_its_shadows(opened: Opener) -> None:
    groups = {group.key: group.sums for group in summary(opened(*FORMS), NOW_S - DAY_S, NOW_S, ("compress",)).groups}
    assert set(groups) == {("",), ("tidy",), ("recode",), ("squeeze",)}
    recoded = groups["recode",]
    assert (recoded.requests, recoded.saved["compress"], recoded.overhead) == (1, 6, 2)
    assert groups["",].requests == 1


def test_what_each_form_saved_is_unknown_where_no_price_is_known(opened: Opener) -> None:
    conn = opened(*FORMS)
    assert saved_by_form(conn, NOW_S - DAY_S, NOW_S) == {"tidy": 1, "recode": 6, "squeeze": None}
    assert saved_by_form(conn, NOW_S - 10 * DAY_S, NOW_S)["recode"] == 13
    assert saved_by_form(conn, NOW_S, NOW_S + 1) == {}
