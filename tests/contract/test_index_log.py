"""What a log between indexes promises: whoever follows it holds what whoever writes it does."""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farthing.cache import log_redis_wire, semantic_log
from farthing.cache.index_log import IndexLog
from farthing.cache.semantic_disk import Row
from farthing.cache.semantic_log import SemanticLog
from tests.fakes.examples import examples
from tests.fakes.replicas import SentAtOnce, a_log
from tests.fakes.valkey import running_valkey

Another = Callable[[], IndexLog]
Opening = Callable[[str, str, int], IndexLog]
DIM = 4
LOGGED = 10  # of a short log


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_valkey("--stream-node-max-entries", "1") as url:  # so that a short stream is cut where it is told
        yield url


@pytest.fixture(params=["file", "replicas"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opening]:
    """Opens one more log at this place: another process's."""
    if request.param == "file":
        yield lambda place, writer, logged: SemanticLog(tmp_path / place, embedder="e", dim=DIM, writer=writer)
        return
    url = request.getfixturevalue("server")
    opened: list[SentAtOnce] = []
    loop = asyncio.new_event_loop()

    def made(place: str, writer: str, logged: int) -> IndexLog:
        prefix = f"{tmp_path.name}{place}"
        never_s = 1e12
        opened.append(SentAtOnce(loop, lambda: a_log(url, writer, prefix=prefix, logged=logged, mark_every_s=never_s)))
        return opened[-1]

    yield made
    for one in opened:
        one.close()
    loop.close()


@pytest.fixture
def places() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def another(opening: Opening) -> Another:
    """Opens one more over the same log."""
    count = 0

    def made() -> IndexLog:
        nonlocal count
        log = opening("semantic.db", f"w{count}", LOGGED)
        count += 1
        log.snapshot()
        return log

    return made


def row(key: str, text: str = "text", expires_s: float = 100.0) -> Row:
    vector = np.arange(DIM, dtype=np.float32) / 8
    return Row("scope", key, text, expires_s, vector, 0.5)


def texts(rows: Iterable[Row]) -> dict[str, str]:
    return {one.entry_key: one.text for one in rows}


def test_others_read_what_is_appended_from_their_offset_on(another: Another) -> None:
    one, other = another(), another()
    offset = other.snapshot().offset
    one.put(row("a"))
    one.put(row("b"))
    first = other.since(offset)
    one.put(row("a", "newer"))
    one.delete(["b", "never there"])
    second = other.since(first.offset)

    assert (texts(first.put), first.gone, first.lost) == ({"a": "text", "b": "text"}, [], False)
    assert texts(second.put) == {"a": "newer"} and set(second.gone) - {"never there"} == {"b"}
    assert np.array_equal(second.put[0].vector, row("a").vector) and second.put[0].worth_usd == 0.5
    assert other.since(second.offset)[:4] == ([], [], second.offset, False)


def test_nobody_is_told_what_he_appended_himself(another: Another) -> None:
    one, other = another(), another()
    one.put(row("a"))
    other.put(row("b"))
    assert texts(one.since(0).put) == {"b": "text"}
    assert texts(other.since(0).put) == {"a": "text"}


def test_a_snapshot_is_everything_and_where_to_go_on(another: Another) -> None:
    one, other = another(), another()
    for key in "abc":
        one.put(row(key))
    one.delete(["b"])
    rows, offset, *_ = other.snapshot()
    one.put(row("d"))

    assert set(texts(rows)) == {"a", "c"}
    assert texts(other.since(offset).put) == {"d": "text"}
    late = another()
    assert set(texts(late.snapshot().rows)) == {"a", "c", "d"}
    assert late.since(late.snapshot().offset).put == []


def test_when_everything_goes_a_snapshot_is_asked_for(another: Another) -> None:
    one, other = another(), another()
    offset = other.snapshot().offset
    one.put(row("a"))
    one.clear()
    one.put(row("b"))

    assert other.since(offset).lost
    rows, offset, *_ = other.snapshot()
    assert texts(rows) == {"b": "text"} and not other.since(offset).lost


def test_who_has_fallen_behind_is_told(another: Another, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic_log, "_LOGGED", LOGGED)
    one, other = another(), another()
    offset = other.snapshot().offset
    for number in range(12):
        one.put(row(f"{number}"))
    assert other.since(offset).lost
    assert not other.since(other.snapshot().offset).lost
    for number in range(10):
        one.put(row(f"{number}", "newer"))
    changes = other.since(12)
    assert not changes.lost and len(changes.put) == 10


@pytest.mark.parametrize("opening", ["file"], indirect=True)
def test_a_row_that_was_damaged_is_as_good_as_gone(another: Another, tmp_path: Path) -> None:
    one, other = another(), another()
    one.put(row("a"))
    with closing(sqlite3.connect(tmp_path / "semantic.db", timeout=5)) as db, db:
        db.execute("update texts set text = 'damaged'")
    assert other.since(0)[:4] == ([], ["a"], 1, False)


@settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 60))
def test_all_who_follow_converge(
    opening: Opening, places: Iterator[int], monkeypatch: pytest.MonkeyPatch, seed: int, steps: int
) -> None:
    monkeypatch.setattr(log_redis_wire, "CHUNKS", 4)  # of 256 that a snapshot asks for all but six would be empty
    draw, place = random.Random(seed), f"{next(places)}.db"
    logs = [opening(place, f"w{at}", LOGGED * 5) for at in range(3)]
    held = [texts(log.snapshot().rows) for log in logs]
    offsets = [0, 0, 0]

    def follow(at: int) -> None:
        changes = logs[at].since(offsets[at])
        if changes.lost:
            rows, offsets[at], *_ = logs[at].snapshot()
            held[at] = texts(rows)
            return
        offsets[at] = changes.offset
        for key in changes.gone:
            held[at].pop(key, None)
        held[at] |= texts(changes.put)

    for step in range(steps):
        at, key = draw.randrange(3), draw.choice("abcdef")
        match draw.choice(
            ["put", "put", "delete", "follow", "clear"] if draw.random() < 0.1 else ["put", "delete", "follow"]
        ):
            case "put":
                logs[at].put(row(key, f"text {step}"))
                held[at][key] = f"text {step}"
            case "delete":
                logs[at].delete([key])
                held[at].pop(key, None)
            case "clear":
                logs[at].clear()
                held[at].clear()
            case _:
                follow(at)
    for at in range(3):
        follow(at)
    for log in logs:
        log.close()

    assert held[0] == held[1] == held[2]
