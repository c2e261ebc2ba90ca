"""Who was refused stays refused over a restart, until a success."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from farthing.proxy.refused import Refused
from tests.fakes.proxying import chat, proxied
from tests.fakes.upstream import Script, scripted


def test_it_is_there_again_and_what_succeeded_is_not(tmp_path: Path) -> None:
    refused = Refused(tmp_path / "refused")
    for name in ("a", "b", "c", "b"):
        refused.add(name)
    refused.discard("b")
    refused.discard("never there")
    refused.close()

    again = Refused(tmp_path / "refused")
    assert sorted(again) == ["a", "c"]
    again.close()
    assert (tmp_path / "refused").read_text() == "+a\n+c\n"


def test_a_file_that_cannot_be_used_is_told_once_and_memory_goes_on(tmp_path: Path) -> None:
    (tmp_path / "refused").mkdir()
    with capture_logs() as told:
        refused = Refused(tmp_path / "refused")
        refused.add("a")
        refused.add("b")
        refused.close()
    assert sorted(refused) == ["a", "b"]
    assert len(told) == 1


async def test_a_revoked_key_gets_no_hit_after_a_restart(tmp_path: Path) -> None:
    async with scripted() as up:
        async with proxied(up.url, tmp_path) as proxy:
            await proxy.post(chat())
            up.script(Script(status=401))
            assert (await proxy.post(chat("other"))).status_code == 401
        async with proxied(up.url, tmp_path) as proxy:
            up.script(Script(status=401))
            assert (await proxy.post(chat())).status_code == 401
            assert (await proxy.post(chat())).headers["x-farthing-cache"] == "miss"
            assert (await proxy.post(chat())).headers["x-farthing-cache"] == "hit-exact"
