"""A request's body as it comes in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from farthing.proxy.body import IncomingBody

MIB = 2**20


class Told(ThreadPoolExecutor):
    """Counts what it is given."""

    given = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        self.given += 1
        return super().submit(fn, *args, **named)


class Quiet(asyncio.Transport):
    """A connection that may be told to wait."""

    def pause_reading(self) -> None:
        """All is there already."""

    def resume_reading(self) -> None:
        """All is there already."""


@pytest.mark.parametrize(("pieces", "aside"), [(1, 0), (16, 0), (17, 1), (160, 1)])
async def test_long_bodies_are_put_together_beside_the_event_loop(pieces: int, aside: int) -> None:
    loop = asyncio.get_running_loop()
    with Told(1) as told:
        loop.set_default_executor(told)
        protocol = BaseProtocol(loop)
        protocol.connection_made(Quiet())
        content = StreamReader(protocol, 2**16, loop=loop)
        body = IncomingBody(content, hard_bytes=20 * MIB, timeout_s=5)
        sent = [bytes([number]) * (MIB // 16) for number in range(pieces)]
        reading = loop.create_task(body.read(20 * MIB))
        for piece in sent:
            await asyncio.sleep(0)
            content.feed_data(piece)
        await asyncio.sleep(0)
        content.feed_eof()
        assert await reading == b"".join(sent)
        assert told.given == aside
