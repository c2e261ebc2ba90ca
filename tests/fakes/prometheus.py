"""A real Prometheus on loopback (Debian's package)."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

__all__ = ["running_prometheus"]


@asynccontextmanager
async def running_prometheus(config: Path) -> AsyncIterator[httpx.AsyncClient]:
    """One with this configuration, ready to be asked by the client that it gives; its data lies beside it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={config.parent / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error", stdout=sys.stderr,
    )  # fmt: skip
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            async with asyncio.timeout(60):
                while not await ready(client):
                    await asyncio.sleep(0.1)
            yield client
    finally:
        process.terminate()
        await process.wait()


async def ready(client: httpx.AsyncClient) -> bool:
    """Whether it answers queries yet: while it starts it answers 503, and before that not at all."""
    try:
        return (await client.get("/-/ready")).status_code == 200
    except httpx.TransportError:
        return False
