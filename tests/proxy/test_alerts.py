"""An alert that never arrives is told in the log, with what it was about and without the address."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from pydantic import SecretStr
from structlog.testing import capture_logs

from farthing.proxy.alerts import Webhook
from farthing.proxy.clock import FakeClock
from farthing.proxy.config_spend import Alerts
from farthing.proxy.tasks import TaskGroup

EVENT = {"event": "budget_threshold", "budget": "all", "share": 0.8, "spent_usd": 1.0}
AWAY = Alerts(webhook=SecretStr("http://127.0.0.1:9/token-in-the-path"))


async def test_one_beyond_what_may_be_under_way() -> None:
    held: list[Coroutine[Any, Any, None]] = []
    webhook = Webhook(AWAY, FakeClock(), held.append)
    with capture_logs() as logs:
        for _ in range(33):
            webhook.send(EVENT)
    for one in held:
        one.close()

    assert (len(held), webhook.lost) == (32, 1)
    assert [line["about"] for line in logs] == [{"event": "budget_threshold", "budget": "all", "share": 0.8}]


async def test_one_that_is_cut_off_by_the_end() -> None:
    tasks = TaskGroup()
    webhook = Webhook(AWAY, FakeClock(), tasks.spawn, pause_s=60.0)
    with capture_logs() as logs:
        webhook.send(EVENT)
        await asyncio.sleep(0.05)
        await tasks.drain(0)

    assert webhook.lost == 1
    [line] = [line for line in logs if line["event"] == "an alert could not be delivered"]
    assert line["fault"]
    assert "token" not in str(logs)
