"""A damaged ledger is told of until it has been salvaged."""

from __future__ import annotations

from pathlib import Path

from farthing.proxy.ledger_aside import mark_salvaged
from tests.fakes.proxying import proxied
from tests.fakes.upstream import scripted


async def test_readyz_and_metrics_tell_of_a_damaged_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no database" * 1000)
    async with scripted() as upstream:
        async with proxied(upstream.url, tmp_path) as proxy:
            (damaged,) = tmp_path.glob("ledger.corrupt-*.db")
            told = (await proxy.client.get("/readyz")).json()
            assert (told["status"], told["ledger_aside"]) == ("degraded", [damaged.name])
            assert "farthing_ledger_aside_files 1.0" in (await proxy.client.get("/metrics")).text
        mark_salvaged(damaged)
        async with proxied(upstream.url, tmp_path) as proxy:
            told = (await proxy.client.get("/readyz")).json()
            assert (told["status"], told["ledger_aside"]) == ("ready", [])
            assert "farthing_ledger_aside_files 0.0" in (await proxy.client.get("/metrics")).text
