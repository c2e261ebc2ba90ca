"""Rows and lines that stand out, and none where all are alike."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.compress.outliers import error_lines, extremes, make_of, odd_lines, odd_rows
from farthing.compress.units import Scalar

ROWS: list[dict[str, Scalar]] = [{"host": f"h{i}", "load": 0.5 + i % 7 / 10, "state": "ok"} for i in range(60)]


@pytest.mark.parametrize(
    "change", [{"state": "down"}, {"load": 41.7}, {"note": "drained"}, {"load": 10**400}, {"load": float("-inf")}]
)
def test_an_odd_row_is_found(change: dict[str, Any]) -> None:
    rows = [*ROWS]
    rows[33] = {**rows[33], **change}

    assert [i for i, _ in odd_rows(rows)] == [33]


def test_rows_alike_have_no_odd_one() -> None:
    assert odd_rows(ROWS) == []


def test_extremes_of_numbers_and_dates() -> None:
    rows: list[dict[str, Scalar]] = [{"n": (i * 37) % 50, "day": f"2026-01-{(i * 11) % 28 + 1:02d}"} for i in range(25)]

    numbers, days = extremes(rows)
    assert (numbers.column, numbers.dated, days.column, days.dated) == ("n", False, "day", True)
    assert [rows[i]["n"] for i in numbers.rows] == [0, 48]
    assert [rows[i]["day"] for i in days.rows] == ["2026-01-01", "2026-01-28"]


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3))


@given(st.lists(st.dictionaries(st.sampled_from("abc"), SCALARS, max_size=3), max_size=20))
def test_any_values_can_be_looked_at(rows: list[dict[str, Scalar]]) -> None:
    assert all(0 <= i < len(rows) for i, _ in odd_rows(rows))
    assert all(0 <= i < len(rows) for one in extremes(rows) for i in one.rows)


@pytest.mark.parametrize(
    "line, gravity",
    [
        ("10:00 ERROR TLS handshake failed", 1),
        ("panic: runtime error: index out of range", 2),
        ("FATAL out of disk", 2),
        ("KeyError: 'x'", 1),
        ("Exception in thread main java.lang.NullPointerException", 1),
        ("src/a.c:3:9: error: no such thing", 1),
        ("INFO all fine, no errors", 0),
        ("GET /error/page 200", 0),
    ],
)
def test_errors(line: str, gravity: int) -> None:
    assert [found for _, found in error_lines([line])] == [gravity] * (gravity > 0)


def test_a_line_of_a_rare_make_and_a_number_far_off() -> None:
    lines = [f"job {i:08x} finished in {40 + i % 9} ms" for i in range(200)]
    lines[50] = "job 0000abcd finished in 9321 ms"
    lines[90] = "leader changed to node 4"

    assert [i for i, _ in odd_lines([make_of(line) for line in lines], lines)] == [50, 90]
