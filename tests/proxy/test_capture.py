"""The capture store: what is kept and what never is, erasure for good, and disks that fail."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from farthing.proxy.capture import Capture
from farthing.proxy.capture_admin import selection_of
from farthing.proxy.capture_file import Selection, lines
from farthing.proxy.capture_record import Captured, Said, is_chosen, line_of
from farthing.proxy.clock import FakeClock, SystemClock
from farthing.proxy.config_capture import Capture as Settings
from farthing.proxy.config_capture import OwnPattern
from farthing.proxy.errors import ClientFault
from farthing.proxy.redact import KINDS, Redactor
from farthing.proxy.row import Row
from tests.fakes.rows import NOW_S, row

Open = Callable[..., Capture]
ANSWER = b'{"id":"c1","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}'


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_S)


@pytest.fixture
def opened(tmp_path: Path, clock: FakeClock) -> Iterator[Open]:
    made: list[Capture] = []

    def open_capture(name: str = "capture.db", waiting_bytes: int = 2**26, **settings: Any) -> Capture:
        chosen = Settings(enabled=True, **settings)
        capture = Capture(tmp_path / name, chosen, b"s" * 32, clock, waiting_bytes=waiting_bytes)
        made.append(capture)
        return capture

    yield open_capture
    for capture in made:
        capture.close()


def said(text: str = "hello", answer: bytes | None = ANSWER, **more: Any) -> Said:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]} | more
    return Said("/v1/chat/completions", json.dumps(body).encode(), answer)


def kept(path: Path, since_s: float = 0.0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(path, since_s)]


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it didn't come to pass"
        time.sleep(0.01)


def on_disk(folder: Path, word: bytes) -> list[str]:
    return [found.name for found in folder.iterdir() if found.is_file() and word in found.read_bytes()]


# -- what is kept


def test_a_line_is_what_replay_reads(opened: Open, tmp_path: Path) -> None:
    capture = opened()
    given = row(id="a", user="u1", tags='{"team":"x"}', stream=1, cost_usd=5)
    capture.append(said("hi there", n=1.0), given)

    assert capture.flush()
    assert kept(tmp_path / "capture.db") == [
        {
            "id": "a", "ts": given.ts, "tenant": "t", "user": "u1", "tags": {"team": "x"}, "endpoint": "chat",
            "path": "/v1/chat/completions", "stream": True,
            "request": {"model": "m", "messages": [{"role": "user", "content": "hi there"}], "n": 1.0},
            "response": json.loads(ANSWER), "status": 200, "row": given._asdict(),
        }
    ]  # fmt: skip
    assert (capture.written, capture.dropped, capture.waiting) == (1, 0, 0)


def test_nothing_reaches_the_disk_unredacted(opened: Open, tmp_path: Path) -> None:
    capture = opened(patterns=(OwnPattern(name="staff", pattern="EMP-[0-9]{5}"),))
    capture.append(said("I am ada@example.com, EMP-12345", b'{"text":"mail ada@example.com"}'), row(id="a"))
    assert capture.flush()

    assert on_disk(tmp_path, b"ada@example.com") == on_disk(tmp_path, b"EMP-12345") == []
    (line,) = kept(tmp_path / "capture.db")
    mark = line["response"]["text"].removeprefix("mail ")
    assert line["request"]["messages"][0]["content"].startswith(f"I am {mark}, [staff-")
    assert capture.redactions == {"email": 2, "staff": 1}


def test_what_cannot_be_redacted_is_not_kept(opened: Open, tmp_path: Path) -> None:
    capture = opened()
    capture.append(said("x" * 4_000_001), row(id="a"))
    capture.append(Said("/v1/chat/completions", b'{"a":1,"a":2}', None), row(id="b"))
    capture.append(said("fine"), row(id="c"))
    capture.flush()

    assert [line["id"] for line in kept(tmp_path / "capture.db")] == ["c"]
    assert capture.dropped == 2
    assert capture.healthy


def sse(*pieces: str) -> bytes:
    chunks = [{"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    made = [{"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"} | chunk for chunk in chunks]
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in made) + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("answer", "content"),
    [(sse("he", "llo"), "hello"), (sse("he")[:-20], None), (None, None), (b"", None), (b"<html>", None), (b"{", None)],
)
def test_streams_are_kept_whole_and_what_broke_off_is_not_there(answer: bytes | None, content: str | None) -> None:
    line = line_of(Captured(said(answer=answer), row()), 1.0, Redactor(KINDS, (), b"s", SystemClock()))

    assert line is not None
    response = json.loads(line.text)["response"]
    assert (response and response["choices"][0]["message"]["content"]) == content


@pytest.mark.parametrize(
    ("body", "ledgers", "user"),
    [
        ({"user": "u1"}, "", "u1"),
        ({"user": "u1"}, "u2", "u2"),
        ({"safety_identifier": "u1"}, "", "u1"),
        ({"metadata": {"user_id": "u1"}}, "", "u1"),
        ({"metadata": ["u1"], "user": 5}, "", ""),
    ],
)
def test_whom_a_request_is_of(body: dict[str, Any], ledgers: str, user: str) -> None:
    line = line_of(Captured(said(**body), row(user=ledgers)), 1.0, Redactor(KINDS, (), b"s", SystemClock()))

    assert line is not None and line.user == user


def test_the_share_is_one_of_conversations() -> None:
    def talk(n: int, turns: int) -> dict[str, Any]:
        more = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "and then?"}] * turns
        return {
            "model": "m",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": f"{n}"}, *more],
        }

    chosen = [n for n in range(2000) if is_chosen("t", talk(n, 0), 0.2)]

    assert 320 < len(chosen) < 480
    assert chosen == [n for n in range(2000) if is_chosen("t", talk(n, 3), 0.2)]
    assert set(chosen) <= {n for n in range(2000) if is_chosen("t", talk(n, 0), 0.5)}
    assert chosen != [n for n in range(2000) if is_chosen("other", talk(n, 0), 0.2)]
    assert not any(is_chosen("t", talk(n, 0), 0) for n in range(100))
    assert all(is_chosen("t", body, 1.0) for body in ({}, {"input": "x"}, {"prompt": ["y"]}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": 1.1}, {"keep_days": 0}, {"redact": ["names"]}, {"endpoints": ["other"]}, {"tags": ["team"]},
        {"patterns": [{"name": "a", "pattern": "("}]}, {"patterns": [{"name": "A b", "pattern": "x"}]}, {"keep": 1},
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(wrong)


# -- what leaves


def fill(capture: Capture, rows: list[Row]) -> None:
    for each in rows:
        capture.append(said(f"SECRET-{each.id}-"), each)
    assert capture.flush()


def test_erasing_a_user_leaves_nothing_of_them_in_the_files(opened: Open, tmp_path: Path) -> None:
    capture = opened()
    fill(capture, [row(id=f"{n}", user=f"u{n % 3}", tenant=f"t{n % 2}") for n in range(60)])
    assert on_disk(tmp_path, b"SECRET-1-") != []

    assert capture.erase(Selection(user="u1")) == (20, 0)

    assert {line["user"] for line in kept(tmp_path / "capture.db")} == {"u0", "u2"}
    assert all(on_disk(tmp_path, f"SECRET-{n}-".encode()) == [] for n in range(1, 60, 3))
    assert capture.erase(Selection(user="u2", tenant="t1")) == (10, 0)
    assert capture.erase(Selection(before_s=NOW_S - 61)) == (0, 0)
    assert capture.erase(Selection()) == (30, 0)
    assert on_disk(tmp_path, b"SECRET-") == []


class Interrupted(FakeClock):
    """A clock that does something once, when the store's own thread asks it for the time."""

    doing: Callable[[], None] | None = None

    def now_s(self) -> float:
        doing, self.doing = self.doing, None
        if doing is not None:
            doing()
        return super().now_s()


def test_what_comes_while_the_thread_is_busy_is_erased_by_whoever_asks_after_it(tmp_path: Path) -> None:
    clock = Interrupted(NOW_S)
    found: list[tuple[int, int]] = []
    asks = threading.Thread(target=lambda: found.append(capture.erase(Selection(user="u1"))))

    def meanwhile() -> None:
        capture.append(said("SECRET-late-"), row(id="late", user="u1"))
        asks.start()
        until(lambda: bool(capture._orders))

    capture = Capture(tmp_path / "capture.db", Settings(enabled=True), b"s" * 32, clock)
    clock.doing = meanwhile
    clock.advance(3600)  # so that it looks what has been kept long enough
    until(lambda: bool(found))
    asks.join()
    capture.close()

    assert found == [(1, 0)]
    assert kept(tmp_path / "capture.db") == []


def test_what_waits_for_the_disk_is_erased_too(opened: Open, tmp_path: Path) -> None:
    capture = opened()
    fill(capture, [row(id="first", user="u1")])
    with closing(sqlite3.connect(tmp_path / "capture.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        capture.append(said("SECRET-waiting-"), row(id="b", user="u1"))
        capture.append(said("hello"), row(id="c", user="u2"))
        assert capture.flush() is False
        with pytest.raises(sqlite3.OperationalError):
            capture.erase(Selection(user="u1"))
        other.execute("rollback")
    until(capture.flush)

    assert [line["id"] for line in kept(tmp_path / "capture.db")] == ["first", "c"]
    assert capture.erase(Selection(user="u1")) == (1, 0)


def test_what_is_old_or_too_much_leaves_by_itself(opened: Open, tmp_path: Path, clock: FakeClock) -> None:
    capture = opened(keep_days=2, max_bytes=2**20)
    fill(capture, [row(id=f"old{n}", ts=NOW_S - 3 * 86_400) for n in range(3)])
    fill(capture, [row(id="new", ts=NOW_S)])
    clock.advance(61)
    until(lambda: [line["id"] for line in kept(tmp_path / "capture.db")] == ["new"])
    assert on_disk(tmp_path, b"SECRET-old") == []

    for n in range(40):
        capture.append(said("word " * 10_000), row(id=f"{n:02}", ts=NOW_S + n))
    assert capture.flush()
    clock.advance(61)
    until(lambda: len(kept(tmp_path / "capture.db")) < 40)
    ids = [line["id"] for line in kept(tmp_path / "capture.db")]
    assert ids == [f"{n:02}" for n in range(40 - len(ids), 40)]
    assert 15 <= len(ids) <= 21
    assert capture.told()["bytes"] <= 2**20


def test_retention_holds_while_nothing_is_captured(opened: Open, tmp_path: Path, clock: FakeClock) -> None:
    fill(opened(), [row(id="a", ts=NOW_S)])
    capture = opened()
    capture.use(Settings(enabled=False, keep_days=1))
    clock.advance(86_400 + 61)

    until(lambda: kept(tmp_path / "capture.db") == [])


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ({"user": "u"}, Selection(user="u")),
        ({"tenant": "t", "user": "u"}, Selection(user="u", tenant="t")),
        ({"older_than": "7d"}, Selection(before_s=NOW_S - 7 * 86_400)),
        ({"all": True}, Selection()),
    ],
)
def test_selections(asked: dict[str, Any], meant: Selection) -> None:
    assert selection_of(asked, NOW_S) == meant


@pytest.mark.parametrize(
    "asked",
    [{}, {"user": ""}, {"user": 5}, {"all": False}, {"all": True, "user": "u"}, {"usr": "u"}, {"older_than": "x"}],
)
def test_selections_that_might_mean_more_than_was_meant_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ClientFault):
        selection_of(asked, NOW_S)


def test_traffic_without_end_keeps_neither_erasure_nor_anybody_waiting(opened: Open, tmp_path: Path) -> None:
    capture = opened()
    fill(capture, [row(id="first", user="u1")])
    ended = threading.Event()

    def pour() -> None:
        while not ended.is_set():
            if capture.waiting < 500:
                capture.append(said("x" * 1000), row(id="more", user="u2"))
            else:
                time.sleep(0.001)  # the store's thread needs the interpreter too

    pouring = threading.Thread(target=pour)
    pouring.start()
    try:
        assert capture.erase(Selection(user="u1"), timeout_s=20) == (1, 0)
    finally:
        ended.set()
        pouring.join()
    assert {line["user"] for line in kept(tmp_path / "capture.db")} == {"u2"}


# -- files and disks


def test_the_files_are_their_owners_alone(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "capture.db").touch(0o644)
    fill(opened(), [row(id="a")])

    modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in tmp_path.iterdir()}
    assert set(modes) >= {"capture.db", "capture.db-wal"}
    assert set(modes.values()) == {0o600}


def test_a_lock_delays_and_a_full_disk_is_told_once_and_got_over(opened: Open, tmp_path: Path) -> None:
    capture = opened()
    fill(capture, [row(id="before")])
    conn = capture._conn
    assert conn is not None
    pages = conn.execute("pragma page_count").fetchone()[0]
    with capture_logs() as logs:
        conn.execute(f"pragma max_page_count={pages}")
        for n in range(50):
            capture.append(said("x" * 1000), row(id=str(n)))
        assert capture.flush() is False
        assert not capture.healthy
        until(lambda: capture.healthy)
        with closing(sqlite3.connect(tmp_path / "capture.db", isolation_level=None)) as other:
            other.execute("begin exclusive")
            capture.append(said(), row(id="locked"))
            assert capture.flush() is False
            other.execute("rollback")
        until(lambda: capture.healthy)

    assert [line["id"] for line in kept(tmp_path / "capture.db")] == ["before", *map(str, range(50)), "locked"]
    assert [entry["event"] for entry in logs] == ["capture_failing", "capture_recovered"] * 2
    assert "full" in logs[0]["error"] and "xxx" not in str(logs)
    assert capture.dropped == 0


def test_beyond_its_bounds_records_are_dropped_and_counted(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a directory should be")
    capture = opened("state/capture.db", waiting_bytes=100_000)
    for n in range(30):
        capture.append(said("x" * 10_000), row(id=str(n)))  # some 14 KB each while it waits, 24 KB as a line
        capture.flush()
    assert capture.dropped + capture.waiting == 30
    assert 3 <= capture.waiting <= 8
    (tmp_path / "state").unlink()
    until(lambda: capture.healthy)

    ids = [line["id"] for line in kept(tmp_path / "state" / "capture.db")]
    assert ids == [str(n) for n in range(30 - len(ids), 30)]


def test_a_damaged_file_is_moved_aside_told_and_goes_with_an_erasure(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "capture.db"
    path.write_bytes(b"SECRET not a database " * 400)
    os.utime(path, (NOW_S, NOW_S))
    with capture_logs() as logs:
        capture = opened()
        fill(capture, [row(id="new", user="u1")])

    assert [line["id"] for line in kept(path)] == ["new"]
    (aside,) = tmp_path.glob("capture.corrupt-*.db")
    assert [(entry["event"], entry["moved_to"]) for entry in logs] == [("capture_corrupt", str(aside))]
    assert capture.told()["damaged_files"] == 1
    assert capture.erase(Selection(user="nobody")) == (0, 1)
    assert not aside.exists()


def test_closing_on_a_broken_disk_ends(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    capture = opened("state/capture.db")
    capture.append(said(), row())
    begun = time.monotonic()
    capture.close()

    assert time.monotonic() - begun < 4
    assert (capture.dropped, capture.waiting) == (1, 0)
    capture.append(said(), row())
    assert capture.dropped == 2
    with pytest.raises(OSError, match="closed"):
        capture.erase(Selection())
