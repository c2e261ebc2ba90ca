"""Puts the house together: builds what a process needs from a configuration, and runs it.

`Services` is the process's state: frozen, built here, closed here in reverse order. Two apps with different
configurations can run in one process without touching each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from aiohttp import web

from farthing.proxy.admin import Admin
from farthing.proxy.build import Services, build
from farthing.proxy.clock import Clock, Randomness, SystemClock, SystemRandomness
from farthing.proxy.config import Config
from farthing.proxy.front import FrontServer
from farthing.proxy.held import open_state
from farthing.proxy.second_stage import CrossEncoderStage
from farthing.proxy.tasks import TaskGroup

__all__ = ["Running", "running"]

log = structlog.get_logger("farthing")


class Running:
    """A proxy that listens. `url`: where, without a path. `services`: what answers now."""

    def __init__(self, services: Services, stack: AsyncExitStack) -> None:
        self.url = ""
        self.services = services
        self._stack = stack

    async def reload(self, config: Config) -> tuple[str, ...]:
        """Let `config` answer from the next request on; those under way end as they began.

        Returns the sections that only a restart can change; they stay as they are.
        """
        old = self.services
        kept = tuple(name for name in _FIXED if getattr(config, name) != getattr(old.config, name))
        config = config.model_copy(update={name: getattr(old.config, name) for name in _FIXED})
        self.services = await build(config, old.state, self._stack, old)
        if old.thread is not None and old.thread is not self.services.thread:
            await old.thread.close()
        for gone in set(old.upstreams) - set(self.services.upstreams):
            await gone.probes.stop()
            gone.pool.close()
        for one in self.services.upstreams:
            one.probes.start()
        before = old.semantic.second
        if isinstance(before, CrossEncoderStage) and before is not self.services.semantic.second:
            before.close()
        return kept


_FIXED = ("state_dir", "server", "store", "ledger", "otlp", "log")


@asynccontextmanager
async def running(
    config: Config, *, clock: Clock | None = None, randomness: Randomness | None = None
) -> AsyncIterator[Running]:
    """Build, listen, and on leaving drain and close.

    Raises ConfigFault: the state directory is in use or unusable; OSError: the address can't be bound.
    """
    async with AsyncExitStack() as stack:
        held = await open_state(config, clock or SystemClock(), randomness or SystemRandomness(), stack)
        proxy = Running(await build(config, held, stack), stack)
        for one in proxy.services.upstreams:
            one.probes.start()
        admin = Admin(proxy)

        async def own_or_relayed(request: web.BaseRequest) -> web.StreamResponse:
            own = await admin.handle(request)
            return own if own is not None else await proxy.services.relay.handle(request)

        def handle(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
            relayed = request.raw_path.startswith("/v1/")
            return proxy.services.relay.handle(request) if relayed else own_or_relayed(request)

        server = FrontServer(
            handle,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=config.server.keepalive_s,
            max_line_size=65_536,
            max_field_size=65_536,
        )
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=config.server.drain_s)
        await runner.setup()
        stack.push_async_callback(drain, held.tasks, config.server.drain_s)
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, config.server.host, config.server.port, backlog=1024, reuse_address=True)
        await site.start()
        host, port = runner.addresses[0][:2]
        proxy.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        yield proxy


async def drain(tasks: TaskGroup, timeout_s: float) -> None:
    """Let what is under way end; say so where it had to be cut."""
    cut = await tasks.drain(timeout_s)
    if cut:
        log.warning("drained", cut=cut)
    await asyncio.sleep(0)
