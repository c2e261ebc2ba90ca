"""A ledger with damaged pages: what stands on sound leaves comes back, what was removed doesn't, nothing is made up."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.proxy.errors import ConfigFault
from farthing.proxy.ledger_file import INSERT, connect
from farthing.proxy.ledger_leaves import free_pages, head_of, rows_on
from farthing.proxy.ledger_salvage import salvage
from farthing.proxy.row import Row
from tests.fakes.examples import examples
from tests.fakes.rows import plausible

PAGE = 4096
LENGTHS = [2_200] * 20 + [10, 5_000, 20_000]
"""Of decisions: most rows fill a page, so that there are inner pages below the root; some need others besides."""


class Made(NamedTuple):
    """A ledger. `pages_of`: the pages that a row needs, by its id: its leaf, and the overflow pages of that."""

    path: Path
    rows: dict[str, Row]
    removed: frozenset[str]
    pages_of: dict[str, frozenset[int]]
    lists: frozenset[int]
    count: int


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    path = tmp_path_factory.mktemp("whole") / "ledger.db"
    dice = random.Random(3)
    rows = plausible(800, days=2)
    long = [each._replace(decisions=f'[["exact","miss","{"x" * dice.choice(LENGTHS)}"]]') for each in rows]
    conn, _ = connect(path, whole=False)
    with closing(conn):
        conn.executemany(INSERT, long)
        removed = [each.id for each in long[100:250]]
        conn.execute("pragma secure_delete=off")  # some builds of SQLite overwrite what is removed, others don't
        conn.execute("delete from requests where rowid > 100 and rowid <= 250")
        conn.execute("pragma wal_checkpoint(truncate)")
        conn.execute("pragma journal_mode=delete")
        stat = conn.execute("select pageno, path, pagetype from dbstat where name = 'requests'").fetchall()
    whole = path.read_bytes()
    head = head_of(whole)
    free = free_pages(lambda number: page_of(whole, number), head, len(whole) // PAGE)
    pages_of: dict[str, frozenset[int]] = {}
    for number, place, kind in stat:
        if kind == "leaf":
            overflow = {more for more, its, what in stat if what == "overflow" and its.startswith(place)}
            for _, values in rows_on(number, lambda n: page_of(whole, n), head, lambda _: True):
                pages_of[str(values[0])] = frozenset({number, *overflow})
    kept = {each.id: each for each in long if each.id not in removed}
    assert free.known
    assert len(free.pages) > 10
    assert sum(len(pages) > 1 for pages in pages_of.values()) > 20
    assert len({number for number, _, kind in stat if kind == "internal"}) >= 2
    maps = {*range(2, len(whole) // PAGE + 1, PAGE // 5 + 1)}
    return Made(path, kept, frozenset(removed), pages_of, free.pages | maps | {1}, len(whole) // PAGE)


def page_of(whole: bytes, number: int) -> bytes:
    return whole[(number - 1) * PAGE : number * PAGE] if number else b""


def salvaged(made: Made, folder: Path, damaged: Sequence[int], fill: str) -> tuple[dict[str, Row], dict[str, int]]:
    whole = bytearray(made.path.read_bytes())
    for number in damaged:
        noise = random.Random(number).randbytes(PAGE)
        whole[(number - 1) * PAGE : number * PAGE] = {"zeros": bytes(PAGE), "ones": b"\xff" * PAGE, "noise": noise}[
            fill
        ]
    for old in folder.glob("*.db*"):
        old.unlink()
    (folder / "damaged.db").write_bytes(whole)
    connect(folder / "ledger.db", whole=False)[0].close()
    try:
        counts = salvage(folder / "damaged.db", folder / "ledger.db", lambda _: None)
    except ConfigFault:
        return {}, {}
    with closing(sqlite3.connect(folder / "ledger.db")) as conn:
        found = [Row(*values) for values in conn.execute("select * from requests")]
    assert len(found) == counts["added"] == counts["read"]
    return {each.id: each for each in found}, counts


def test_leaves_alone_give_every_row_of_a_sound_file(made: Made) -> None:
    assert made.pages_of.keys() == made.rows.keys()


@pytest.mark.parametrize("fill", ["zeros", "ones", "noise"])
def test_all_inner_pages_may_be_damaged(made: Made, tmp_path: Path, fill: str) -> None:
    leaves = frozenset[int]().union(*made.pages_of.values())
    inner = [number for number in range(1, made.count + 1) if number not in leaves | made.lists]
    found, counts = salvaged(made, tmp_path, inner, fill)
    assert found == made.rows
    assert counts["from_leaves"] == len(found)
    assert not counts["free_unknown"]


@settings(max_examples=examples(40), deadline=None)
@given(data=st.data())
def test_what_stands_on_sound_pages_comes_back_and_nothing_is_made_up(
    made: Made, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = data.draw(st.lists(st.integers(1, made.count), min_size=1, max_size=40, unique=True))
    damaged += data.draw(st.sampled_from([[], [3], [4], [3, 4], [1]]))
    fill = data.draw(st.sampled_from(["zeros", "ones", "noise"]))
    found, counts = salvaged(made, tmp_path_factory.mktemp("one"), damaged, fill)
    must = {row_id for row_id, pages in made.pages_of.items() if not pages & {*damaged}}

    assert must <= found.keys()
    for row_id, each in found.items():
        if row_id not in made.removed:
            assert each == made.rows[row_id]
        else:
            assert counts["free_unknown"]


def test_what_the_write_ahead_log_has_comes_back_too(tmp_path: Path) -> None:
    rows = plausible(300, days=2)
    conn, _ = connect(tmp_path / "a.db", whole=False)
    with closing(conn):
        conn.execute("pragma wal_autocheckpoint=0")
        conn.executemany(INSERT, rows[:200])
        conn.execute("pragma wal_checkpoint(restart)")
        conn.executemany(INSERT, rows[200:])
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / f"a.db{suffix}", tmp_path / f"damaged.db{suffix}")
        root = conn.execute("select rootpage from sqlite_master where name = 'requests'").fetchone()[0]
    log = bytearray((tmp_path / "damaged.db-wal").read_bytes())
    for at in range(32, len(log), 24 + PAGE):
        if int.from_bytes(log[at : at + 4], "big") == root:
            log[at + 24 : at + 24 + PAGE] = bytes(PAGE)
    (tmp_path / "damaged.db-wal").write_bytes(log)
    whole = bytearray((tmp_path / "damaged.db").read_bytes())
    whole[(root - 1) * PAGE : root * PAGE] = bytes(PAGE)
    (tmp_path / "damaged.db").write_bytes(whole)

    connect(tmp_path / "ledger.db", whole=False)[0].close()
    assert salvage(tmp_path / "damaged.db", tmp_path / "ledger.db", lambda _: None)["added"] >= 299
