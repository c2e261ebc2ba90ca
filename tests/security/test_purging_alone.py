"""What is removed while nothing serves it is gone from the files and the shared store too, and replicas hear of it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from typer.testing import CliRunner

from farthing.cache.log_purge import forget_in_logs
from farthing.cache.log_redis_wire import Names
from farthing.cache.semantic_disk import Row, SemanticDisk, forget_in
from farthing.compress.decided import Decision, chain
from farthing.compress.decided_disk import FileDecisions
from farthing.proxy.cli import app
from farthing.proxy.clock import FakeClock
from tests.cache.test_replicas import Replica, agree, settle
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream, scripted
from tests.fakes.valkey import ValkeyProcess
from tests.wire.test_retrieval import ON, asked, begun
from tests.wire.test_semantic import learnt, loaded

ADDRESS, FRANCE = "How do I change my delivery address?", "What is the capital of France?"
SEMANTIC: dict[str, Any] = {"semantic__mode": "serve", "semantic__unproven": True}


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as server:
        yield server


@pytest.fixture(autouse=True)
def emptied(valkey: ValkeyProcess) -> None:
    valkey.command("FLUSHALL")


def at_rest(url: str) -> bytes:
    """All that stands in the server, streams and hashes included."""
    held: list[bytes] = []
    with redis.Redis.from_url(url) as client:
        for name in client.scan_iter():
            kind = client.type(name)
            if kind == b"string":
                held.append(client.get(name))
            elif kind == b"hash":
                held += client.hgetall(name).values()
            else:
                held += [value for _, fields in client.xrange(name) for value in fields.values()]
    return b"\n".join(held)


@pytest.mark.parametrize("everything", [False, True])
async def test_replicas_follow_a_purge_by_a_command(valkey: ValkeyProcess, everything: bool) -> None:
    one, other = Replica(valkey, "x"), Replica(valkey, "y")
    for key in ("France", "Spain", "Italy"):
        one.add(key)
    await settle(one, other)
    gone = await forget_in_logs(
        one.log.store, [] if everything else ["France", "Chad"], writer="a command", everything=everything, prefix="t"
    )
    await settle(one, other)

    assert gone == (3 if everything else 1)
    assert one.cache.keys() == other.cache.keys() == (set() if everything else {"Spain", "Italy"})
    assert agree(one, other)
    assert b"capital of France" not in at_rest(valkey.url)
    assert (b"capital of Spain" in at_rest(valkey.url)) is not everything
    for replica in (one, other):
        await replica.log.store.close()


async def test_no_log_no_work(valkey: ValkeyProcess) -> None:
    one = Replica(valkey, "x")
    assert await forget_in_logs(one.log.store, ["France"], writer="a command", everything=True, prefix="t") == 0
    await one.log.store.close()


def test_a_log_is_found_again_by_the_name_of_its_about() -> None:
    names = Names("t", "any model")
    assert Names.at(names.about).chunks == names.chunks and Names.at(names.about).stream == names.stream


async def purge(state_dir: Path, url: str, *chosen: str) -> dict[str, int]:
    env = {"FARTHING_STORE__URL": url} if url else {}
    args = ["cache", "purge", *chosen, "--state", str(state_dir), "--json"]
    shown = await asyncio.to_thread(CliRunner().invoke, app, args, env=env)
    assert shown.exit_code == 0, shown.output
    found: dict[str, int] = json.loads(shown.stdout)
    return found


async def lived(proxy: Proxied, up: ScriptedUpstream) -> None:
    """Two answers of two models, which near-duplicates could find, and a text that was left out of a prompt."""
    await loaded(proxy)
    up.default = Script()
    await proxy.post(chat(ADDRESS, temperature=0), x_farthing_tags="doc=a")
    await proxy.post(chat(FRANCE, temperature=0), x_farthing_tags="doc=b")
    await learnt(proxy, 2)
    up.default = Script(fetches=0)
    await begun(proxy, asked())
    await proxy.post(asked(turns=1))
    await proxy.rows(4)


def kept(path: Path, table: str) -> int:
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute(f"select count(*) from {table}").fetchone()[0])


@pytest.mark.parametrize("shared", [False, True], ids=["file", "redis"])
async def test_the_command_leaves_nothing_where_nothing_runs(
    tmp_path: Path, valkey: ValkeyProcess, shared: bool
) -> None:
    url = valkey.url if shared else ""
    on = ON | SEMANTIC | {"cache__mode": "exact", "store__url": url, "store__deadline_ms": 5000}
    async with scripted() as up, proxied(up.url, tmp_path, **on) as proxy:
        await lived(proxy, up)
        if proxy.services.thread is not None and proxy.services.thread.shared is not None:
            await proxy.services.thread.shared.look(proxy.services.thread)

    def texts() -> bytes:
        files = b"".join(file.read_bytes() for file in tmp_path.glob("*.db*"))
        return (at_rest(url) if url else files).lower()

    assert b"delivery address" in texts() and b"capital of france" in texts()
    before = kept(tmp_path / "semantic.db", "texts")
    one = await purge(tmp_path, url, "--tag", "doc=a")
    assert one == {"purged": 1, "near_duplicates": 1}
    if url:
        assert b"delivery address" not in texts() and b"capital of france" in texts()
    else:
        assert kept(tmp_path / "semantic.db", "texts") == before - 1 and b"delivery address" not in texts()
    assert (kept(tmp_path / "removed.db", "decided") or b"scan.bin" in texts()) or url
    rest = await purge(tmp_path, url, "--all")
    assert rest["purged"] >= 1 and rest["near_duplicates"] >= 1
    if url:
        assert b"capital of france" not in texts() and b'"data"' not in texts()
        with redis.Redis.from_url(url) as client:
            assert not [name for name in client.scan_iter() if b":d:" in name]
    else:
        for name, table in (("semantic", "texts"), ("decided", "decided"), ("removed", "decided")):
            assert kept(tmp_path / f"{name}.db", table) == 0, name


async def test_what_is_removed_is_overwritten(tmp_path: Path) -> None:
    """In free pages of the files too: nobody finds there what was to be forgotten."""
    path, secret = tmp_path / "decided.db", "the-merger-is-on"
    store = FileDecisions(path, clock=FakeClock(), ttl_s=1000, max_bytes=10**7, memory_bytes=0, flush_ms=1)
    await store.open()
    keys = chain("t", "p", [{"content": str(number)} for number in range(3)])
    await store.put_many([(key, Decision((secret * 20,))) for key in keys])
    await store.flush()
    await store.forget(keys[0][:8])
    await store.close()
    near = SemanticDisk(tmp_path / "semantic.db", embedder="e", dim=4)
    near.load()
    for name in "ab":
        near.put(Row("s", name, secret * 20, 9e9, np.ones(4, np.float32)))
    near.delete(["a"])
    near.close()
    assert forget_in(tmp_path / "semantic.db", ["b"]) == 1
    assert not [file.name for file in tmp_path.glob("*.db*") if secret.encode() in file.read_bytes()]


async def test_a_server_that_is_away_is_said(tmp_path: Path) -> None:
    with ValkeyProcess() as gone:
        url = gone.url
    args = ["cache", "purge", "--all", "--state", str(tmp_path)]
    shown = await asyncio.to_thread(CliRunner().invoke, app, args, env={"FARTHING_STORE__URL": url})
    assert shown.exit_code != 0
    assert "ask again" in shown.output + str(shown.exception)


async def test_what_a_feature_that_is_off_now_has_left_goes_too(tmp_path: Path) -> None:
    """The file is there, and nobody has it open."""
    async with scripted() as up:
        async with proxied(up.url, tmp_path, **ON | SEMANTIC | {"cache__mode": "exact"}) as proxy:
            await lived(proxy, up)
        async with proxied(up.url, tmp_path) as proxy:
            headers = {"x-farthing-admin": "1"}
            answer = await proxy.client.post("/farthing/api/cache/purge", json={}, headers=headers)
            assert answer.status_code == 200, answer.text
            assert answer.json()["near_duplicates"] >= 2
    for name, table in (("semantic", "texts"), ("decided", "decided"), ("removed", "decided")):
        assert kept(tmp_path / f"{name}.db", table) == 0, name
