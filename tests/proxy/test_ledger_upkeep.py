"""What is done to the ledger beside writing: older ledgers brought up to date, rows rolled up and removed."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from farthing.proxy import ledger_upkeep
from farthing.proxy.clock import FakeClock
from farthing.proxy.figures import open_ledger, summary
from farthing.proxy.ledger import Ledger
from farthing.proxy.ledger_check import checked
from farthing.proxy.ledger_file import INSERT, connect, connect_beside
from farthing.proxy.ledger_keeper import Keeper
from farthing.proxy.ledger_log import pages_in
from farthing.proxy.ledger_upkeep import Upkeep
from farthing.proxy.rollup import Roller
from farthing.proxy.rollup_plan import DAY_S
from farthing.proxy.rollup_slice import Reader, Slice
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
    until(lambda: ledger._upkeep._sweep_at_s > clock.tick_s())
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


def test_rows_are_written_while_others_are_read_and_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, clock = tmp_path / "ledger.db", FakeClock(NOW_S)
    reading, go_on = threading.Event(), threading.Event()
    read = Reader.read

    def slowly(self: Reader, after: int, most_rows: int) -> Slice | None:
        found = read(self, after, most_rows)
        reading.set()
        assert go_on.wait(20)
        return found

    monkeypatch.setattr(Reader, "read", slowly)
    ledger = Ledger(path, flush_ms=5, clock=clock)
    try:
        ledger.append(row(id="a"))
        assert ledger.flush()
        clock.advance(61)
        assert reading.wait(20)
        ledger.append(row(id="b"))
        assert ledger.flush()
        assert asked(path, "select count(*) from requests") == 2
        assert not asked(path, "select count(*) from rollups")
        go_on.set()
        until(lambda: asked(path, "select value from meta where key = 'rolled'") == 1)
        clock.advance(61)
        until(lambda: asked(path, "select value from meta where key = 'rolled'") == 2)
    finally:
        go_on.set()
        ledger.close()
    assert asked(path, "select sum(rows) from rollups where cut = '' and length_s = 86400") == 2


def test_a_transaction_of_the_roll_up_is_few_statements_that_read_no_rows(tmp_path: Path) -> None:
    """Rows that are to be written wait for its end, and each statement may wait for the interpreter's lock."""
    conn, _ = connect(tmp_path / "ledger.db", whole=False)
    conn.executemany(INSERT, plausible(4_000, days=0.02))
    ran: list[str] = []
    with closing(conn):
        conn.set_trace_callback(ran.append)
        assert Roller(conn).roll(4_000) == 4_000
    within = ran[ran.index("begin immediate") + 1 : ran.index("commit")]
    words = [one.split()[0] for one in within]
    assert words.count("select") == 1 and "from requests" not in "".join(within)
    assert len(within) <= 40, words


def test_what_another_process_has_rolled_up_meanwhile_is_not_counted_twice(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    conn, _ = connect(path, whole=False)
    conn.executemany(INSERT, plausible(20, days=0.02))

    class Pen(AbstractContextManager[None]):
        """Between reading and writing another one does the same."""

        def __exit__(self, *how: object) -> None:
            pass

        def __enter__(self) -> None:
            with closing(connect_beside(path, 1.0)) as other:
                Roller(other).roll(12)

    with closing(conn):
        assert Roller(conn, Pen()).roll(20) == 0
        assert marks(conn).rolled == 12
        assert Roller(conn).roll(20) == 8
        assert checked(conn)["faults"] == []


def test_the_log_is_brought_into_the_file_by_the_upkeep_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_upkeep, "most_pages", lambda database: 10**9)  # whatever room there is here
    path, clock = tmp_path / "ledger.db", FakeClock(NOW_S)
    ledger = Ledger(path, flush_ms=5, clock=clock)
    made = path.stat().st_size
    for number in range(3_000):
        ledger.append(row(id=str(number), decisions="x" * 4_000))
    assert ledger.flush()
    assert path.stat().st_size == made, "a row that is written waits for no checkpoint"
    clock.advance(ledger_upkeep.CHECKPOINT_EVERY_S + 1)
    until(lambda: path.stat().st_size > made + 3_000 * 4_000)
    ledger.close()


def test_a_log_that_gets_long_is_brought_into_the_file_before_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "ledger.db", FakeClock(NOW_S)
    monkeypatch.setattr(ledger_upkeep, "most_pages", lambda database: 100)
    conn, _ = connect(path, whole=False)
    upkeep = Upkeep(0, clock)
    made = path.stat().st_size
    with closing(conn):
        for number in range(200):
            assert pages_in(path) < 120
            conn.execute(INSERT, row(id=str(number), decisions="x" * 4_000))
            upkeep.step(conn)
    assert path.stat().st_size > made + 100 * 4_096


def test_the_log_begins_anew_though_rows_come_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of which only the last page isn't in the file goes on getting longer."""
    path, clock, pen, ended = tmp_path / "ledger.db", FakeClock(NOW_S), threading.Lock(), threading.Event()
    log = path.with_name("ledger.db-wal")
    monkeypatch.setattr(ledger_upkeep, "most_pages", lambda database: 500)
    writer, _ = connect(path, whole=False)

    def write() -> None:
        for number in range(5_000):
            with pen:
                writer.execute(INSERT, row(id=str(number), decisions="x" * 4_000))
        ended.set()

    writing = threading.Thread(target=write)
    upkeep = Upkeep(0, clock, pen)
    with closing(writer), closing(connect_beside(path, 1.0)) as conn:
        writing.start()
        while not ended.wait(0.002):
            upkeep.step(conn)
        writing.join()
        with log.open("rb") as header:  # sqlite.org/fileformat.html#the_write_ahead_log
            begun_anew = int.from_bytes(header.read(16)[12:], "big")
    assert begun_anew >= 2


def test_a_file_that_the_upkeep_finds_damaged_is_moved_aside_by_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "ledger.db", FakeClock(NOW_S)
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    faults = [error]

    def fails_once(self: Upkeep, conn: sqlite3.Connection, waiting: int = 0) -> bool:
        if faults and waiting == 0 and asked(path, "select count(*) from requests"):
            raise faults.pop()
        return False

    monkeypatch.setattr(Upkeep, "step", fails_once)
    with capture_logs() as logs:
        ledger = Ledger(path, flush_ms=5, clock=clock)
        ledger.append(row(id="a"))
        assert ledger.flush()
        until(lambda: len(logs) == 2)
        ledger.append(row(id="b"))
        assert ledger.flush()
        assert ledger.healthy
        ledger.close()
    # The file is looked at as a whole, and stays where it is: it isn't damaged after all.
    assert [entry["event"] for entry in logs] == ["ledger_failing", "ledger_recovered"]
    assert asked(path, "select count(*) from requests") == 2


def test_no_step_begins_between_letting_go_and_opening_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to a file that was moved aside would remove the log of the one in its place."""
    path = tmp_path / "ledger.db"
    connect(path, whole=False)[0].close()
    steps: list[int] = []
    under_way, go_on = threading.Event(), threading.Event()

    def step(self: Upkeep, conn: sqlite3.Connection, waiting: int = 0) -> bool:
        under_way.set()
        assert go_on.wait(20)
        steps.append(conn.execute("select count(*) from requests").fetchone()[0])
        return False

    monkeypatch.setattr(Upkeep, "step", step)
    keeper = Keeper(path, Upkeep(0, FakeClock(NOW_S)), lambda: 0, 1.0)
    keeper.open()
    assert under_way.wait(20)
    letting_go = threading.Thread(target=keeper.let_go)
    letting_go.start()
    letting_go.join(0.05)
    assert letting_go.is_alive() and not steps
    go_on.set()
    letting_go.join()
    assert steps == [0]
    time.sleep(0.25)
    assert steps == [0]
    keeper.open()
    until(lambda: len(steps) > 1)
    keeper.close()
    assert keeper.fault() is None


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
