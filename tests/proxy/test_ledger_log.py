"""How long the log is: what SQLite itself says, also when it has begun anew over a longer one."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from farthing.proxy.ledger_log import most_pages, pages_in


@pytest.mark.parametrize("page_bytes", [512, 4_096, 65_536])
def test_it_is_as_long_as_sqlite_says(tmp_path: Path, page_bytes: int) -> None:
    path = tmp_path / "some.db"
    assert pages_in(path) == 0
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute(f"pragma page_size={page_bytes}")
        conn.execute("pragma journal_mode=wal")
        conn.execute("pragma wal_autocheckpoint=0")
        conn.execute("create table t (a)")
        for rows in (300, 7, 40):
            for number in range(rows):
                conn.execute("insert into t values (?)", (number,))
            found = pages_in(path)
            _, pages, done = conn.execute("pragma wal_checkpoint(passive)").fetchone()
            assert found == pages == done >= rows  # all of it is in the file: the next one begins anew
    assert pages_in(path) == 0


def test_what_is_no_log_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    for content in (b"", b"short", b"\0" * 10_000):
        path.with_name("some.db-wal").write_bytes(content)
        assert pages_in(path) <= 10_000 // 24


@pytest.mark.parametrize(
    ("free_bytes", "pages"), [(0, 1_000), (12 * 2**20, 1_000), (2**28, 8_192), (2**29, 16_000), (2**40, 16_000)]
)
def test_it_gets_less_room_on_a_small_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, pages: int
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free_bytes))
    assert most_pages(tmp_path / "some.db") == pages


def test_a_place_that_is_gone_has_no_room(tmp_path: Path) -> None:
    assert most_pages(tmp_path / "gone" / "some.db") == 1_000
