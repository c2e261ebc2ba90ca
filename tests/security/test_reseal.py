"""`farthing reseal`: all that is stored comes under the current key, whatever happens meanwhile; nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from farthing.cache.codec import decode, encode
from farthing.cache.log_redis import RedisLog
from farthing.cache.semantic_disk import Row
from farthing.cache.store_redis import RedisStore
from farthing.compress.decided_disk import FileDecisions
from farthing.compress.decided_redis import RedisDecisions
from farthing.compress.decided_store import Found
from farthing.proxy import replay_state, state
from farthing.proxy.clock import SystemClock
from farthing.proxy.reseal import Tally, reseal_files
from farthing.proxy.seal import Seal, SealedElsewhere, Sealer, closed, opened
from tests.fakes.proxying import chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream, scripted
from tests.fakes.valkey import ValkeyProcess
from tests.fakes.valkey_many import ValkeyCluster
from tests.security.test_sealing import ONE, TWO, entry, sealer
from tests.security.test_sealing_kept import (
    KEYS,
    QUESTION,
    SECRET,
    SHORT,
    command,
    disk,
    put,
    row,
    rows_in,
    texts_everywhere,
)
from tests.wire.test_compress import UNPROVEN
from tests.wire.test_retrieval import blob
from tests.wire.test_semantic import loaded

ALL = ("answers.db", "semantic.db", "decided.db", "removed.db", "capture.db", "deferred.db")
WORDS = ("how do i change", SECRET, blob()[:60])
EVERYTHING = UNPROVEN | {
    "compress__retrieval": True, "cache__mode": "exact", "capture__enabled": True, "semantic__mode": "serve",
    "semantic__unproven": True, "upstream__batch": True, "defer__flush_s": 600,
}  # fmt: skip


@pytest.fixture
async def up() -> AsyncIterator[ScriptedUpstream]:
    async with scripted() as upstream:
        yield upstream


def keyed(*keys: str) -> dict[str, Any]:
    return {"store__encryption_key": keys[0], "store__encryption_old_keys": list(keys[1:])} if keys else {}


def resealed(home: Path, *keys: str, **env: str) -> tuple[int, dict[str, Any], str]:
    """Status, what it says as JSON, what it says else."""
    code, said, error = command("reseal", "--state", str(home), "--json", keys=keys)
    return code, json.loads(said) if said else {}, error


async def filled(up: ScriptedUpstream, home: Path, *keys: str) -> None:
    """Every place that holds texts, with some in it."""
    async with proxied(up.url, home, **EVERYTHING, **keyed(*keys)) as proxy:
        await texts_everywhere(proxy, up)
    secret = bytes.fromhex((home / "secret").read_text("ascii"))
    content = closed(sealer(*keys) if keys else None, f"f\n{SECRET}".encode(), b"replay state")
    (home / "trace.jsonl.replay-state").write_bytes(b"".join(replay_state._signed(content, secret)))


def words_in(home: Path) -> dict[str, list[str]]:
    """Which texts stand in which file."""
    files = [file for file in home.rglob("*") if file.is_file()]
    found = {
        file.name: [word for word in WORDS if word.lower().encode() in file.read_bytes().lower()] for file in files
    }
    return {name: words for name, words in found.items() if words}


async def all_is_there(up: ScriptedUpstream, home: Path, *keys: str) -> None:
    """With these keys alone: the answer is served, the near-duplicate found, and the others read."""
    async with proxied(up.url, home, **EVERYTHING, **keyed(*keys)) as proxy:
        await loaded(proxy)
        answer = await proxy.post(QUESTION)
        assert answer.headers["x-farthing-cache"] == "hit-exact" and SECRET in answer.text
        assert proxy.services.thread is not None
        assert proxy.services.thread.entries == len(stored(home / "semantic.db")) > 0
    trace = home.parent / "trace.jsonl"
    assert command("capture", "export", str(trace), "--state", str(home), keys=keys)[0] == 0
    assert SECRET in trace.read_text("utf-8")
    trace.unlink()
    with closing(sqlite3.connect(home / "deferred.db")) as db:
        id, body = db.execute("select id, body from requests").fetchone()
    assert SECRET.encode() in sealer(*keys).open(body, f"deferred {id} body".encode())
    for name in ("decided", "removed"):
        store = FileDecisions(
            home / f"{name}.db", clock=SystemClock(), ttl_s=1e6, max_bytes=10**8, memory_bytes=0, seal=sealer(*keys)
        )
        with closing(sqlite3.connect(home / f"{name}.db")) as db:
            names = [key for (key,) in db.execute("select key from decided")]
        found = await store.get_many(names)
        await store.close()
        assert names and not found.away and None not in found.decisions, name
    kept = (home / "trace.jsonl.replay-state").read_bytes()
    body = replay_state._body(kept, bytes.fromhex((home / "secret").read_text("ascii")))
    assert body is not None and opened(sealer(*keys), body, b"replay state") == f"f\n{SECRET}".encode()


async def test_an_old_key_may_be_thrown_away_afterwards(up: ScriptedUpstream, tmp_path: Path) -> None:
    home = tmp_path / "s"
    await filled(up, home, ONE)
    code, found, _ = await asyncio.to_thread(resealed, home, TWO, ONE)
    assert code == 0 and found["done"] and found["left"] == {} and found["key"] == sealer(TWO).key_ids[0]
    assert set(found["stores"]) == {*ALL, "trace.jsonl.replay-state"}
    assert all(one["entries"] == one["resealed"] > 0 == one["already"] for one in found["stores"].values())

    await all_is_there(up, home, TWO)
    code, found, _ = await asyncio.to_thread(resealed, home, TWO)
    assert code == 0 and all(one["already"] == one["entries"] > one["resealed"] for one in found["stores"].values())


async def test_what_was_stored_in_the_open_is_sealed_and_stands_nowhere_any_more(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    home = tmp_path / "s"
    await filled(up, home)
    assert {*ALL} - {"decided.db"} <= words_in(home).keys()
    assert (await asyncio.to_thread(resealed, home, ONE))[0] == 0
    assert not words_in(home)
    await all_is_there(up, home, ONE)


def stored(path: Path) -> list[tuple[Any, ...]]:
    tables = {"semantic": "texts", "answers": "bodies", "capture": "captured", "deferred": "requests"}
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"select * from {tables.get(path.stem, 'decided')} order by rowid").fetchall()


async def test_what_cannot_be_opened_stays_as_it_is_and_is_said(up: ScriptedUpstream, tmp_path: Path) -> None:
    home = tmp_path / "s"
    await filled(up, home, ONE)
    before = {name: stored(home / name) for name in ALL}
    code, found, _ = await asyncio.to_thread(resealed, home, TWO)
    assert code == 1 and not found["done"]
    assert found["left"] == {sealer(ONE).key_ids[0]: sum(one["entries"] for one in found["stores"].values())}
    assert all(one["unreadable"] == one["entries"] for one in found["stores"].values())
    assert {name: stored(home / name) for name in ALL} == before
    code, said, _ = await asyncio.to_thread(command, "reseal", "--state", str(home), keys=(TWO,))
    assert (
        code == 1
        and sealer(ONE).key_ids[0] in said
        and "encryption_old_keys" in said
        and "no entry is left" not in said
    )
    code, said, _ = await asyncio.to_thread(command, "reseal", "--state", str(home), keys=(TWO, ONE))
    assert code == 0 and f"no entry is left under another key than {sealer(TWO).key_ids[0]}" in said
    assert ONE not in said and TWO not in said


def test_without_a_key_there_is_nothing_to_seal_with(tmp_path: Path) -> None:
    code, _, said = resealed(tmp_path)
    assert code != 0 and "store.encryption_key" in said


async def test_a_running_farthing_goes_on_and_must_have_the_same_key(tmp_path: Path) -> None:
    settings = {"store__memory_bytes": 0}
    async with scripted() as up:
        up.default = Script(says=SECRET)
        async with proxied(up.url, tmp_path, **settings, **keyed(ONE)) as proxy:
            state.announce(tmp_path, proxy.url)
            await proxy.post(chat())
            for keys in ((TWO, ONE), (TWO,)):
                code, _, said = await asyncio.to_thread(resealed, tmp_path, *keys)
                assert code != 0 and "restart it first" in said
        async with proxied(up.url, tmp_path, **settings) as proxy:
            state.announce(tmp_path, proxy.url)
            code, _, said = await asyncio.to_thread(resealed, tmp_path, ONE)
            assert code != 0 and "seals nothing" in said
        async with proxied(up.url, tmp_path, **settings, **keyed(TWO, ONE)) as proxy:
            state.announce(tmp_path, proxy.url)
            code, found, _ = await asyncio.to_thread(resealed, tmp_path, TWO, ONE)
            assert code == 0 and found["stores"]["answers.db"]["resealed"] == 1 and found["emptied"] is False
            assert (await proxy.post(chat())).headers["x-farthing-cache"] == "hit-exact"
        async with proxied(up.url, tmp_path, **settings, **keyed(TWO)) as proxy:
            assert (await proxy.post(chat())).headers["x-farthing-cache"] == "hit-exact"


def answers(path: Path, count: int, seal: Seal | None) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("create table bodies (id integer primary key, bytes blob not null)")
        rows = ((number, encode(entry(f"{SECRET} {number}".encode()), seal)) for number in range(count))
        db.executemany("insert into bodies values (?, ?)", rows)


def test_killed_in_the_middle_it_goes_on_and_has_lost_nothing(tmp_path: Path) -> None:
    """Three times, wherever it is then."""
    count = 8_000
    answers(tmp_path / "answers.db", count, sealer(ONE))
    env = os.environ | {"FARTHING_STORE__ENCRYPTION_KEY": TWO, "FARTHING_STORE__ENCRYPTION_OLD_KEYS": f'["{ONE}"]'}
    done = [0]
    for kill in range(3):
        code = "from farthing.proxy.cli import main; main()"
        with subprocess.Popen(
            [sys.executable, "-c", code, "reseal", "--state", str(tmp_path)],
            env=env,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        ) as running:
            assert running.stderr is not None
            for _ in range(2 * kill + 2):
                assert running.stderr.readline().startswith("answers.db: ")
            running.send_signal(signal.SIGKILL)
        assert running.returncode == -signal.SIGKILL
        raws = [raw for _, raw in stored(tmp_path / "answers.db")]
        done.append(sum(is_under(raw, TWO) for raw in raws))
        bodies = [decode(raw, sealer(TWO, ONE)) for raw in raws]
        assert [one and one.body for one in bodies] == [f"{SECRET} {number}".encode() for number in range(count)]
    assert 0 < done[1] < count and done == sorted(done)

    code, found, _ = resealed(tmp_path, TWO, ONE)
    assert code == 0 and found["stores"]["answers.db"]["resealed"] == count - done[-1]
    assert all(is_under(raw, TWO) for _, raw in stored(tmp_path / "answers.db"))


def is_under(raw: bytes, key: str) -> bool:
    try:
        return decode(raw, sealer(key)) is not None
    except SealedElsewhere:
        return False


class Meanwhile:
    """A seal: while it closes a text, something happens."""

    def __init__(self, path: Path, statement: str) -> None:
        self._seal, self._path, self._statement = sealer(TWO, ONE), path, statement
        self.open, self.is_current = self._seal.open, self._seal.is_current

    def close(self, plain: bytes, bound: bytes) -> bytes:
        with closing(sqlite3.connect(self._path)) as db, db:
            db.execute(self._statement)
        return self._seal.close(plain, bound)


@pytest.mark.parametrize(
    ("statement", "left"),
    [("delete from bodies", []), ("update bodies set bytes = cast(x'00' || bytes as blob) where id = 0", [b"\0"])],
)
def test_what_another_process_changes_meanwhile_is_not_undone(
    tmp_path: Path, statement: str, left: list[bytes]
) -> None:
    path = tmp_path / "answers.db"
    answers(path, 1, sealer(ONE))
    (tally,) = reseal_files(tmp_path, Meanwhile(path, statement), lambda *_: None).values()
    assert (tally.missed, tally.resealed, tally.entries) == (1, 0, 1)
    assert [raw[:1] for _, raw in stored(path)] == left


def test_a_damaged_one_is_left_and_said(tmp_path: Path) -> None:
    answers(tmp_path / "answers.db", 3, sealer(ONE))
    with closing(sqlite3.connect(tmp_path / "answers.db")) as db, db:
        db.execute("update bodies set bytes = x'46544802' where id = 1")
    (tmp_path / "answers.db.corrupt").write_bytes(b"what was moved aside")
    code, found, _ = resealed(tmp_path, TWO, ONE)
    assert code == 1 and found["left"] == {} and found["aside"] == ["answers.db.corrupt"]
    assert found["stores"]["answers.db"] | {"already": 0} == {
        "entries": 3, "resealed": 2, "already": 0, "unreadable": 0, "damaged": 1, "unfinished": 0,
    }  # fmt: skip


def test_a_file_that_somebody_holds_or_that_is_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farthing.proxy.reseal._LOCK_WAIT_S", 0.01)
    answers(tmp_path / "answers.db", 1, sealer(ONE))
    with closing(sqlite3.connect(tmp_path / "answers.db", isolation_level=None)) as db:
        db.execute("begin exclusive")
        code, _, said = resealed(tmp_path, TWO, ONE)
        assert code == 3 and "locked" in said and "ask again" in said
    (tmp_path / "capture.db").write_bytes(b"no database at all" * 100)
    code, _, said = resealed(tmp_path, TWO, ONE)
    assert code == 3 and "capture.db" in said


def test_every_form_of_a_deferred_request_is_sealed_anew_whatever_it_was_under(tmp_path: Path) -> None:
    """Its body under one key, its answer under the next one."""
    with closing(sqlite3.connect(tmp_path / "deferred.db")) as db, db:
        db.execute("create table requests (id text, sealed integer, body, sent, known, said, paid, answer)")
        texts = [sealer(key).close(SECRET.encode(), f"deferred d {name}".encode()) for key, name in
                 ((ONE, "body"), (TWO, "answer"))]  # fmt: skip
        db.execute("insert into requests values ('d', 1, ?, null, null, null, null, ?)", texts)
    assert resealed(tmp_path, TWO)[0] == 1
    code, found, _ = resealed(tmp_path, TWO, ONE)
    assert code == 0 and found["stores"]["deferred.db"]["resealed"] == 1
    ((_, sealed, body, _, _, _, _, answer),) = stored(tmp_path / "deferred.db")
    assert sealed == 1
    assert (
        sealer(TWO).open(body, b"deferred d body") == sealer(TWO).open(answer, b"deferred d answer") == SECRET.encode()
    )


def test_near_duplicates_of_every_model_are_sealed_anew(tmp_path: Path) -> None:
    one = disk(tmp_path / "semantic.db", ONE)
    one.load()
    one.put(row("sealed"))
    one.close()
    bare = disk(tmp_path / "semantic.db")
    bare.load()
    bare.put(row("open"))
    bare.close()
    assert resealed(tmp_path, TWO, ONE)[0] == 0
    assert rows_in(tmp_path / "semantic.db", TWO) == [SECRET, SECRET]


@pytest.fixture(scope="module", params=["one server", "cluster"])
def valkey(request: pytest.FixtureRequest) -> Iterator[ValkeyProcess | ValkeyCluster]:
    with ValkeyProcess() if request.param == "one server" else ValkeyCluster(replicas=False) as there:
        yield there


def emptied(valkey: ValkeyProcess | ValkeyCluster) -> Any:
    """A client of it, when there is nothing in it."""
    if isinstance(valkey, ValkeyProcess):
        client: Any = redis.Redis.from_url(valkey.url)
    else:
        client = redis.RedisCluster("127.0.0.1", valkey.port)
    client.flushall()
    return client


@pytest.mark.parametrize("was", [(), (ONE,)], ids=["open", "sealed"])
async def test_what_lies_in_redis_is_sealed_anew_and_replicas_follow(
    up: ScriptedUpstream,
    tmp_path: Path,
    valkey: ValkeyProcess | ValkeyCluster,
    was: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = emptied(valkey)
    before = sealer(*was) if was else None
    clock = SystemClock()
    server = RedisStore(valkey.url, deadline_ms=5000, clock=clock, seal=before)
    where = {"store__url": valkey.url, "store__deadline_ms": 5000, "store__stale_s": 0}
    async with proxied(up.url, tmp_path, **where, **keyed(*was)) as proxy:
        up.default = Script(says=SECRET)
        await proxy.post(chat())
    decisions = RedisDecisions(server, clock=clock, ttl_s=600, memory_bytes=0, seal=before)
    await put(decisions, KEYS[0], SHORT)

    def log(name: str, seal: Seal | None) -> RedisLog:
        return RedisLog(server, embedder="e", dim=4, writer=name, clock=clock, noise=name, seal=seal)

    vector = np.arange(4, dtype=np.float32) / 8
    writer, follower = log("a", before), log("b", sealer(TWO, ONE))
    await exchanged(writer)
    for text in ("an older text", SECRET):
        writer.put(Row("s", "k", text, 4e9, vector))
        await exchanged(writer)
    if was:
        await exchanged(follower)
        assert [one.text for one in follower.snapshot().rows] == [SECRET]

    monkeypatch.setenv("FARTHING_STORE__URL", valkey.url)
    with client:
        lives = {name: client.pttl(name) for name in client.scan_iter("farthing:*")}
        code, found, said = await asyncio.to_thread(resealed, tmp_path, TWO, *was)
        assert code == 0, said
        counts = {place: one["resealed"] for place, one in found["stores"].items() if place.startswith("redis")}
        assert counts == {"redis answers": 1, "redis decided": 1, "redis near-duplicates": 1}
        assert lives and all(0 < client.pttl(name) <= lives[name] for name in lives)
        held = b"".join(at_rest(client, name) for name in client.scan_iter())
    assert SECRET.encode() not in held and b"older text" not in held
    if was:
        assert bytes.fromhex(sealer(ONE).key_ids[0]) not in held
        await exchanged(follower)
        changes = follower.since(0)
        assert [one.text for one in changes.put] == [SECRET] and not changes.gone
    await server.close()

    now = RedisStore(valkey.url, deadline_ms=5000, clock=clock, seal=sealer(TWO))
    there = await RedisDecisions(now, clock=clock, ttl_s=600, memory_bytes=0, seal=sealer(TWO)).get_many(KEYS[:1])
    assert there == Found([SHORT])
    late = RedisLog(now, embedder="e", dim=4, writer="c", clock=clock, noise="c", seal=sealer(TWO))
    await exchanged(late)
    assert [one.text for one in late.snapshot().rows] == [SECRET]
    await now.close()
    async with proxied(up.url, tmp_path, **where, **keyed(TWO)) as proxy:
        assert (await proxy.post(chat())).headers["x-farthing-cache"] == "hit-exact"


async def exchanged(log: RedisLog) -> None:
    for _ in range(5):
        if not await log.exchange():
            break
    assert log.state.reached


def at_rest(client: Any, name: bytes) -> bytes:
    kind = client.type(name)
    if kind == b"string":
        return bytes(client.get(name))
    if kind == b"hash":
        return b"".join(client.hvals(name))
    if kind == b"stream":
        return b"".join(value for _, fields in client.xrange(name) for value in fields.values())
    return b""


def test_the_recipe_of_the_docs_ends_with_the_old_key_thrown_away(tmp_path: Path) -> None:
    recipe = (
        Path("docs/security.md").read_text("utf-8").partition("<!-- recipe -->")[2].partition("<!-- /recipe -->")[0]
    )
    commands = recipe.partition("```\n")[2].rpartition("```")[0]
    assert commands.count("farthing ") >= 2
    (tmp_path / ".farthing").mkdir()
    answers(tmp_path / ".farthing" / "answers.db", 5, sealer(ONE))
    env = {name: value for name, value in os.environ.items() if not name.startswith("FARTHING_")}
    env |= {"FARTHING_STORE__ENCRYPTION_KEY": ONE, "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
    script = f"{commands}\nfarthing reseal --json > after\nprintf %s $FARTHING_STORE__ENCRYPTION_KEY > key\n"
    shown = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "no entry is left under another key" in shown.stdout
    assert json.loads((tmp_path / "after").read_text())["stores"]["answers.db"]["already"] == 5
    assert all(
        is_under(raw, (tmp_path / "key").read_text()) for _, raw in stored(tmp_path / ".farthing" / "answers.db")
    )


def test_the_key_s_id_is_no_key() -> None:
    seal = sealer(ONE, TWO)
    assert isinstance(seal, Sealer) and len(seal.key_ids) == 2 and seal.key_ids[0] == sealer(ONE).key_ids[0]
    assert not {ONE, TWO} & set(seal.key_ids) and Tally().entries == 0
