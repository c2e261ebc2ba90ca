"""The ranks are loaded at the start where the answers before had to be counted, and nowhere else."""

from __future__ import annotations

from pathlib import Path

from farthing.proxy.ledger_file import INSERT, connect
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
