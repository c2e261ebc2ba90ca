"""`farthing ledger`: what is exported is what is there, faults are found, damaged files give what can be read."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner, Result

from farthing.proxy.cli import app
from farthing.proxy.clock import FakeClock
from farthing.proxy.errors import ConfigFault
from farthing.proxy.ledger import Ledger
from farthing.proxy.ledger_aside import aside as unsalvaged
from farthing.proxy.ledger_file import INSERT, connect
from farthing.proxy.report import report_on
from farthing.proxy.report_sentence import report_notes
from farthing.proxy.rollup import Roller
from farthing.proxy.row import COLUMNS, MONEY_COLUMNS, Row
from tests.fakes.rows import NOW_S, plausible, row

ROWS = [*plausible(3000, days=5), row(id="last", ts=NOW_S, user="=cmd()", cost_usd=None, baseline_usd=2**62)]


@pytest.fixture(scope="module")
def rolled_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory, which stays as it is."""
    made = tmp_path_factory.mktemp("rolled-up")
    conn, _ = connect(made / "ledger.db", whole=False)
    with closing(conn):
        conn.executemany(INSERT, ROWS)
        roller = Roller(conn)
        while roller.roll(1000):
            pass
    return made


@pytest.fixture
def state(rolled_up: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(rolled_up, tmp_path, dirs_exist_ok=True)
    return tmp_path


def notes_of(path: Path) -> list[str]:
    return report_notes(report_on(path, "30d", (), FakeClock(NOW_S + 60)))


def farthing(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["ledger", *map(str, arguments)])


def change(state: Path, sql: str) -> None:
    with closing(sqlite3.connect(state / "ledger.db")) as conn:
        conn.execute(sql)
        conn.commit()


def test_json_lines_hold_every_row_in_order_of_time(state: Path) -> None:
    assert farthing("export", "--state", state, "-o", state / "rows.jsonl").exit_code == 0
    lines = [json.loads(line) for line in (state / "rows.jsonl").read_text("utf-8").splitlines()]
    assert [Row(**line) for line in lines] == sorted(ROWS, key=lambda each: each.ts)
    assert not list(state.glob("*.part"))


def test_csv_disarms_formulas_and_keeps_every_digit(state: Path) -> None:
    assert farthing("export", "--state", state, "--format", "csv", "-o", state / "rows.csv").exit_code == 0
    with (state / "rows.csv").open(newline="", encoding="utf-8") as file:
        found = [*csv.DictReader(file)]
    assert len(found) == len(ROWS)
    assert (found[-1]["user"], found[-1]["cost_usd"], found[-1]["baseline_usd"]) == ("'=cmd()", "", str(2**62))


def test_parquet_has_types_units_and_the_same_rows(state: Path) -> None:
    assert farthing("export", "--state", state, "--format", "parquet", "-o", state / "rows.parquet").exit_code == 0
    table = parquet.read_table(state / "rows.parquet")
    assert tuple(table.column_names) == COLUMNS
    assert [Row(**each) for each in table.to_pylist()] == sorted(ROWS, key=lambda each: each.ts)
    for name in MONEY_COLUMNS:
        assert str(table.schema.field(name).type) == "int64"
        assert table.schema.field(name).metadata == {b"unit": b"1e-12 USD"}


def test_a_span_is_a_span_and_nobody_is_shown_half_a_file(state: Path) -> None:
    change(state, "update requests set ts = 1768000000 where id = 'last'")
    done = farthing("export", "--state", state, "--since", "2026-01-09", "--until", "2026-01-10")
    assert (done.exit_code, [json.loads(line)["id"] for line in done.stdout.splitlines()]) == (0, ["last"])
    for arguments in (["--format", "xml"], ["--format", "parquet"], ["--since", "soon"], ["-o", state / "no" / "x"]):
        assert isinstance(farthing("export", "--state", state, *arguments).exception, ConfigFault)
    assert farthing("export", "--state", state / "nowhere").exit_code == 3


def test_an_export_says_what_it_left_out(state: Path) -> None:
    assert "left out" not in farthing("export", "--state", state, "-o", state / "rows.jsonl").output
    change(state, "update requests set ts = 1e300 where id = 'last'")
    done = farthing("export", "--state", state, "-o", state / "rows.jsonl")
    assert (done.exit_code, f"{len(ROWS) - 1:,} rows written" in done.output) == (0, True)
    assert "1 rows left out" in done.output
    assert len((state / "rows.jsonl").read_text("utf-8").splitlines()) == len(ROWS) - 1


def test_a_sound_ledger_is_called_sound(state: Path) -> None:
    done = farthing("check", "--state", state, "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["ok"], found["rows"], found["rolled_up"]) == (0, True, len(ROWS), len(ROWS))
    assert "sound" in farthing("check", "--state", state).stdout
    assert farthing("check", "--state", state / "nowhere").exit_code == 3


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("update requests set saved_route_usd = saved_route_usd + 1 where id = 'req_000007'", "row 'req_000007'"),
        ("update rollups set cost_p = cost_p + 1 where cut = ''", "saving without a cause"),
        ("update rollups set requests = requests + 1 where cut = '' and length_s = 3600", "not the sum of its rows"),
        ("update rollups set errors = 9 where cut = '' and length_s = 86400", "not the sum of its parts"),
        ("update rollups set modelled = 9 where cut = 'user'", "by user"),
        ("update rollups set modelled = 9 where cut = 'tag:team' and key = 'docs'", "by tag:team"),
        ("delete from rollups where cut = '' and length_s = 3600", "not the sum of its rows"),
        ("delete from requests where id = 'req_000007'", "not the sum of its rows"),
        ("delete from requests where id = 'last'", "in the ledger no more"),
    ],
)  # fmt: skip
def test_what_is_broken_is_found(state: Path, sql: str, told: str) -> None:
    change(state, sql)
    done = farthing("check", "--state", state)
    assert done.exit_code == 1
    assert told in done.stdout.replace("\n", " ")


def test_a_damaged_ledger_gives_what_can_be_read(state: Path) -> None:
    path = state / "ledger.db"
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("pragma wal_checkpoint(truncate)")
    whole = bytearray(path.read_bytes())
    whole[4096 * 20 : 4096 * 60] = b"\xff" * (4096 * 40)
    path.write_bytes(whole)
    ledger = Ledger(path)
    ledger.append(row(id="new"))
    ledger.close()
    (aside,) = state.glob("ledger.corrupt-*.db")

    assert unsalvaged(path) == (aside.name,)
    assert aside.name in str(notes_of(path))
    done = farthing("salvage", aside, "--state", state, "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0
    assert found["added"] == found["read"] > len(ROWS) / 3
    assert found["added"] < len(ROWS)
    with closing(sqlite3.connect(path)) as conn:
        ids = [row_id for (row_id,) in conn.execute("select id from requests")]
    assert {*ids} <= {each.id for each in ROWS} | {"new"}
    assert len(ids) == found["added"] + 1
    assert json.loads(farthing("salvage", aside, "--state", state, "--json").stdout)["added"] == 0
    assert aside.read_bytes() == whole
    assert unsalvaged(path) == ()
    assert "damaged" not in str(notes_of(path))


def test_only_a_damaged_ledger_is_salvaged(state: Path) -> None:
    (state / "other.db").write_bytes(b"no database" * 1000)
    for file in (state / "ledger.db", state / "none.db", state / "other.db"):
        assert isinstance(farthing("salvage", file, "--state", state).exception, ConfigFault)
