"""A disk that fails for a while: what was spent is in the file once it works again, whether or not anybody asks."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from structlog.testing import capture_logs

from tests.fakes.proxying import chat, proxied
from tests.fakes.upstream import ScriptedUpstream
from tests.wire.test_budgets import METER, budget


async def test_what_could_not_be_written_is_written_without_another_request(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    """Else a kill -9 of an idle process would forget it."""
    async with proxied(up.url, tmp_path, budgets=[budget("1")]) as proxy:
        with closing(sqlite3.connect(tmp_path / "spend.db", isolation_level=None)) as other:
            other.execute("alter table accounts rename to elsewhere")
            with capture_logs() as logs:
                assert (await proxy.post(chat("x", max_tokens=9))).status_code == 200
                async with asyncio.timeout(60):
                    while not any("budgets can't be written" in line["event"] for line in logs):
                        await asyncio.sleep(0.05)
                    while len(proxy.services.state.tasks):  # nothing goes on that a stop would have to wait for
                        await asyncio.sleep(0.05)
            other.execute("alter table elsewhere rename to accounts")
            expected = [(int(up.bill(METER) * 10**12), 0)]
            async with asyncio.timeout(60):
                while other.execute("select spent, held from accounts").fetchall() != expected:
                    await asyncio.sleep(0.05)
