"""Backup and restore by the real command line: answers through an archive, SQLite files by its online backup."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.commands import farthing
from tests.fakes.upstream import scripted
from tests.fakes.valkey import running_valkey
from tests.scenario.test_serve import ask, serving

TEXTS = [f"question {number}" for number in range(20)]
PATIENT = {"FARTHING_STORE__DEADLINE_MS": "5000"}  # a busy machine passes by what would be a hit


@pytest.mark.parametrize(
    ("from_redis", "to_redis"),
    [
        (False, True),
        (True, False),
        *(pytest.param(*same, marks=pytest.mark.long) for same in [(False,) * 2, (True,) * 2]),
    ],
)
async def test_answers_move_from_any_store_to_any_store(tmp_path: Path, from_redis: bool, to_redis: bool) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (new / "state").mkdir(parents=True)
    with running_valkey() as first, running_valkey() as second:
        source = {"FARTHING_STORE__URL": first, **PATIENT} if from_redis else {}
        target = {"FARTHING_STORE__URL": second, **PATIENT} if to_redis else {}
        async with scripted() as up:
            async with serving(up, old, **source) as (_, client):
                for text in TEXTS:
                    await ask(client, text)
                stream = await ask(client, "a stream", stream=True)
                async with asyncio.timeout(20):
                    while (await client.get("/farthing/api/health")).json()["store"]["entries"] < len(TEXTS) + 1:
                        await asyncio.sleep(0.05)
                kept = await asyncio.to_thread(  # while it runs
                    lambda: farthing("cache", "export", "kept.jsonl", "--state", "state", cwd=old, **source)
                )
            assert kept.returncode == 0, kept.stderr
            assert "21 stored answers written" in kept.stderr
            assert stat.S_IMODE((old / "kept.jsonl").stat().st_mode) == 0o600

            shutil.copy(old / "state" / "secret", new / "state" / "secret")
            arguments = ("cache", "import", str(old / "kept.jsonl"), "--state", "state", "--json")
            once, twice = (farthing(*arguments, cwd=new, **target) for _ in range(2))
            assert json.loads(once.stdout) == {"read": 21, "added": 21, "expired": 0, "older": 0}, once.stderr
            assert json.loads(twice.stdout) == {"read": 21, "added": 0, "expired": 0, "older": 21}

            calls = len(up.calls)
            async with serving(up, new, **target) as (_, client):
                hits = [await ask(client, text) for text in TEXTS]
                again = await ask(client, "a stream", stream=True)
            assert {hit.headers["x-farthing-cache"] for hit in hits} == {"hit-exact"}
            assert again.headers["x-farthing-cache"] == "hit-exact"
            assert again.content.count(b"data: ") == stream.content.count(b"data: ")
            assert len(up.calls) == calls


async def test_another_secret_a_cut_archive_and_a_running_farthing_are_refused(tmp_path: Path) -> None:
    async with scripted() as up:
        async with serving(up, tmp_path) as (_, client):
            await ask(client)
            await asyncio.sleep(0.3)
            whole = await asyncio.to_thread(farthing, "cache", "export", "--state", "state", cwd=tmp_path)
            (tmp_path / "kept.jsonl").write_text(whole.stdout)
            held = await asyncio.to_thread(farthing, "cache", "import", "kept.jsonl", "--state", "state", cwd=tmp_path)
        async with serving(up, tmp_path, "--state", "other"):
            pass
    (tmp_path / "cut.jsonl").write_text(whole.stdout[:-20])
    for ended, said in (
        (held, "stop it, import, start it"),
        (farthing("cache", "import", "kept.jsonl", "--state", "other", cwd=tmp_path), "under another secret"),
        (farthing("cache", "import", "cut.jsonl", "--state", "state", cwd=tmp_path), "not a JSON object"),
        (farthing("cache", "import", "none.jsonl", "--state", "state", cwd=tmp_path), "No such file"),
        (farthing("cache", "import", "kept.jsonl", "--state", "nowhere", cwd=tmp_path), "there is no nowhere/secret"),
        (farthing("cache", "export", "none/x.jsonl", "--state", "state", cwd=tmp_path), "can't write none/x.jsonl"),
    ):
        assert ended.returncode == 2, ended.stderr
        assert said in ended.stderr.replace("\n", " ")
    away = farthing("cache", "export", "--state", "state", cwd=tmp_path, FARTHING_STORE__URL="redis://127.0.0.1:1/0")
    assert away.returncode == 3
    assert json.loads(farthing("cache", "stats", "--state", "other", "--json", cwd=tmp_path).stdout)["entries"] == 0


BACKUP = (Path(__file__).parents[2] / "deploy" / "backup.py").read_text("utf-8")


def test_the_documented_backup_leaves_out_what_is_still_written_and_takes_databases_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row waits in a file until it is in the ledger, so the file is read before; and may be gone when it is read."""
    state, copied = tmp_path / "state", list[str]()
    (state / "policies").mkdir(parents=True)
    for name in ("lock", "watch.json", "watch.new.json", ".keys.new", "ledger.waiting-1", "gone", "policies/1.json"):
        (state / name).write_text(name)
    with closing(sqlite3.connect(state / "ledger.db")) as ledger:
        ledger.execute("create table requests (id text)")
    backup: dict[str, Any] = {"__name__": "backup"}
    exec(compile(BACKUP, "backup.py", "exec"), backup)

    def copy2(path: Path, to: Path) -> None:
        copied.append(path.name)
        assert not (tmp_path / "copy" / "ledger.db").exists()
        if path.name == "gone":
            raise FileNotFoundError(path)
        to.write_bytes(path.read_bytes())

    monkeypatch.setattr(shutil, "copy2", copy2)
    backup["main"](state, tmp_path / "copy")

    assert sorted(copied) == ["1.json", "gone", "ledger.waiting-1", "watch.json"]
    found = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert found == {"policies/1.json", "ledger.waiting-1", "watch.json", "ledger.db"}


async def test_the_documented_backup_is_whole_while_rows_are_written(tmp_path: Path) -> None:
    (tmp_path / "backup.py").write_text(BACKUP)
    async with scripted() as up:
        async with serving(up, tmp_path) as (_, client):

            async def keep_asking() -> None:
                for number in range(60):
                    await ask(client, f"while {number}")

            asking = asyncio.create_task(keep_asking())
            while len(up.calls) < 10:
                await asyncio.sleep(0.01)
            for copy in ("one", "two"):
                child = await asyncio.create_subprocess_exec(
                    "python3", "backup.py", "state", copy, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
                )
                await child.communicate()
                assert child.returncode == 0
            await asking
        async with serving(up, tmp_path, "--state", "two") as (_, restored):
            assert (await ask(restored, "while 1")).headers["x-farthing-cache"] == "hit-exact"
    assert not (tmp_path / "one" / "lock").exists()
    for copy in ("one", "two"):
        with closing(sqlite3.connect(tmp_path / copy / "ledger.db")) as ledger:
            assert ledger.execute("pragma integrity_check").fetchone() == ("ok",)
            assert ledger.execute("select count(*) from requests").fetchone()[0] >= 1
        assert (tmp_path / copy / "secret").read_text() == (tmp_path / "state" / "secret").read_text()
        assert stat.S_IMODE((tmp_path / copy).stat().st_mode) == 0o700
    assert farthing("ledger", "check", "--state", "two", cwd=tmp_path).returncode == 0
