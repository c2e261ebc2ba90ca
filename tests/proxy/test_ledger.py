"""The ledger against locks, full disks, damage and kills: no row twice, none lost unnoticed."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from farthing.proxy.clock import FakeClock
from farthing.proxy.ledger import Ledger
from farthing.proxy.ledger_aside import mark_salvaged
from farthing.proxy.row import COLUMNS, Row
from tests.fakes.rows import row

Open = Callable[..., Ledger]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    made: list[Ledger] = []

    def open_ledger(name: str = "ledger.db", **settings: Any) -> Ledger:
        ledger = Ledger(tmp_path / name, **({"flush_ms": 5, "clock": FakeClock()} | settings))
        made.append(ledger)
        return ledger

    yield open_ledger
    for ledger in made:
        ledger.close()


def stored(path: Path, query: str = "select id from requests order by rowid") -> list[Any]:
    with closing(sqlite3.connect(path)) as conn:
        return [each[0] if len(each) == 1 else each for each in conn.execute(query)]


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it didn't come to pass"
        time.sleep(0.005)


def test_a_row_comes_back_as_it_was(opened: Open, tmp_path: Path) -> None:
    ledger = opened()
    given = row(
        id="a", ttft_ms=None, similarity=0.25, cost_usd=2800, baseline_usd=None, user="Zoë 🦉", tags='{"t":"x"}'
    )

    ledger.append(given)

    assert ledger.flush()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as conn:
        conn.row_factory = sqlite3.Row
        assert [dict(each) for each in conn.execute("select * from requests")] == [given._asdict()]
        assert tuple(each["name"] for each in conn.execute("pragma table_info(requests)")) == COLUMNS
        assert conn.execute("pragma journal_mode").fetchone()[0] == "wal"
        plan = conn.execute("explain query plan select * from requests where ts >= 1 and ts < 2").fetchone()["detail"]
        assert "requests_ts" in plan
        assert conn.execute("select value from meta where key = 'schema'").fetchone()[0] == "3"
        assert conn.execute("pragma auto_vacuum").fetchone()[0] == 2


def test_rows_reach_the_disk_without_anyone_asking(opened: Open, tmp_path: Path) -> None:
    ledger = opened(flush_ms=20)
    ledger.append(row(id="a"))

    until(lambda: stored(tmp_path / "ledger.db") == ["a"], 1)


def test_columns_that_must_be_known_cannot_be_empty(opened: Open, tmp_path: Path) -> None:
    opened()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as conn:
        needed = {each[1] for each in conn.execute("pragma table_info(requests)") if each[3]}

    assert {"id", "ts", "endpoint", "status", "outcome", "latency_ms"} <= needed
    assert not needed & {"cost_usd", "similarity", "tokens_out", "ttft_ms"}


def test_order_and_number_are_kept_over_restarts(opened: Open, tmp_path: Path) -> None:
    for part in range(3):
        ledger = opened()
        for n in range(100):
            ledger.append(row(id=f"{part}-{n}"))
        ledger.close()
        ledger.close()

    assert stored(tmp_path / "ledger.db") == [f"{part}-{n}" for part in range(3) for n in range(100)]
    ledger.append(row(id="late"))
    assert ledger.dropped == 1


def test_listeners_get_every_row_once_from_the_writers_thread(opened: Open) -> None:
    seen: list[str] = []
    threads = set()

    def listen(rows: list[Row]) -> None:
        threads.add(threading.current_thread().name)
        seen.extend(each.id for each in rows)

    ledger = opened(on_rows=listen)
    for n in range(500):
        ledger.append(row(id=str(n)))
    ledger.flush()

    assert seen == [str(n) for n in range(500)]
    assert threads == {"ledger"}


def test_a_listener_that_fails_costs_no_row(opened: Open, tmp_path: Path) -> None:
    def fail(rows: list[Row]) -> None:
        raise RuntimeError("metrics are broken")

    ledger = opened(on_rows=fail)
    with capture_logs() as logs:
        ledger.append(row(id="a"))
        assert ledger.flush()

    assert stored(tmp_path / "ledger.db") == ["a"]
    assert [entry["event"] for entry in logs] == ["ledger_listener_failed"]


def test_a_locked_database_delays_rows_and_nothing_else(opened: Open, tmp_path: Path) -> None:
    seen: list[str] = []
    ledger = opened(on_rows=lambda rows: seen.extend(each.id for each in rows))
    with capture_logs() as logs, closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        for n in range(20):
            ledger.append(row(id=str(n)))
            assert ledger.flush() is False
        assert (ledger.healthy, ledger.dropped, ledger.pending) == (False, 0, 20)
        other.execute("rollback")
        until(lambda: ledger.healthy)

    assert stored(tmp_path / "ledger.db") == seen == [str(n) for n in range(20)]
    assert [entry["event"] for entry in logs] == ["ledger_failing", "ledger_recovered"]


def test_beyond_the_buffer_the_oldest_rows_are_dropped_and_counted(opened: Open, tmp_path: Path) -> None:
    seen: list[str] = []
    ledger = opened(buffer_rows=10, on_rows=lambda rows: seen.extend(each.id for each in rows))
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        for n in range(25):
            ledger.append(row(id=str(n)))
            ledger.flush()
        assert (ledger.dropped, ledger.pending) == (15, 10)
        other.execute("rollback")
        until(lambda: ledger.healthy)

    assert stored(tmp_path / "ledger.db") == [str(n) for n in range(15, 25)]
    assert seen == [str(n) for n in range(25)]


def test_more_than_may_wait_is_told_once_and_its_end_too(opened: Open) -> None:
    clock = FakeClock()
    with capture_logs() as logs:
        ledger = opened(buffer_rows=10, flush_ms=10_000, clock=clock)
        assert ledger.flush()  # the thread waits now
        for _ in range(2):
            for number in range(13):
                ledger.append(row(id=f"{number}"))
            assert ledger.flush()
        assert (ledger.healthy, ledger.dropped) == (False, 6)
        clock.advance(9)
        assert ledger.flush() and not ledger.healthy
        clock.advance(2)
        assert ledger.flush() and ledger.healthy
        ledger.close()
        ledger.append(row(id="late"))
    assert [entry["event"] for entry in logs] == ["ledger_overrun", "ledger_overrun_ended"]


def test_a_full_disk_is_told_once_and_got_over(opened: Open, tmp_path: Path) -> None:
    """SQLite's own limit on pages gives the same SQLITE_FULL as a full disk."""
    ledger = opened()
    ledger.append(row(id="before"))
    ledger.flush()
    conn = ledger._conn
    assert conn is not None
    pages = conn.execute("pragma page_count").fetchone()[0]
    with capture_logs() as logs:
        conn.execute(f"pragma max_page_count={pages}")
        for n in range(50):
            ledger.append(row(id=str(n), decisions="x" * 500))
        assert ledger.flush() is False
        assert not ledger.healthy
        until(lambda: ledger.healthy)  # a new connection has no such limit: there is room again

    assert ledger.dropped == 0
    assert stored(tmp_path / "ledger.db") == ["before", *map(str, range(50))]
    assert [entry["event"] for entry in logs] == ["ledger_failing", "ledger_recovered"]
    assert "full" in logs[0]["error"]


def test_a_place_that_cannot_be_opened_is_tried_again(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a directory should be")
    ledger = opened("state/ledger.db", buffer_rows=100)
    ledger.append(row(id="a"))
    assert ledger.flush() is False
    assert (ledger.healthy, ledger.dropped) == (False, 0)

    (tmp_path / "state").unlink()
    until(lambda: ledger.healthy)
    assert stored(tmp_path / "state" / "ledger.db") == ["a"]


def test_closing_on_a_broken_disk_ends_and_counts_what_is_lost(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    ledger = opened("state/ledger.db")
    for n in range(7):
        ledger.append(row(id=str(n)))
    begun = time.monotonic()
    ledger.close()

    assert time.monotonic() - begun < 3
    assert (ledger.dropped, ledger.pending) == (7, 0)


@pytest.mark.parametrize("damage", ["not a database at all" * 100, "header", "middle"])
def test_a_corrupt_file_is_moved_aside_and_told(opened: Open, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ledger.db"
    ledger = opened()
    for n in range(2000):
        ledger.append(row(id=str(n)))
    ledger.close()
    whole = bytearray(path.read_bytes())
    if damage == "header":
        whole[:64] = b"\0" * 64
    elif damage == "middle":
        whole[4096 * 3 : 4096 * 60] = b"\xff" * (4096 * 57)
    else:
        whole = bytearray(damage.encode())
    path.write_bytes(whole)

    with capture_logs() as logs:
        ledger = opened()
        ledger.append(row(id="new"))
        assert ledger.flush()

    assert stored(path) == ["new"]
    aside = tmp_path / f"ledger.corrupt-{1_800_000_000_000}.db"
    assert aside.read_bytes() == whole
    assert [(entry["event"], entry["log_level"], entry["moved_to"]) for entry in logs] == [
        ("ledger_corrupt", "error", str(aside))
    ]
    assert ledger.aside == (aside.name,)
    assert "salvage" in logs[0]["remedy"]
    mark_salvaged(aside)
    assert opened().aside == ()


def test_damage_while_running_is_noticed_and_the_rows_survive(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = opened()
    for n in range(2000):
        ledger.append(row(id=str(n)))
    assert ledger.flush()
    assert ledger._conn is not None
    ledger._conn.execute("pragma wal_checkpoint(truncate)")
    with path.open("r+b") as out:
        out.write(b"\xff" * path.stat().st_size)
    ledger._conn.execute("pragma shrink_memory")
    ledger.append(row(id="after"))

    until(lambda: ledger.flush() and ledger.healthy and stored(path) == ["after"])
    assert list(tmp_path.glob("ledger.corrupt-*.db"))
    assert ledger.dropped == 0


def test_another_programs_table_is_not_written_to(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("create table requests (id, something)")
        conn.execute("insert into requests values ('theirs', 1)")
        conn.commit()
    ledger = opened()
    ledger.append(row(id="ours"))
    ledger.flush()

    assert stored(path) == ["ours"]
    (aside,) = tmp_path.glob("ledger.other-*.db")
    assert stored(aside, "select * from requests") == [("theirs", 1)]


def test_a_row_that_cannot_be_stored_as_it_is_costs_no_other_row(opened: Open, tmp_path: Path) -> None:
    ledger = opened(jsonl=tmp_path / "rows.jsonl")
    bad_text, too_much = row(id="b", user="lone \ud800 surrogate"), row(id="c", cost_usd=2**63, baseline_usd=1)
    broken = row(id="d", latency_ms=float("nan"))  # SQLite keeps NaN as null, which this column forbids
    with capture_logs() as logs:
        for each in (row(id="a"), bad_text, too_much, broken, row(id="e")):
            ledger.append(each)
        assert ledger.flush()

    found = stored(tmp_path / "ledger.db", "select id, user, cost_usd from requests")
    assert found == [("a", "", 0), ("b", "lone ? surrogate", 0), ("c", "", None), ("e", "", 0)]
    assert (ledger.healthy, ledger.dropped) == (True, 1)
    assert [(entry["event"], entry["row_id"]) for entry in logs] == [("ledger_row_refused", "'d'")]
    assert len((tmp_path / "rows.jsonl").read_text("utf-8").splitlines()) == 5


def test_json_lines_hold_the_same_fields(opened: Open, tmp_path: Path) -> None:
    lines = tmp_path / "logs" / "rows.jsonl"
    ledger = opened(jsonl=lines)
    given = [row(id=str(n), cost_usd=n) for n in range(3)]
    for each in given:
        ledger.append(each)
    ledger.flush()

    found = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert found == [each._asdict() for each in given]
    assert [tuple(line) for line in found] == [COLUMNS] * 3


def test_a_torn_last_line_does_not_spoil_the_next(opened: Open, tmp_path: Path) -> None:
    lines = tmp_path / "rows.jsonl"
    lines.write_text('{"id":"tor')
    ledger = opened(jsonl=lines)
    ledger.append(row(id="a"))
    ledger.flush()

    torn, whole = lines.read_text("utf-8").splitlines()
    assert (torn, json.loads(whole)["id"]) == ('{"id":"tor', "a")


def test_json_lines_that_fail_leave_the_table_alone(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    ledger = opened(jsonl=tmp_path / "rows.jsonl")
    with capture_logs() as logs:
        for n in range(3):
            ledger.append(row(id=str(n)))
            assert ledger.flush()
        assert not ledger.healthy
        (tmp_path / "rows.jsonl").rmdir()
        ledger.append(row(id="3"))
        ledger.flush()

    assert ledger.healthy
    assert stored(tmp_path / "ledger.db") == ["0", "1", "2", "3"]
    assert [(entry["event"], entry.get("dropped")) for entry in logs] == [
        ("ledger_jsonl_failing", None),
        ("ledger_jsonl_recovered", 3),
    ]


def test_what_was_spent_outlives_a_restart(opened: Open, tmp_path: Path) -> None:
    ledger = opened()
    for each in (
        row(ts=99.0, cost_usd=1),
        row(ts=100.0, cost_usd=20),
        row(ts=101.0, cost_usd=None),
        row(ts=102.0, cost_usd=300),
        row(ts=103.0, endpoint="audit", cost_usd=0, overhead_usd=7),
        row(ts=104.0, endpoint="judge", cost_usd=0, overhead_usd=5),
        row(ts=105.0, endpoint="judge", cost_usd=0, overhead_usd=None),
    ):
        ledger.append(each)
    ledger.close()

    assert opened().spent_since(100.0) == 320
    assert [opened().spent_since(100.0, overhead_of=one) for one in ("audit", "judge", "chat")] == [7, 5, 0]
    (tmp_path / "file").write_text("")
    with capture_logs() as logs:
        assert opened("file/ledger.db").spent_since(0) == 0
    assert [entry["event"] for entry in logs] == ["ledger_failing", "ledger_unreadable"]


WRITER = """
import sys
from pathlib import Path
from farthing.proxy.ledger import Ledger
from tests.fakes.rows import row
import time
ledger = Ledger(Path(sys.argv[1]), flush_ms=50, jsonl=Path(sys.argv[1]).with_name("rows.jsonl"))
n = 0
while True:
    ledger.append(row(id=f"{n:08d}", decisions="[1]" * 50))
    print(n, time.monotonic(), flush=True)
    n += 1
    time.sleep(0.0002)
"""


@pytest.mark.parametrize("after_s", [0.15, 0.33, 0.4])
def test_a_killed_program_loses_a_tenth_of_a_second_and_tears_nothing(
    opened: Open, tmp_path: Path, after_s: float
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "ledger.db")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("0 ")
        threading.Timer(after_s, child.kill).start()
        appended = [line.split() for line in child.stdout if line.endswith("\n")]
    assert child.returncode == -signal.SIGKILL
    last_tick = float(appended[-1][1])

    ledger = opened()
    assert not list(tmp_path.glob("*corrupt*"))
    kept = stored(tmp_path / "ledger.db")
    assert kept == [f"{n:08d}" for n in range(len(kept))]  # a gapless beginning of what was appended
    assert stored(tmp_path / "ledger.db", "pragma integrity_check") == ["ok"]
    lost = [float(tick) for n, tick in appended if int(n) >= len(kept)]
    assert all(last_tick - tick < 0.1 + 0.1 for tick in lost)  # as much again for a machine that others use too
    ledger.append(row(id="next"))
    ledger.flush()
    assert stored(tmp_path / "ledger.db")[-1] == "next"


def test_appending_costs_microseconds_even_while_the_database_is_locked(opened: Open, tmp_path: Path) -> None:
    ledger = opened(flush_ms=50)
    each = row()
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        begun = time.thread_time()
        for _ in range(5000):
            ledger.append(each)
        took_s = time.thread_time() - begun

    assert took_s / 5000 < 10e-6
