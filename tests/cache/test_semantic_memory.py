"""The semantic cache's bound on memory: what saves least for its bytes leaves, and that outlives a restart."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from farthing.cache.semantic import SemanticCache
from farthing.cache.semantic_disk import forget_in
from tests.cache.test_semantic import LATER, NOW, Letters, word
from tests.fakes import semantic
from tests.fakes.examples import examples


def text(number: int) -> str:
    return f"how is {word(number)} made"


def served(cache: SemanticCache, number: int) -> bool:
    return semantic.served(cache, "s", text(number), NOW, 0.999) == f"k{number}"


def add(cache: SemanticCache, number: int, worth_usd: float | None = None) -> None:
    assert cache.add("s", text(number), f"k{number}", LATER, worth_usd)


def test_what_saves_least_leaves_first() -> None:
    cache = SemanticCache.open(None, Letters(), max_entries=3)
    for number, worth_usd in enumerate((0.01, 0.5, 0.2)):
        add(cache, number, worth_usd)

    add(cache, 3, 0.3)

    assert [served(cache, number) for number in range(4)] == [False, True, True, True]


def test_hits_save_more_than_a_price_alone() -> None:
    cache = SemanticCache.open(None, Letters(), max_entries=2)
    add(cache, 0, 0.1)
    add(cache, 1, 0.3)
    for _ in range(5):
        assert served(cache, 0)

    add(cache, 2, 0.4)

    assert [served(cache, number) for number in range(3)] == [True, False, True]


def test_memory_is_bounded_in_bytes() -> None:
    cache = SemanticCache.open(None, Letters(), max_entries=10_000, max_bytes=50_000)
    for number in range(100):
        add(cache, number)

    assert cache.bytes <= 50_000
    assert 14 < len(cache) < 25
    assert served(cache, 99)


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=60))
def test_bytes_are_those_of_what_is_held(steps: list[tuple[int, bool]]) -> None:
    cache = SemanticCache.open(None, Letters(), max_entries=12)
    for number, adds in steps:
        if adds:
            add(cache, number)
        else:
            cache.remove([f"k{number}"])
        assert len(cache) <= 12
    fresh = SemanticCache.open(None, Letters(), max_entries=100)
    for number in range(31):
        if served(cache, number):
            add(fresh, number)
    assert cache.bytes == fresh.bytes
    assert len(cache) == len(fresh)


def test_price_and_hits_outlive_a_restart(tmp_path: Path) -> None:
    cache = SemanticCache.open(tmp_path / "s.db", Letters(), max_entries=10)
    add(cache, 0, 0.2)
    add(cache, 1, 0.3)
    add(cache, 2)
    assert served(cache, 0)
    cache.close()

    again = SemanticCache.open(tmp_path / "s.db", Letters(), max_entries=2)

    assert [served(again, number) for number in range(3)] == [True, True, False]
    again.close()


def test_a_spoilt_count_of_hits_costs_no_entry(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    for value in ("'many'", "-5", "9e99", str(2**62)):
        cache = SemanticCache.open(path, Letters(), max_entries=10)
        add(cache, 0, 0.2)
        cache.close()
        with sqlite3.connect(path) as db:
            db.execute(f"UPDATE texts SET uses = {value}")
        db.close()
        again = SemanticCache.open(path, Letters(), max_entries=10)
        assert served(again, 0)
        again.close()


def test_a_spoilt_price_costs_the_entry(tmp_path: Path) -> None:
    cache = SemanticCache.open(tmp_path / "s.db", Letters(), max_entries=10)
    add(cache, 0, 0.2)
    cache.close()
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute("UPDATE texts SET worth_usd = 1e9")
    db.close()

    assert len(SemanticCache.open(tmp_path / "s.db", Letters(), max_entries=10)) == 0


def test_the_first_forms_file_is_moved_aside_with_one_line(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.executescript(
            "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT); INSERT INTO meta VALUES ('version', '1');"
            "CREATE TABLE texts (id INTEGER PRIMARY KEY AUTOINCREMENT, entry_key TEXT NOT NULL UNIQUE, scope TEXT,"
            "text TEXT NOT NULL, expires_s REAL NOT NULL, embedder TEXT NOT NULL, vector BLOB NOT NULL, checksum BLOB);"
        )
    db.close()

    with capture_logs() as logs:
        cache = SemanticCache.open(tmp_path / "s.db", Letters(), max_entries=10)
        add(cache, 0)

    assert [line["log_level"] for line in logs] == ["error"]
    assert (tmp_path / "s.db.corrupt").exists()
    assert served(cache, 0)
    cache.close()


def test_one_scope_that_floods_does_not_push_out_what_is_used() -> None:
    cache = SemanticCache.open(None, Letters(), max_entries=50)
    for number in range(10):
        add(cache, number, 0.01)
        for _ in range(40):
            assert served(cache, number)
    for number in range(10, 500):
        cache.add("flood", text(number), f"f{number}", LATER, 0.01)

    assert all(served(cache, number) for number in range(10))


def test_rows_are_taken_out_of_a_file_that_nobody_has_open(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    assert forget_in(path, ["a"]) == 0 and not path.exists()
    cache = SemanticCache.open(path, Letters(), max_entries=100)
    for key in "abc":
        cache.add("s", f"how do I get to {key * 5}", key, 1e9)
    cache.close()
    assert forget_in(path, ["a", "c", "none"]) == 2
    assert forget_in(path, []) == 0
    again = SemanticCache.open(path, Letters(), max_entries=100)
    assert len(again) == 1
    again.close()
    path.write_bytes(b"no database at all, but long enough to be looked at" * 20)
    assert forget_in(path, ["b"]) == 0
