"""What else is kept of prompts and answers is sealed too: near-duplicates, captures, what compression keeps.

Keys can be changed, a wrong key is said and loses nothing, and what is removed needs no key.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from structlog.testing import capture_logs
from typer.testing import CliRunner

from farthing.cache import semantic_disk
from farthing.cache.semantic_disk import Row, SemanticDisk
from farthing.cache.store_redis import RedisStore
from farthing.compress.decided import Decision, chain
from farthing.compress.decided_disk import FileDecisions
from farthing.compress.decided_redis import RedisDecisions
from farthing.compress.decided_store import Decisions, Found, in_force_s
from farthing.compress.removed import Handles, Removed
from farthing.proxy.cli import app
from farthing.proxy.clock import FakeClock
from tests.fakes.decisions import TTL_S
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream, scripted
from tests.fakes.valkey import ValkeyProcess
from tests.security.test_sealing import ONE, TWO, sealer
from tests.wire.test_compress import UNPROVEN
from tests.wire.test_retrieval import asked, begun, blob
from tests.wire.test_semantic import loaded

SECRET = "the-merger-is-on"
QUESTION = chat("How do I change my delivery address?", temperature=0)
VECTOR = np.arange(4, dtype=np.float32) / 8


def row(key: str = "k", scope: str = "s", expires_s: float = 100.0) -> Row:
    return Row(scope, key, SECRET, expires_s, VECTOR, 0.5)


def disk(path: Path, *keys: str) -> SemanticDisk:
    return SemanticDisk(path, embedder="e", dim=4, seal=sealer(*keys) if keys else None)


def rows_in(path: Path, *keys: str) -> list[str]:
    """The texts that are found with these keys."""
    one = disk(path, *keys)
    found = [row.text for row in one.load()]
    one.close()
    return found


@pytest.fixture
def near(tmp_path: Path) -> Path:
    """A file with one near-duplicate, sealed under ONE."""
    one = disk(tmp_path / "semantic.db", ONE)
    one.load()
    one.put(row())
    one.close()
    return tmp_path / "semantic.db"


class TestNearDuplicates:
    def test_neither_text_nor_vector_stands_on_the_disk(self, near: Path) -> None:
        held = b"".join(file.read_bytes() for file in near.parent.iterdir())
        assert SECRET.encode() not in held and VECTOR.tobytes()[4:] not in held

    def test_it_comes_back_as_it_was(self, near: Path) -> None:
        one = disk(near, TWO, ONE)
        (found,) = one.load()
        assert found.text == SECRET and (found.vector == VECTOR).all() and found.worth_usd == 0.5

    def test_a_wrong_key_finds_nothing_and_loses_nothing(self, near: Path) -> None:
        for keys in ((TWO,), ()):
            with capture_logs() as logs:
                assert rows_in(near, *keys) == []
            assert [line["log_level"] for line in logs] == ["error"] and "near-duplicates" in logs[0]["event"]
        assert rows_in(near, ONE) == [SECRET]

    def test_what_was_in_the_open_is_read_and_what_is_put_is_sealed(self, near: Path) -> None:
        one = disk(near)
        one.load()
        one.put(row("open"))
        one.close()
        assert sorted(rows_in(near, ONE)) == [SECRET, SECRET]

    def test_a_row_does_not_open_in_another_scope(self, near: Path) -> None:
        """Whoever may write to the file, but has no key, can't carry one tenant's text to another."""
        with closing(sqlite3.connect(near)) as db, db:
            fields = db.execute("select entry_key, text, expires_s, embedder, vector, worth_usd from texts").fetchone()
            check = semantic_disk._checksum(fields[0], "other", *fields[1:])
            db.execute("update texts set scope = 'other', checksum = ?", (check,))
        assert rows_in(near, ONE) == []

    def test_without_its_key_it_is_removed_by_name_and_by_time(self, near: Path) -> None:
        one = disk(near, TWO)
        one.load()
        one.sweep(99.0)
        assert one.unread
        one.sweep(100.0)
        assert not one.unread
        one.close()
        assert rows_in(near, ONE) == []


KINDS = ("file", "redis")
KEYS = chain("t", "p", [{"content": str(number)} for number in range(3)])
SHORT = Decision((SECRET,), ("rows",), (5,))


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as server:
        yield server


class Shelf:
    """Stores of decisions with these keys or those, over one file or server. `close` after each, so that the next one
    reads what is kept."""

    def __init__(self, kind: str, path: Path, valkey: ValkeyProcess) -> None:
        self.clock = FakeClock()
        self._kind, self._path, self._valkey = kind, path, valkey
        self._open: list[Any] = []

    async def with_keys(self, *keys: str) -> Decisions:
        await self.close()
        seal = sealer(*keys) if keys else None
        given: dict[str, Any] = {"clock": self.clock, "ttl_s": TTL_S, "memory_bytes": 0, "seal": seal}
        if self._kind == "redis":
            server = RedisStore(self._valkey.url, deadline_ms=2000, clock=self.clock)
            self._open = [server]
            return RedisDecisions(server, **given)
        file = FileDecisions(self._path, max_bytes=10**7, flush_ms=1, **given)
        await file.open()
        self._open = [file]
        return file

    async def close(self) -> None:
        for one in self._open:
            await one.close()
        self._open = []

    def at_rest(self) -> bytes:
        if self._kind == "file":
            return b"".join(file.read_bytes() for file in self._path.parent.iterdir())
        with redis.Redis.from_url(self._valkey.url) as client:
            return b"".join(client.get(name) for name in client.scan_iter())


@pytest.fixture(params=KINDS)
async def shelf(request: pytest.FixtureRequest, tmp_path: Path, valkey: ValkeyProcess) -> AsyncIterator[Shelf]:
    valkey.command("FLUSHALL")
    one = Shelf(request.param, tmp_path / "decided.db", valkey)
    yield one
    await one.close()


async def put(store: Decisions, key: bytes, decision: Decision) -> None:
    await store.put_many([(key, decision)])
    if isinstance(store, FileDecisions):
        await store.flush()


class TestWhatCompressionKeeps:
    async def test_it_is_sealed_at_rest_and_comes_back(self, shelf: Shelf) -> None:
        await put(await shelf.with_keys(ONE), KEYS[0], SHORT)
        assert SECRET.encode() not in shelf.at_rest()
        assert await (await shelf.with_keys(TWO, ONE)).get_many(KEYS[:1]) == Found([SHORT])

    async def test_a_wrong_key_decides_nothing_anew_and_loses_nothing(self, shelf: Shelf) -> None:
        """It counts as a store that is away: were it decided anew, the provider would get other bytes than before."""
        await put(await shelf.with_keys(ONE), KEYS[0], SHORT)
        for keys in ((TWO,), ()):
            store = await shelf.with_keys(*keys)
            with capture_logs() as logs:
                assert await store.get_many(KEYS[:2]) == Found([None, None], away=True)
                assert await store.get_many(KEYS[:2]) == Found([None, None], away=True)
            assert ["key that is not here" in line["event"] for line in logs] == [True]
        assert await (await shelf.with_keys(ONE)).get_many(KEYS[:1]) == Found([SHORT])

    async def test_how_long_a_policy_is_in_force_is_not_begun_anew(self, shelf: Shelf) -> None:
        store = await shelf.with_keys(ONE)
        begun_s = shelf.clock.now_s()
        assert await in_force_s(store, "p", begun_s) == 0
        assert await in_force_s(await shelf.with_keys(TWO), "p", begun_s + 50) == 0
        assert await in_force_s(await shelf.with_keys(ONE), "p", begun_s + 100) == 100

    async def test_what_is_used_on_is_sealed_under_the_current_key(self, shelf: Shelf) -> None:
        """So that an old key may be left out, although a conversation goes on for longer."""
        for keys in ((), (ONE,), (TWO, ONE)):  # in the open at first
            store = await shelf.with_keys(*keys)
            if not keys:
                await put(store, KEYS[0], SHORT)
            shelf.clock.advance(0.6 * TTL_S)
            assert await store.get_many(KEYS[:1]) == Found([SHORT])
            if isinstance(store, FileDecisions):
                await store.flush()
        assert await (await shelf.with_keys(TWO)).get_many(KEYS[:1]) == Found([SHORT])
        await shelf.close()
        assert SECRET.encode() not in shelf.at_rest()

    async def test_what_was_left_out_is_kept_anew_under_a_key_that_is_here(self, shelf: Shelf) -> None:
        """The text is the same, whatever key it was under; a marker may name it only if it can be had."""
        names = Handles(b"s" * 32, "t")
        pieces = {names.of(SECRET): SECRET}
        for keys in ((ONE,), (TWO,)):
            store = await shelf.with_keys(*keys)
            removed = Removed(store, store.flush if isinstance(store, FileDecisions) else None)
            assert await removed.get("t", names.of(SECRET)) is None
            await removed.keep("t", pieces)
            assert await removed.get("t", names.of(SECRET)) == SECRET

    async def test_a_value_does_not_open_under_another_key_of_the_store(self, shelf: Shelf) -> None:
        seal = sealer(ONE)
        from farthing.compress.decided import decode, encode

        stored = encode(KEYS[0], SHORT, seal)
        assert decode(KEYS[0], stored, seal) == SHORT
        assert decode(KEYS[1], stored, seal) is None

    async def test_forgetting_needs_no_key(self, shelf: Shelf) -> None:
        await put(await shelf.with_keys(ONE), KEYS[0], SHORT)
        await (await shelf.with_keys(TWO)).forget(KEYS[0][:8])
        assert await (await shelf.with_keys(ONE)).get_many(KEYS[:1]) == Found([None])


def command(*arguments: str, keys: tuple[str, ...]) -> tuple[int, str, str]:
    env = {"FARTHING_STORE__ENCRYPTION_KEY": keys[0]} if keys else {}
    if keys[1:]:
        env["FARTHING_STORE__ENCRYPTION_OLD_KEYS"] = json.dumps(keys[1:])
    shown = CliRunner().invoke(app, arguments, env=env)
    return shown.exit_code, shown.stdout, shown.stderr + (str(shown.exception) if shown.exception else "")


async def test_captures_are_sealed_and_every_reader_opens_them(tmp_path: Path) -> None:
    """Exported, sampled for an evaluation, replayed, erased by user: with the key, and never without a word."""
    home = tmp_path / "s"
    sealed = {"capture__enabled": True, "cache__mode": "off", "store__encryption_key": ONE}
    async with scripted() as up, proxied(up.url, home, **sealed) as proxy:
        up.default = Script(says=SECRET)
        for user in ("u-one", "u-two", "u-two"):
            await proxy.post(chat(f"{SECRET}, says {user}"), x_farthing_user=user)
        await proxy.rows(3)
    held = b"".join(file.read_bytes() for file in home.glob("capture.db*"))
    assert held and SECRET.encode() not in held

    trace, suite = tmp_path / "trace.jsonl", tmp_path / "suite.jsonl"
    state = ("--state", str(home))
    trace.write_text("what was here before")
    for keys in ((TWO,), ()):
        for asked_for in (("capture", "export", str(trace)), ("eval", "sample", str(suite))):
            code, _, said = command(*asked_for, *state, keys=keys)
            assert code != 0 and "is sealed under the key" in said and "encryption_old_keys" in said, said
            assert ONE not in said and TWO not in said
    assert trace.read_text() == "what was here before" and not suite.exists()

    assert command("capture", "export", str(trace), *state, keys=(TWO, ONE))[0] == 0
    lines = [json.loads(line) for line in trace.read_text("utf-8").splitlines()]
    assert len(lines) == 3 and all(SECRET in json.dumps(line["request"]) for line in lines)
    assert command("eval", "sample", str(suite), *state, keys=(ONE,))[0] == 0
    assert SECRET in suite.read_text("utf-8")
    code, said, _ = command("replay", str(trace), *state, "--json", keys=(ONE,))
    assert code == 0 and json.loads(said)["requests"] == 3
    code, said, _ = command("capture", "erase", "--user", "u-two", *state, "--json", keys=())
    assert (code, json.loads(said)["erased"]) == (0, 2)
    assert command("capture", "export", str(trace), *state, keys=(ONE,))[0] == 0
    (left,) = [json.loads(line) for line in trace.read_text("utf-8").splitlines()]
    assert left["user"] == "u-one"


async def texts_everywhere(proxy: Proxied, up: ScriptedUpstream) -> None:
    """Ask until every place that keeps texts has some."""
    await loaded(proxy)
    up.default = Script(says=SECRET)
    await proxy.post(QUESTION)
    up.default = Script(fetches=0)
    await begun(proxy, asked())
    await proxy.post(asked(turns=1))
    deferred = await proxy.post(chat(f"How do I change {SECRET}?"), x_farthing_defer="24h")
    assert deferred.status_code == 202
    await proxy.rows(3)


async def test_no_prompt_and_no_answer_stands_anywhere_in_the_state_directory(tmp_path: Path) -> None:
    """With all on that keeps texts. A new file that forgets the seal is found here."""
    words = ("how do I change", SECRET, blob()[:60])
    on = UNPROVEN | {
        "compress__retrieval": True, "cache__mode": "exact", "capture__enabled": True, "semantic__mode": "serve",
        "semantic__unproven": True, "store__encryption_key": ONE, "upstream__batch": True, "defer__flush_s": 600,
    }  # fmt: skip
    async with scripted() as up, proxied(up.url, tmp_path, **on) as proxy:
        await texts_everywhere(proxy, up)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    found = {
        file.name: [word for word in words if word.lower().encode() in file.read_bytes().lower()] for file in files
    }
    assert {"answers.db", "semantic.db", "capture.db", "decided.db", "removed.db", "deferred.db"} <= found.keys()
    assert not any(found.values()), found
    for name, table in (("semantic", "texts"), ("decided", "decided"), ("removed", "decided"), ("capture", "captured")):
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as db:
            assert db.execute(f"select count(*) from {table}").fetchone()[0], name
