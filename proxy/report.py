"""The report on a ledger, in the form that was asked for. No IO but in `report_on`.

How amounts and names are shown: report_text.py. The sentence: report_sentence.py. What is read: report_read.py.
"""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from farthing.proxy.clock import Clock
from farthing.proxy.errors import ConfigFault
from farthing.proxy.figures import farthing_since, open_ledger
from farthing.proxy.ledger_aside import aside
from farthing.proxy.report_plain import csv, json, plain, plain_sums
from farthing.proxy.report_read import beside, read_report
from farthing.proxy.report_sentence import headline, notes
from farthing.proxy.report_text import CAUSE_NAMES, disarmed, dollars, label, money, rate, unformulated
from farthing.proxy.report_values import Report
from farthing.proxy.report_worth_plain import monthly_csv

__all__ = [
    "CAUSE_NAMES",
    "FORMATS",
    "csv",
    "disarmed",
    "dollars",
    "form_of",
    "headline",
    "html",
    "json",
    "label",
    "money",
    "notes",
    "plain",
    "plain_sums",
    "rate",
    "render",
    "report_on",
    "unformulated",
]

FORMATS = ("table", "json", "csv", "html")


def render(report: Report, form: str, *, width: int = 100, colour: bool = False, monthly: bool = False) -> str:
    """The report as one of FORMATS. `width`: columns, for the table.

    `monthly`: CSV's lines are months. Raises ValueError for another form.
    """
    if form == "json":
        return json(report)
    if form == "csv":
        return monthly_csv(report) if monthly else csv(report)
    if form == "html":
        return html(report)
    if form != "table":
        raise ValueError(f"{form!r} is no format; known: {', '.join(FORMATS)}")
    from rich.console import Console

    from farthing.proxy.report_table import table

    out = io.StringIO()
    Console(
        file=out, width=width, force_terminal=colour, color_system="truecolor" if colour else None, legacy_windows=False
    ).print(table(report, width))
    return out.getvalue()


def form_of(asked: str, output: Path | None) -> str:
    """The format that is meant: the one that was asked for, else the file's by its ending, else a table.

    Raises ConfigFault for another one.
    """
    endings = {".json": "json", ".csv": "csv", ".html": "html", ".htm": "html"}
    form = asked or endings.get(output.suffix.lower() if output is not None else "", "table")
    if form not in FORMATS:
        raise ConfigFault(f"--format: {form!r} is not one of {', '.join(FORMATS)}")
    return form


def report_on(
    path: Path,
    since: str,
    by: Sequence[str],
    clock: Clock,
    ways: str = "model_served",
    runs: Sequence[Path] = (),
) -> Report:
    """The report on the ledger at `path` and what lies beside it, from `since` (`7d`, `24h`, a date) until now.

    Raises ConfigFault for a span or a group that isn't known, and for a ledger that can't be read. Effects: opens the
    ledger read-only.
    """
    now_s = clock.now_s()
    try:
        since_s = farthing_since(since, now_s)
        with closing(open_ledger(path)) as conn:
            # One second more: a row written within this very second belongs to the report.
            report = replace(read_report(conn, since_s, now_s + 1, by), aside=aside(path))
            return beside(conn, report, path.parent, by, ways, runs)
    except ValueError as error:
        raise ConfigFault(str(error)) from None
    except sqlite3.Error as error:
        raise ConfigFault(f"can't read the ledger {path}: {error}") from None


def html(report: Report) -> str:
    """One self-contained page, no script, light and dark."""
    from farthing.proxy.report_page import page

    return page(report)
