"""A user is forgotten everywhere at once, another one nowhere, and a second look proves it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from farthing.proxy.cli import app
from tests.fakes.batches import BatchUpstream, batching
from tests.fakes.proxying import Proxied, chat, proxied
from tests.wire.test_semantic import learnt, loaded

ADMIN = {"x-farthing-admin": "1"}
EVERYWHERE: dict[str, Any] = {
    "capture__enabled": True, "upstream__batch": True, "defer__flush_s": 600,
}  # fmt: skip


@pytest.fixture
async def up() -> AsyncIterator[BatchUpstream]:
    async with batching() as one:
        yield one


async def lived(proxy: Proxied, user: str) -> None:
    """A user leaves words in every place."""
    named = {"x_farthing_user": user, "x_farthing_tags": f"user={user}"}
    answer = await proxy.post(chat(f"a word of {user}"), **named)
    said = {"id": answer.headers["x-farthing-id"], "rating": "good", "comment": f"said by {user}"}
    await proxy.rows(1)
    rated = await proxy.client.post("/farthing/api/feedback", json=said, headers=ADMIN)
    assert rated.status_code == 200, rated.text
    deferred = await proxy.post(chat(f"later, says {user}"), x_farthing_defer="24h", **named)
    assert deferred.status_code == 202


async def erase(proxy: Proxied, **asked: Any) -> dict[str, Any]:
    answer = await proxy.client.post("/farthing/api/erase", json=asked, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def words(state_dir: Path, text: str) -> dict[str, int]:
    """Where the text still stands, by table, as anybody with the file would see it."""
    found = {}
    for file in state_dir.glob("*.db"):
        with closing(sqlite3.connect(file)) as db:
            for (table,) in db.execute("select name from sqlite_master where type = 'table'").fetchall():
                dump = repr(db.execute(f"select * from {table}").fetchall())
                if text in dump:
                    found[f"{file.name}:{table}"] = dump.count(text)
    return found


async def test_every_place_forgets_one_user_and_no_place_another(up: BatchUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **EVERYWHERE) as proxy:
        await lived(proxy, "u-one")
        await lived(proxy, "u-two")
        found = await erase(proxy, user="u-one")
        again = await erase(proxy, user="u-one")
        await proxy.rows(1)
        standing = [words(tmp_path, text) for text in ("a word of u-one", "said by u-one", "later, says u-one")]
        other = (await proxy.post(chat("a word of u-two"))).headers["x-farthing-cache"]
        gone = (await proxy.post(chat("a word of u-one"), Cache_Control="only-if-cached")).status_code

    assert (found["verified"], found["left"]) == (True, dict.fromkeys(found["left"], 0))
    assert found["erased"]["captured"] >= 1
    assert {name: count for name, count in found["erased"].items() if name not in ("captured", "near_duplicates")} == {
        "deferred": 1,
        "comments": 1,
        "answers": 1,
    }
    assert not any(again["erased"].values())
    assert (other, gone) == ("hit-exact", 504)
    assert standing == [{}, {}, {}]
    assert words(tmp_path, "said by u-two") and words(tmp_path, "later, says u-two")


async def test_what_cannot_be_understood_erases_nothing(up: BatchUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **EVERYWHERE) as proxy:
        await lived(proxy, "u-one")
        for asked in ({}, {"user": ""}, {"user": " "}, {"user": 7}, {"user": "u-one", "tenant": "t"}, {"texts": True},
                      {"user": "u-one", "texts": "yes"}):  # fmt: skip
            answer = await proxy.client.post("/farthing/api/erase", json=asked, headers=ADMIN)
            assert answer.status_code == 400, asked
        assert (await erase(proxy, user="u-one"))["erased"]["deferred"] == 1


async def test_the_command_line_does_it_on_a_stopped_farthing(up: BatchUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path / "s", **EVERYWHERE) as proxy:
        await lived(proxy, "u-one")
    file = tmp_path / "farthing.toml"
    file.write_text(f'[upstream]\nurl = "{up.url}"\nbatch = true\n[semantic]\nmode = "off"\n')
    args = ["erase", "--user", "u-one", "--texts", "--config", str(file), "--state", str(tmp_path / "s"), "--json"]
    shown = await asyncio.to_thread(CliRunner().invoke, app, args)
    found = json.loads(shown.stdout)
    assert shown.exit_code == 0
    assert found["verified"] and found["erased"]["captured"] >= 1 and found["erased"]["comments"] == 1
    assert words(tmp_path / "s", "a word of u-one") == {}


async def test_near_duplicates_texts_go_although_no_index_is_loaded(up: BatchUpstream, tmp_path: Path) -> None:
    """A command's farthing has the file, and its index not yet; one whose semantic cache is off now has none at all."""
    serves: dict[str, Any] = {"semantic__mode": "serve", "semantic__unproven": True}
    async with proxied(up.url, tmp_path, **EVERYWHERE | serves) as proxy:
        await loaded(proxy)
        for user in ("u-one", "u-two"):
            named = {"x_farthing_user": user, "x_farthing_tags": f"user={user}"}
            await proxy.post(chat(f"How does {user} change an address?", temperature=0), **named)
        await learnt(proxy, 2)
    assert words(tmp_path, "How does u-one")
    async with proxied(up.url, tmp_path, **EVERYWHERE) as proxy:
        found = await erase(proxy, user="u-one")
    assert found["verified"] and found["erased"]["near_duplicates"] == 1
    assert not words(tmp_path, "How does u-one") and words(tmp_path, "How does u-two")
