"""The whole report over made ledgers: its figures are the sums of SQL, with roll-ups and without."""

from __future__ import annotations

import csv as csv_format
import io
import json as json_format
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy import figures_read
from farthing.proxy.figures_time import Stretch
from farthing.proxy.figures_values import CAUSES, Sums
from farthing.proxy.ledger_file import INSERT, connect
from farthing.proxy.ledger_upkeep import remove_rows
from farthing.proxy.report import FORMATS, render
from farthing.proxy.report_charts import ticks
from farthing.proxy.report_compare import Change
from farthing.proxy.report_read import read_report
from farthing.proxy.report_text import change_cells
from farthing.proxy.report_values import Report, peak
from farthing.proxy.rollup import Roller
from farthing.proxy.row import MONEY_COLUMNS, Row
from tests.fakes.rows import DOLLAR, NOW_S, ledger, plausible, row

DAY_S = 86_400.0
ROWS = [each._replace(key_hash=f"k{i % 40}") for i, each in enumerate(plausible(2500, days=40))]
SINCE_S = NOW_S - 10 * DAY_S


def rolled(rows: Sequence[Row]) -> sqlite3.Connection:
    conn, _ = connect(Path(":memory:"), whole=True)
    conn.executemany(INSERT, rows)
    roller = Roller(conn)
    while roller.roll(1000):
        pass
    return conn


def reported(rows: Sequence[Row], by: tuple[str, ...] = (), span_s: float = 10 * DAY_S) -> Report:
    with closing(ledger(":memory:", rows)) as conn:
        return read_report(conn, NOW_S - span_s, NOW_S, by)


def as_json(report: Report) -> Any:
    return json_format.loads(render(report, "json"))


@pytest.mark.parametrize("kind", ["rows", "rolled", "gone"])
def test_every_amount_is_sqls_own_sum(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_read, "EXACT_ROWS", -1)
    # On whole hours, so that roll-ups of removed rows begin where the span does.
    until_s = NOW_S // 3600 * 3600
    since_s = until_s - 10 * DAY_S
    with closing(ledger(":memory:", ROWS) if kind == "rows" else rolled(ROWS)) as conn:
        while kind == "gone" and remove_rows(conn, (NOW_S - 4 * DAY_S) // DAY_S * DAY_S, 1000):
            pass
        found = as_json(read_report(conn, since_s, until_s, ("model",)))

    def sums(begin_s: float, end_s: float) -> tuple[int, ...]:
        columns = ["baseline_usd", "cost_usd + overhead_usd", *(f"saved_{cause}_usd" for cause in CAUSES)]
        query = f"select count(*), {', '.join(f'coalesce(sum({each}), 0)' for each in columns)} from requests"
        with closing(ledger(":memory:", ROWS)) as plain:
            where = "where ts >= ? and ts < ? and cost_usd is not null"
            return tuple(plain.execute(f"{query} {where}", (begin_s, end_s)).fetchone())

    def told(of: dict[str, Any]) -> tuple[int, ...]:
        names = ["baseline_usd", "spent_usd", *(f"saved_{cause}_usd" for cause in CAUSES)]
        return (of["requests"] - of["unpriced"], *(int(Decimal(of[name] or 0) * DOLLAR) for name in names))

    def added(many: list[dict[str, Any]]) -> tuple[int, ...]:
        return tuple(map(sum, zip(*map(told, many), strict=True)))

    assert told(found["total"]) == sums(since_s, until_s)
    assert added(found["groups"]) == added(found["over_time"]) == told(found["total"])
    assert found["over_time"][0]["start"] == found["since"]
    assert told(found["before"]["total"]) == sums(since_s - 10 * DAY_S, since_s) == added(found["before"]["groups"])
    changed = found["before"]["changes"]["net_saving"]
    assert Decimal(changed["change"]) == Decimal(changed["now"]) - Decimal(changed["before"])
    month_s = datetime.fromisoformat(f"{found['forecast']['month']}-01T00:00:00+00:00").timestamp()
    assert int(Decimal(found["forecast"]["so_far_usd"]) * DOLLAR) == sums(month_s, until_s)[2]
    assert found["unpriced_models"] == [
        {"model": "llama-internal-70b", "requests": found["total"]["unpriced"], "cost_known_usd": "0"}
    ]


def test_peaks_are_the_busiest_hour_of_the_rows() -> None:
    rows = [
        *(row(id=f"a{i}", ts=NOW_S - 3600 * i - 100, cost_usd=DOLLAR, baseline_usd=DOLLAR) for i in range(10)),
        *(row(id=f"b{i}", ts=NOW_S - 2 * 3600 - 100) for i in range(5)),
        row(id="dear", ts=NOW_S - 3600 - 100, cost_usd=9 * DOLLAR, baseline_usd=9 * DOLLAR),
    ]
    found = reported(rows, span_s=10 * 3600.0).peaks or {}
    # From the first request on it is 9 hours and 100 seconds.
    hours = (9 * 3600 + 100) / 3600
    assert (found["requests"].value, found["requests"].mean) == (6, pytest.approx(16 / hours))
    assert (found["spent"].value, found["spent"].mean) == (10 * DOLLAR, pytest.approx(19 * DOLLAR / hours))
    assert peak([Stretch(0, 3600, Sums(requests=5))], "requests") is None
    assert peak([Stretch(0, 7200, Sums())], "requests") is None


def test_a_span_before_the_ledger_is_no_comparison() -> None:
    young = reported([row(id="a", ts=NOW_S - 12 * DAY_S), row(id="b")])
    assert young.before is None
    assert "no whole span before to compare with" in render(young, "table", width=200)
    assert as_json(young)["before"] is None
    old = reported([row(id="a", ts=NOW_S - 30 * DAY_S), row(id="b")])
    assert old.before is not None
    assert old.before.total.requests == 0
    shown = render(old, "table", width=200)
    assert "Against the 10 days before" in shown
    assert "new" in shown


def test_too_young_a_ledger_has_no_forecast_and_says_so() -> None:
    found = reported([row(id="a", ts=NOW_S - 2 * DAY_S, cost_usd=DOLLAR, baseline_usd=DOLLAR), row(id="b")])
    assert as_json(found)["forecast"]["expected_usd"] is None
    for form in ("table", "html"):
        assert "Too little data for a forecast" in render(found, form, width=200)


@pytest.mark.parametrize(
    ("change", "cells", "worse"),
    [
        (Change("a", "", "money", 1, 3 * DOLLAR, 2 * DOLLAR), ("$3.00", "$2.00", "▲ +$1.00", "+50.0%"), False),
        (Change("a", "", "money", 1, -DOLLAR, DOLLAR), ("-$1.00", "$1.00", "▼ -$2.00", "-200.0%"), True),
        (Change("a", "", "money", 1, DOLLAR, -DOLLAR), ("$1.00", "-$1.00", "▲ +$2.00", "+200.0%"), False),
        (Change("a", "", "ms", -1, 30.0, 20.0), ("30.0", "20.0", "▲ +10.0", "+50.0%"), True),
        (Change("a", "", "share", 1, 0.5, 0.52), ("50.0%", "52.0%", "▼ -2.0 points", ""), True),
        (Change("a", "", "share", 1, 0.5, 0.0), ("50.0%", "0.0%", "▲ +50.0 points", ""), False),
        (Change("a", "", "count", 0, 5, 0), ("5", "0", "▲ +5", "new"), False),
        (Change("a", "", "count", 0, 5, 5), ("5", "5", "=", ""), False),
        (Change("a", "", "count", 0, 500, 10), ("500", "10", "▲ +490", "+4,900%"), False),
        (Change("a", "", "ms", -1, None, 20.0), ("–", "20.0", "", ""), False),
        (Change("a", "", "ms", -1, 20.0, None), ("20.0", "–", "", ""), False),
    ],
)
def test_changes_read_right(change: Change, cells: tuple[str, ...], worse: bool) -> None:
    assert change_cells(change) == cells
    assert change.worse == worse


def test_what_got_worse_is_red_and_what_got_better_is_not() -> None:
    rows = [
        row(id="old", ts=NOW_S - 11 * DAY_S, cache="hit-exact", baseline_usd=DOLLAR, saved_exact_usd=DOLLAR),
        row(id="older", ts=NOW_S - 30 * DAY_S),
        row(id="new", baseline_usd=DOLLAR, cost_usd=DOLLAR),
    ]
    shown = render(reported(rows), "table", colour=True, width=120)
    (line,) = [line for line in shown.splitlines() if line.startswith("net saving") and "▼" in line]
    assert re.search(r"\x1b\[31m *▼ -\$1\.00", line)
    assert '<td class="change minus">▼ -$1.00</td>' in render(reported(rows), "html")
    back = [rows[0]._replace(ts=NOW_S - 5), rows[1], rows[2]._replace(ts=NOW_S - 11 * DAY_S)]
    assert re.search(r"\x1b\[32m *▲ \+\$1\.00", render(reported(back), "table", colour=True, width=120))


HOSTILE = '"><script>alert(1)</script><img src=x onerror=a()>\x1b[31m[red]\u202e`=1+1'


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.mark.parametrize("form", FORMATS)
def test_hostile_names_mean_nothing_in_any_part(form: str) -> None:
    """As a group's name, a model without a price and a prompt that came again, before and after."""
    unknown = dict.fromkeys(MONEY_COLUMNS)
    named: dict[str, Any] = {"model_requested": HOSTILE, "model_served": HOSTILE, "user": HOSTILE, "tenant": HOSTILE}
    rows = [
        row(id="older", ts=NOW_S - 30 * DAY_S),
        *(row(id=f"{i}", key_hash=HOSTILE, ts=NOW_S - 5 - i * 6 * DAY_S, **named, **unknown) for i in range(3)),
        row(id="known", cost_usd=DOLLAR, baseline_usd=DOLLAR),
    ]
    rows.append(rows[1]._replace(id="again"))
    shown = render(reported(rows, ("user", "model", "tenant")), form, width=400)
    if form != "csv":  # which is a file of what is there; only formulas are disarmed
        assert "\x1b" not in shown
    if form in ("table", "html"):
        assert "\u202e" not in shown
    if form == "html":
        tags = Tags()
        tags.feed(shown)
        assert not tags.seen & {"script", "img", "red"}
        assert "onerror" not in tags.attributes
        assert shown.count("&lt;script&gt;") >= 5
    if form == "table":
        assert shown.count("</script>") >= 5


@pytest.mark.parametrize("by", [(), ("model",), ("day",), ("model", "tag:team"), ("hour", "model_served")])
@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(by: tuple[str, ...], width: int) -> None:
    report = reported(ROWS, by)
    lines = render(report, "table", width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    if by == ("model",):
        (line,) = [line for line in lines if line.startswith("gpt-4o ") and "%" in line]
        assert f"{next(g for g in report.figures.groups if g.key == ('gpt-4o',)).sums.requests:,}" in line.split()


def test_csv_has_the_span_before_in_its_last_columns() -> None:
    report = reported(ROWS, ("model",))
    lines = {line["model"]: line for line in csv_format.DictReader(io.StringIO(render(report, "csv")))}
    before = {group.key[0]: group.sums for group in report.before.groups} if report.before else {}
    assert before
    for model, sums in before.items():
        assert lines[model]["before_requests"] == str(sums.requests)
    assert lines["llama-internal-70b"]["before_spent_usd"] == ""
    assert Decimal(lines["gpt-4o"]["before_spent_usd"]) * DOLLAR == before["gpt-4o"].spent


def test_the_page_has_its_charts_and_needs_nothing_from_outside() -> None:
    page = render(reported(ROWS, ("model",)), "html")
    for name in ("Spending against the baseline by day", "Savings by cause and day", "Percentiles of latency"):
        assert page.count(f'aria-label="{name}"') == 2
    assert not any(word in page for word in ("http://", "https://", "src=", "href=", "@import", "url(", "<script"))
    assert "nan" not in page.lower().replace("financ", "")


def test_a_ledger_of_one_moment_or_of_nothing_makes_every_format() -> None:
    for rows in (
        [],
        [row()],
        [row(ts=NOW_S - 0.5)],
        [row(ts=NOW_S + 5)],
        [row(ts=0.0)],
        [row(**dict.fromkeys(MONEY_COLUMNS))],
    ):
        for by in ((), ("model",), ("day",), ("week", "user")):
            for form in FORMATS:
                assert render(reported(rows, by), form)


@given(st.integers(-(10**18), 10**18).map(float), st.integers(1, 10**18).map(float))  # pico-dollars
def test_ticks_are_few_and_cover(low: float, more: float) -> None:
    if low + more <= low:
        return
    marks = ticks(low, low + more)
    assert 2 <= len(marks) <= 12
    assert marks[0] <= low
    assert marks[-1] >= low + more - abs(low + more) * 1e-9


def test_requests_of_a_clock_that_was_ahead_are_told() -> None:
    soon = [row(id="a", ts=NOW_S - 60), row(id="b", ts=NOW_S + 60)]
    ahead = [row(id="c", ts=NOW_S + 90_000), row(id="d", ts=NOW_S + 9e8)]
    assert any("2 requests dated after" in note for note in as_json(reported([*soon, *ahead]))["notes"])
    assert not any("dated after" in note for note in as_json(reported(soon))["notes"])
