"""`farthing report` as a process, over a ledger with roll-ups whose oldest rows are gone."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from farthing.proxy.ledger_file import INSERT, connect
from farthing.proxy.ledger_upkeep import remove_rows
from farthing.proxy.rollup import Roller
from tests.fakes.commands import farthing
from tests.fakes.rows import DOLLAR, plausible, row

DAY_S = 86_400.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a state of its own: 45 days of traffic, the rows of the last 20 of them."""
    made = tmp_path_factory.mktemp("home")
    (made / ".farthing").mkdir()
    now_s = time.time()
    formula = row(id="formula", user="=cmd()", ts=now_s - 60, cost_usd=DOLLAR, baseline_usd=DOLLAR)
    conn, _ = connect(made / ".farthing" / "ledger.db", whole=False)
    with closing(conn):
        conn.executemany(INSERT, [*plausible(4000, days=45, now_s=now_s - 1), formula])
        roller = Roller(conn)
        while roller.roll(1000):
            pass
        while remove_rows(conn, (now_s - 20 * DAY_S) // DAY_S * DAY_S, 1000):
            pass
    return made


def test_the_table_tells_the_whole_story(home: Path) -> None:
    ended = farthing("report", "--since", "10d", "--by", "model", cwd=home)
    assert (ended.returncode, ended.stderr) == (0, "")
    for said in (
        "You spent $", "of the saving came from the exact cache", "Against the 10 days before", "net saving",
        "Peak hour against the average hour", "By the end of the month", "Without a price", "llama-internal-70b",
        "farthing's own overhead", "By model",
    ):  # fmt: skip
        assert said in " ".join(ended.stdout.split())
    assert max(map(len, ended.stdout.splitlines())) <= 110


def test_all_formats_agree_and_a_files_ending_is_enough(home: Path) -> None:
    for name in ("out.json", "out.csv", "out.html", "out.txt"):
        ended = farthing("report", "--since", "2020-01-01", "--by", "week", "-o", name, cwd=home)
        assert (ended.returncode, ended.stdout) == (0, "")
        assert f"written to {name}" in ended.stderr
    found = json.loads((home / "out.json").read_text("utf-8"))
    assert found["total"]["requests"] == 4001
    with (home / "out.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    for name in ("spent_usd", "baseline_usd", "net_saving_usd"):
        assert sum(Decimal(line[name] or 0) for line in lines) == Decimal(found["total"][name])
    assert len(lines) == len(found["groups"]) >= 7
    first = found["headline"].partition(". ")[0]
    assert first in (home / "out.html").read_text("utf-8")
    assert first in " ".join((home / "out.txt").read_text("utf-8").split())
    assert "\x1b" not in (home / "out.txt").read_text("utf-8")


def test_a_formula_in_a_users_name_runs_in_no_spreadsheet(home: Path) -> None:
    ended = farthing("report", "--since", "1d", "--by", "user", "--format", "csv", cwd=home)
    assert "'=cmd()" in ended.stdout
    assert ",=cmd()" not in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--format", "pdf"], 2, "not one of table, json, csv, html"),
        (["--by", "cost"], 2, "can't split by 'cost'; known: model, model_served"),
        (["--by", "hour,day"], 2, "split by one unit of time"),
        (["--by", "hour", "--since", "90d"], 2, "hours are too many"),
        (["--since", "soon"], 2, "no span of time"),
        (["-o", "missing/out.html"], 2, "can't write missing/out.html"),
        (["--state", "nowhere"], 3, "there is no ledger at nowhere"),
    ],
)
def test_what_can_not_be_done_is_said(home: Path, arguments: list[str], status: int, said: str) -> None:
    ended = farthing("report", *arguments, cwd=home, COLUMNS="200")
    assert (ended.returncode, ended.stdout) == (status, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("report",), ("ledger", "export", "--format", "jsonl", "--since", "60d"), ("--help",),
        *(pytest.param(words, marks=pytest.mark.long) for words in (
            ("report", "--format", "json"), ("report", "--format", "csv"), ("prices", "show", "gpt-4o"),
            ("prices", "check"), ("ledger", "check"),
        )),
    ],
)  # fmt: skip
def test_who_stops_reading_gets_no_traceback(home: Path, words: tuple[str, ...]) -> None:
    """As `farthing ... | head -1`: here nobody reads from the first byte on."""
    reads, writes = os.pipe()
    os.close(reads)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "farthing.proxy.cli", *words],
            stdout=writes,
            stderr=subprocess.PIPE,
            text=True,
            cwd=home,
            timeout=120,
            check=False,
        )
    finally:
        os.close(writes)
    assert (ended.returncode, ended.stderr) == (141, "")
