"""What the ledger's thread does beside writing: older ledgers brought up to date, rows rolled up and removed."""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from farthing.proxy import ledger_upkeep
from farthing.proxy.clock import FakeClock
from farthing.proxy.figures import open_ledger, summary
from farthing.proxy.ledger import Ledger
from farthing.proxy.ledger_file import INSERT, connect
from farthing.proxy.ledger_upkeep import Upkeep
from farthing.proxy.rollup_plan import DAY_S
from farthing.proxy.rollup_tables import TABLES, marks
from tests.fakes.rows import NOW_S, plausible, row


def asked(path: Path, query: str) -> int:
    with closing(sqlite3.connect(path)) as conn:
        return int(conn.execute(query).fetchone()[0])


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it didn't come to pass"
        time.sleep(0.01)


def schema_1(path: Path, rows: int) -> None:
    """A ledger as the first version made it."""
    connect(path, whole=False)[0].close()
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        for table in TABLES:
            conn.execute(f"drop table {table}")
        conn.execute("delete from meta")
        conn.execute("insert into meta values ('schema', '1')")
        conn.execute("pragma journal_mode=delete")
        conn.execute("pragma auto_vacuum=none")
        conn.execute("vacuum")
        conn.executemany(INSERT, plausible(rows, days=20))


def test_a_ledger_of_schema_1_is_brought_up_to_date_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    schema_1(path, 500)
    with closing(open_ledger(path)) as conn:
        before = summary(conn, 0, NOW_S + 1, ("user",))
    clock = FakeClock(NOW_S)
    ledger = Ledger(path, flush_ms=5, clock=clock)
    clock.advance(61)
    until(lambda: asked(path, "select value from meta where key = 'rolled'") == 500)
    ledger.close()

    assert not list(tmp_path.glob("ledger.*-*.db"))
    assert asked(path, "select value from meta where key = 'schema'") == 3
    assert asked(path, "pragma auto_vacuum") == 2
    with closing(open_ledger(path)) as conn:
        assert summary(conn, 0, NOW_S + 1, ("user",)) == before


def test_rows_past_keeping_are_removed_once_they_are_rolled_up_and_their_space_is_freed(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger.db", FakeClock(NOW_S)
    rows = [each._replace(decisions="x" * 6000) for each in plausible(2000, days=20)]
    ledger = Ledger(path, flush_ms=5, keep_days=7, clock=clock)
    for each in rows:
        ledger.append(each)
    assert ledger.flush()
    with closing(open_ledger(path)) as conn:
        before = summary(conn, NOW_S - 15 * DAY_S, NOW_S + 1)
        pages = conn.execute("pragma page_count").fetchone()[0]
    kept = sum(each.ts >= (NOW_S // DAY_S - 7) * DAY_S for each in rows)
    clock.advance(61)
    until(lambda: asked(path, "select count(*) from requests") == kept)
    minutes = f"select count(*) from rollups where length_s = 60 and start_s < {(NOW_S // DAY_S - 7) * DAY_S}"
    until(lambda: asked(path, "pragma freelist_count") + asked(path, minutes) == 0)
    ledger.append(row(id="still", ts=NOW_S))
    assert ledger.flush()
    ledger.close()

    assert asked(path, "pragma page_count") < pages * 0.75
    with closing(open_ledger(path)) as conn:
        after = summary(conn, NOW_S - 15 * DAY_S, NOW_S + 1)
        whole = sum(each.ts >= after.since_s for each in rows)
    assert after.since_s <= before.since_s
    assert after.total.rows == whole + 1


def test_nothing_is_removed_where_rows_are_kept_for_ever(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger.db", FakeClock(NOW_S)
    ledger = Ledger(path, flush_ms=5, keep_days=0, clock=clock)
    ledger.append(row(id="old", ts=5.0))
    ledger.append(row(id="new"))
    assert ledger.flush()
    clock.advance(61)
    until(lambda: asked(path, "select count(*) from rollups where cut = ''") == 6)
    clock.advance(601)
    assert ledger.flush()
    ledger.close()
    assert asked(path, "select count(*) from requests") == 2


def test_lost_roll_ups_are_told_and_made_anew(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger.db", FakeClock(NOW_S)
    schema_1(path, 300)
    ledger = Ledger(path, flush_ms=5, clock=clock)
    clock.advance(61)
    until(lambda: asked(path, "select value from meta where key = 'rolled'") == 300)
    ledger.close()
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("drop table rollups")
    with capture_logs() as logs:
        ledger = Ledger(path, flush_ms=5, clock=clock)
        clock.advance(61)
        until(lambda: asked(path, "select value from meta where key = 'rolled'") == 300)
        ledger.close()
    assert [entry["event"] for entry in logs] == ["ledger_rollups_lost"]
    assert asked(path, "select sum(rows) from rollups where cut = '' and length_s = 86400") == 300


def test_a_lost_mark_is_told_and_the_roll_ups_are_made_anew(tmp_path: Path) -> None:
    conn, _ = connect(tmp_path / "ledger.db", whole=False)
    conn.executemany(INSERT, plausible(50))
    clock = FakeClock(NOW_S)
    upkeep = Upkeep(0, clock)
    clock.advance(61)
    assert upkeep.step(conn)
    conn.execute("delete from requests where rowid = 50")
    conn.execute(INSERT, row(id="next"))
    clock.advance(61)
    with capture_logs() as logs, closing(conn):
        assert not upkeep.step(conn)
        assert upkeep.step(conn)
        assert marks(conn).rolled == 50
        assert conn.execute("select sum(rows) from rollups where cut = '' and length_s = 60").fetchone() == (50,)
    assert [entry["event"] for entry in logs] == ["ledger_rollups_rebuilt"]


def test_upkeep_that_fails_is_told_once_and_costs_no_row(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger.db", FakeClock(NOW_S)
    ledger = Ledger(path, flush_ms=5, clock=clock)
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("create trigger t before insert on rollups begin select raise(abort, 'no'); end")
    with capture_logs() as logs:
        for n in range(3):
            ledger.append(row(id=str(n)))
            assert ledger.flush()
            clock.advance(61)
            until(lambda n=n: ledger._upkeep._roll_at_s > 61 * (n + 1))  # type: ignore[misc]
        assert ledger.healthy
        with closing(sqlite3.connect(path)) as conn:
            conn.execute("drop trigger t")
        clock.advance(61)
        until(lambda: asked(path, "select value from meta where key = 'rolled'") == 3)
        ledger.close()
    assert [entry["event"] for entry in logs] == ["ledger_upkeep_failing", "ledger_upkeep_recovered"]


def test_rows_are_written_while_what_rolls_them_up_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, clock, loaded = tmp_path / "ledger.db", FakeClock(NOW_S), threading.Event()
    monkeypatch.delitem(sys.modules, "farthing.proxy.rollup", raising=False)
    monkeypatch.setattr(ledger_upkeep, "import_module", lambda name: loaded.wait(20))
    ledger = Ledger(path, flush_ms=5, clock=clock)
    try:
        clock.advance(61)
        until(lambda: ledger._upkeep._loading is not None)
        ledger.append(row(id="a"))
        assert ledger.flush()
        assert asked(path, "select count(*) from requests") == 1
        assert not asked(path, "select count(*) from rollups")
        loaded.set()
        until(lambda: asked(path, "select value from meta where key = 'rolled'") == 1)
    finally:
        loaded.set()
        ledger.close()


def test_waiting_rows_go_before_upkeep_for_a_second_at_most(tmp_path: Path) -> None:
    conn, _ = connect(tmp_path / "ledger.db", whole=False)
    conn.executemany(INSERT, plausible(50))
    clock = FakeClock(NOW_S)
    upkeep = Upkeep(0, clock)
    clock.advance(61)
    upkeep._stepped_s = clock.tick_s() - 0.5
    with closing(conn):
        assert not upkeep.step(conn, waiting=ledger_upkeep.MANY_ROWS + 1)
        clock.advance(0.5)
        assert upkeep.step(conn, waiting=ledger_upkeep.MANY_ROWS + 1)


def test_a_ledger_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    schema_1(path, 5)
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("update meta set value = '99'")
        conn.commit()
    with capture_logs() as logs:
        Ledger(path, clock=FakeClock(NOW_S)).close()
    assert [entry["event"] for entry in logs] == ["ledger_other"]
    (aside,) = tmp_path.glob("ledger.other-*.db")
    assert asked(aside, "select count(*) from requests") == 5
