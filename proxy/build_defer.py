"""The desk of deferred requests under a configuration."""

from __future__ import annotations

from contextlib import AsyncExitStack

import structlog

from farthing.proxy.account import Account
from farthing.proxy.build_routes import Ways
from farthing.proxy.config import Config
from farthing.proxy.defer_books import Books
from farthing.proxy.defer_store import DeferStore
from farthing.proxy.deferring import Desk, Works
from farthing.proxy.errors import StoreFault
from farthing.proxy.exchange import Stage
from farthing.proxy.held import State
from farthing.proxy.stage_defer import DeferStage

__all__ = ["open_desk", "open_stage"]

log = structlog.get_logger("farthing.defer")

_FILE = "deferred.db"


async def open_desk(config: Config, held: State, stack: AsyncExitStack) -> None:
    """Open `held.deferred` where requests may be deferred now, or were before; a file that can't be read is told, and
    then nothing is deferred."""
    path = config.state_dir / _FILE
    if held.crew is not None:
        if held.keeper and held.crew.first and (_defers(config) or path.exists()):
            log.warning("with several workers nothing is deferred, and what was waits until there is one again")
        return
    if held.deferred is not None or not (_defers(config) or path.exists()):
        return
    desk = Desk(DeferStore(path), held.clock, held.randomness, held.secret)
    try:
        await desk.open()
    except StoreFault as fault:
        log.error("deferred requests can't be read: nothing is deferred", error=str(fault))
        return
    held.deferred = desk
    stack.push_async_callback(desk.close)


def open_stage(config: Config, held: State, account: Account, ways: Ways, keep: Stage, spend: Stage) -> DeferStage:
    """The stage; what waits already is worked on with this configuration from now on."""
    desk = held.deferred
    if desk is not None:
        books = Books(account, keep, held.clock, config.defer.price_times)
        limit_bytes = config.limits.buffer_bytes
        own_keys = config.auth.virtual_keys
        desk.use(Works(config.defer, config.upstream, ways.pool, ways.default(), books, own_keys, limit_bytes))
        desk.start()
    return DeferStage(desk if _defers(config) else None, config, spend, account)


def _defers(config: Config) -> bool:
    return config.defer.enabled and config.upstream.batches
