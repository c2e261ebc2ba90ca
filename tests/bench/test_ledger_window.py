"""How long a row waits: every row has its age, and a writer that is held up shows."""

from __future__ import annotations

import argparse
import sqlite3
import time
from pathlib import Path

import pytest

from bench import ledger_window
from farthing.proxy.ledger import Ledger
from farthing.proxy.row import Row

GIVEN = argparse.Namespace(seconds=0.5, rows=200.0, busy=0.5)


def test_each_row_has_an_age(tmp_path: Path) -> None:
    ages_s = ledger_window.run(tmp_path / "ledger.db", GIVEN)
    assert len(ages_s) == 100
    assert min(ages_s) > 0
    assert max(ages_s) < 5


def test_a_writer_that_is_held_up_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    insert, held_up = Ledger._insert, []

    def slowly(self: Ledger, conn: sqlite3.Connection, rows: list[Row]) -> None:
        if not held_up:
            held_up.append(time.sleep(0.3))
        insert(self, conn, rows)

    monkeypatch.setattr(Ledger, "_insert", slowly)
    assert max(ledger_window.run(tmp_path / "ledger.db", GIVEN)) > 0.3


def test_both_parts_have_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert ledger_window.main(["--seconds", "0.2", "--rows", "100"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "20" in line.split()]
    assert [line[1] for line in lines] == ["idle", "busy"]
