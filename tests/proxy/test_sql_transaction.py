"""All or nothing, and nobody else writes meanwhile."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from farthing.proxy.sql_transaction import transaction


def test_all_is_written_or_nothing_and_nobody_else_writes_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as conn,
        closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other,
    ):
        conn.execute("create table t (a)")
        with transaction(conn):
            conn.execute("insert into t values (1)")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("insert into t values (0)")
        with pytest.raises(KeyError), transaction(conn):
            conn.execute("insert into t values (2)")
            raise KeyError
        assert not conn.in_transaction
        other.execute("insert into t values (3)")
        assert conn.execute("select a from t order by a").fetchall() == [(1,), (3,)]


def test_what_cannot_be_committed_is_undone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "some.db", isolation_level=None)) as conn:
        conn.executescript(
            "pragma foreign_keys=on; create table p (a primary key); "
            "create table t (a references p deferrable initially deferred)"
        )
        with pytest.raises(sqlite3.IntegrityError), transaction(conn):
            conn.execute("insert into t values (1)")
        assert not conn.in_transaction
        assert conn.execute("select count(*) from t").fetchone() == (0,)
