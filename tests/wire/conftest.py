"""A scripted upstream, and a proxy in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.fleet import Fleet
from tests.fakes.proxying import Proxied, proxied
from tests.fakes.upstream import ScriptedUpstream, scripted


@pytest.fixture
async def up() -> AsyncIterator[ScriptedUpstream]:
    """The upstream."""
    async with scripted() as upstream:
        yield upstream


@pytest.fixture
async def proxy(up: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Proxied]:
    """A proxy with the defaults of tests.fakes.proxying."""
    async with proxied(up.url, tmp_path) as running:
        yield running


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """Two of them."""
    servers = Fleet()
    for _ in range(2):
        await servers.add()
    yield servers
    for index in range(len(servers.ups)):
        await servers.kill(index)
