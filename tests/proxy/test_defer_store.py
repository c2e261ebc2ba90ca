"""Deferred requests at rest: sealed where answers are, brought up to date, erased."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy.batch_api import Line
from farthing.proxy.defer_batches import line_of, said_of
from farthing.proxy.defer_store import Batch, DeferStore, Kept, Result, Texts
from farthing.proxy.errors import StoreFault
from farthing.proxy.seal import Sealer

KEPT = Kept("id-1", "a", "c", "u", "/v1/chat/completions", "m", "queued", 1.0, 2.0, 3)
TEXTS = Texts(b'{"user":"u-1"}', b"the body", b"the sent one", b"what is known")
META_WORDS = (b"the body", b"the sent one", b"what is known", b"the answer", b"what was said")


def sealer(*keys: bytes) -> Sealer:
    return Sealer(keys, os.urandom)


def on_disk(path: Path) -> bytes:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("pragma wal_checkpoint(truncate)")
    return path.read_bytes()


async def kept_and_answered(store: DeferStore) -> None:
    await store.open()
    await store.add(KEPT, TEXTS)
    done = KEPT._replace(state="completed")
    await store.answer(done, Result(200, "application/json", b"the answer"), b"what was said")
    await store.unused(done, b"what was paid")


@pytest.mark.parametrize("sealed", [True, False])
async def test_no_text_lies_open_where_answers_are_sealed(tmp_path: Path, sealed: bool) -> None:
    store = DeferStore(tmp_path / "d.db", sealer(b"k" * 32) if sealed else None)
    await kept_and_answered(store)
    texts, result = (await store.texts(["id-1"]))["id-1"], await store.result("id-1")
    found = on_disk(tmp_path / "d.db")
    await store.close()
    assert texts.body == b"the body" and texts.paid == b"what was paid" and texts.said == b"what was said"
    assert result == Result(200, "application/json", b"the answer")
    assert any(word in found for word in META_WORDS) is not sealed


async def test_what_cannot_be_opened_has_no_text(tmp_path: Path) -> None:
    store = DeferStore(tmp_path / "d.db", sealer(b"k" * 32))
    await kept_and_answered(store)
    await store.close()
    for other in (None, sealer(b"x" * 32)):
        store = DeferStore(tmp_path / "d.db", other)
        assert (await store.texts(["id-1"]))["id-1"] == Texts(TEXTS.meta, paid=b"what was paid")
        with pytest.raises(StoreFault):
            await store.result("id-1")
        await store.close()
    store = DeferStore(tmp_path / "d.db", sealer(b"n" * 32, b"k" * 32))  # the key was replaced
    assert (await store.texts(["id-1"]))["id-1"].body == b"the body"
    await store.close()


async def test_a_text_of_another_request_does_not_open(tmp_path: Path) -> None:
    store = DeferStore(tmp_path / "d.db", sealer(b"k" * 32))
    await store.open()
    await store.add(KEPT, TEXTS)
    await store.add(KEPT._replace(id="id-2"), TEXTS)
    with closing(sqlite3.connect(tmp_path / "d.db")) as conn, conn:
        conn.execute("update requests set body = (select body from requests where id = 'id-1') where id = 'id-2'")
    texts = await store.texts(["id-1", "id-2"])
    await store.close()
    assert (texts["id-1"].body, texts["id-2"].body) == (b"the body", b"")


@pytest.mark.parametrize("first", [True, False])
async def test_sealing_may_begin_and_end_while_requests_wait(tmp_path: Path, first: bool) -> None:
    key = sealer(b"k" * 32)
    store = DeferStore(tmp_path / "d.db", key if first else None)
    await store.open()
    await store.add(KEPT, TEXTS)
    await store.close()
    store = DeferStore(tmp_path / "d.db", None if first else key)
    await store.answer(KEPT._replace(state="completed"), Result(200, "application/json", b"the answer"))
    result, texts = await store.result("id-1"), await store.texts(["id-1"])
    await store.close()
    assert result is not None and result.body == b"the answer"
    assert texts["id-1"].body == (b"" if first else b"the body")  # its key is gone, or it is sealed now


async def test_a_file_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "d.db")) as conn, conn:
        conn.executescript(
            "create table requests (id text primary key, account text not null, credential text not null,"
            " upstream text not null, path text not null, model text not null, state text not null,"
            " created_s real not null, deadline_s real not null, size integer not null, tries integer not null,"
            " batch text not null, ended_s real not null, booked integer not null, error text not null,"
            " meta blob not null, body blob, status integer not null, kind text not null, answer blob);"
            "create table batches (name text primary key, account text not null, upstream text not null,"
            " file text not null, id text not null, cancelled_s real not null);"
            "insert into requests values ('id-1','a','c','u','/p','m','sent',1,2,3,1,'fb',0,0,'','{}','old',0,'',null);"
            "insert into batches values ('fb','a','u','file-1','batch-1',0);"
        )
    store = DeferStore(tmp_path / "d.db")
    await store.open()
    requests, batches = await store.load()
    await store.write([requests[0]._replace(state="direct")], batches[0]._replace(cancelled_s=1.0))
    again = DeferStore(tmp_path / "d.db")
    requests, batches = await again.load()
    await store.close()
    await again.close()
    assert (requests[0].api, requests[0].state, requests[0].sent_path) == ("openai", "direct", "")
    assert batches == [Batch("fb", "a", "u", "file-1", "batch-1", 1.0)]


@given(st.text(max_size=20), st.integers(100, 599), st.binary(max_size=40))
def test_a_line_is_booked_once_more_as_it_came(id: str, status: int, body: bytes) -> None:
    line = Line(id, status, body)
    assert line_of(said_of(line), Result(1, "", b""), "x") == line
    assert line_of(b"", Result(status, "", body), id) == line


async def test_what_another_process_adds_is_found_once_and_told_by_both(tmp_path: Path) -> None:
    ours, theirs = DeferStore(tmp_path / "d.db"), DeferStore(tmp_path / "d.db")
    for store in (ours, theirs):
        await store.open()
    assert await ours.load() == ([], [])
    await ours.add(KEPT, TEXTS)
    assert await ours.arrived() == []  # nobody else has written
    other = KEPT._replace(id="id-2", created_s=5.0)
    await theirs.add(other, TEXTS)
    assert {one.id for one in await ours.arrived()} == {"id-1", "id-2"}
    assert await ours.arrived() == []
    sent = KEPT._replace(state="sent", batch="fb")
    await ours.write([sent], Batch("fb", "a", "u", "file-1", "batch-1"))
    for store in (ours, theirs):
        assert await store.seen("c", most=10) == [(other, ""), (sent, "batch-1")]
        assert await store.seen("c", "id-1") == [(sent, "batch-1")]
        assert await store.seen("somebody else", "id-1") == []
        assert (await store.waiting(), await store.waits_for("a"), await store.waits_for("b")) == (2, True, False)
        await store.close()
