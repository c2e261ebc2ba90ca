"""The ranks are loaded at the start where the answers before had to be counted, and nowhere else."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.ledger_file import INSERT, connect
from farthing.proxy.ledger_waiting import WaitingRows
from farthing.proxy.row import Row
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.warming import warm
from tests.fakes.proxying import Proxied, chat, proxied, quiet
from tests.fakes.rows import row
from tests.fakes.upstream import Script, scripted


async def ready(proxy: Proxied) -> bool:
    """Whether the ranks are there once all is done that goes on behind the start."""
    await quiet(proxy)
    return proxy.services.state.tokenizer.ready("m")


async def test_a_row_waits_for_the_ranks_once_in_a_state_directorys_life(tmp_path: Path) -> None:
    async with scripted() as up:
        async with proxied(up.url, tmp_path) as proxy:
            await proxy.post(chat("told"))
            await proxy.rows(1)
        async with proxied(up.url, tmp_path) as proxy:
            assert not await ready(proxy), "its upstream tells usage: nobody pays for the ranks"
            up.default = Script(no_usage=True)
            await proxy.post(chat("not told"))
            rows = await proxy.rows(2)
            assert rows[-1]["usage_source"] == "counted"
        async with proxied(up.url, tmp_path) as proxy:
            assert await ready(proxy), "no request has come yet"


def test_whose_prompts_were_made_shorter_has_the_ranks_too(tmp_path: Path) -> None:
    conn, _ = connect(tmp_path / "ledger.db", whole=False)
    for form, loaded in (("", False), ("tidy", True)):
        conn.execute(INSERT, row(id=form, model_requested="m", compress=form))
        tokenizer = Tokenizer()
        warm(tokenizer, tmp_path / "ledger.db")
        assert tokenizer.ready("m") is loaded
    conn.close()


def test_a_ledger_that_cannot_be_read_loads_nothing(tmp_path: Path) -> None:
    tokenizer = Tokenizer()
    warm(tokenizer, tmp_path / "none.db")
    (tmp_path / "ledger.db").write_bytes(b"no database" * 100)
    warm(tokenizer, tmp_path / "ledger.db")
    assert not tokenizer.ready("m")


async def test_a_row_that_waits_for_the_ranks_outlives_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state directory as a SIGKILL leaves it, while the first answer without usage is counted."""
    go_on, begun = threading.Event(), threading.Event()
    count = Tokenizer.count_text_out

    def slowly(*given: Any, **named: Any) -> int:
        begun.set()
        assert go_on.wait(60)
        return count(*given, **named)

    monkeypatch.setattr(Tokenizer, "count_text_out", slowly)
    home, killed = tmp_path / "s", tmp_path / "killed"
    async with scripted() as up:
        up.default = Script(no_usage=True)
        async with proxied(up.url, home) as proxy:
            answer = await proxy.post(chat("not told"), x_farthing_user="ann")
            id = answer.headers["x-farthing-id"]
            assert await asyncio.to_thread(begun.wait, 60)
            shutil.copytree(home, killed)
            go_on.set()
            (row,) = await proxy.rows(1)
            assert (row["id"], row["usage_source"]) == (id, "counted") and row["cost_usd"] > 0
        assert not list(home.glob("ledger.waiting-*"))
        for _ in range(2):  # and no second time at the start after that
            async with proxied(up.url, killed) as proxy:
                (row,) = await proxy.rows(1)
                assert (row["id"], row["user"], row["usage_source"]) == (id, "ann", "")
                assert row["status"] == 200 and row["cost_usd"] is None and row["tokens_out"] is None
            assert not list(killed.glob("ledger.waiting-*"))


ROW = Row(*(0.0 if kind == "float" else "a" for kind in Row.__annotations__.values()))  # type: ignore[arg-type]


def test_what_a_living_process_holds_is_its_own(tmp_path: Path) -> None:
    one, other = WaitingRows(tmp_path, "1"), WaitingRows(tmp_path, "2")
    for id in ("a", "b"):
        one.hold(ROW._replace(id=id))
    assert list(other.left()) == []
    one.release("a")
    one.close()  # as if it were dead: its file is unlocked, and stays
    with (tmp_path / "ledger.waiting-1").open("a") as file:
        file.write(json.dumps(ROW)[:20])
    assert list(other.left()) == [ROW._replace(id="b")]
    assert list(other.left()) == []


def test_a_disk_that_fails_costs_nobody_anything(tmp_path: Path) -> None:
    one = WaitingRows(tmp_path / "nowhere", "1")
    one.hold(ROW)
    one.release(ROW.id)
    one.close()
    assert list(one.left()) == []


def test_a_file_that_holds_nothing_any_more_goes(tmp_path: Path) -> None:
    one = WaitingRows(tmp_path, "1")
    one.hold(ROW)
    one.release(ROW.id)
    assert (tmp_path / "ledger.waiting-1").read_bytes() == b""
    one.close()
    assert not list(tmp_path.iterdir())
