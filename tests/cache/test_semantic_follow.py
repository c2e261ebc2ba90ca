"""Semantic caches of several processes over one file: here they are several in one process, on a fake model."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from farthing.cache import semantic_log
from farthing.cache.semantic import SemanticCache
from tests.cache.test_semantic import LATER, NOW, Letters


def opened(path: Path, writer: str, max_entries: int = 100) -> SemanticCache:
    return SemanticCache.open(path, Letters(), max_entries=max_entries, writer=writer)


def nearest(cache: SemanticCache, text: str) -> str | None:
    return cache.lookup("s", "r", text, NOW).entry_key


def test_what_one_adds_the_other_finds_and_what_it_removes_it_does_not(tmp_path: Path) -> None:
    one, other = opened(tmp_path / "s.db", "one"), opened(tmp_path / "s.db", "other")
    one.add("s", "how do I reset my password", "k1", LATER)
    one.add("s", "what is the capital of France", "k2", LATER)
    assert nearest(other, "how do I reset my password") is None
    assert other.follow() == 2 and other.follow() == 0
    assert nearest(other, "how do I reset my password") == "k1"

    other.remove(["k1"])
    one.add("s", "what is the capital of Spain", "k2", LATER)  # in the place of what was there
    one.follow(), other.follow()
    assert one.keys() == other.keys() == {"k2"}
    assert one.texts(["k2"]) == other.texts(["k2"]) and "spain" in other.texts(["k2"])["k2"].lower()
    one.clear()
    other.follow()
    assert len(other) == 0
    one.close(), other.close()


def test_whoever_adds_evicts_and_the_others_follow(tmp_path: Path) -> None:
    one, other = opened(tmp_path / "s.db", "one", 10), opened(tmp_path / "s.db", "other", 10)
    for number in range(40):
        one.add("s", f"question number {number} about things", f"k{number}", LATER)
        other.follow()
    one.follow()
    assert len(one) <= 10 and one.keys() == other.keys()
    one.close(), other.close()


def test_all_converge_and_so_does_one_that_starts_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic_log, "_LOGGED", 20)  # so that some fall behind it
    draw = random.Random(3)
    caches = [opened(tmp_path / "s.db", f"w{at}") for at in range(3)]
    for step in range(400):
        cache, key = draw.choice(caches), f"k{draw.randrange(30)}"
        match draw.choice(["add", "add", "remove", "follow"]):
            case "add":
                cache.add("s", f"words of step {step} and more", key, LATER)
            case "remove":
                cache.remove([key])
            case _:
                cache.follow()
    for cache in caches:
        cache.follow()
    late = opened(tmp_path / "s.db", "late")
    with closing(sqlite3.connect(tmp_path / "s.db")) as db:
        kept = {key for (key,) in db.execute("select entry_key from texts")}

    assert {cache.keys() for cache in (*caches, late)} == {frozenset(kept)}
    assert len({tuple(sorted(cache.texts(kept).items())) for cache in (*caches, late)}) == 1
    for cache in (*caches, late):
        cache.close()
