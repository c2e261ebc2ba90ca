"""The desk of deferred requests under a configuration."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog

from farthing.policies.variant import DEFAULT_UPSTREAM
from farthing.proxy.account import Account
from farthing.proxy.batch_ways import Target, kind_of
from farthing.proxy.build_routes import Ways
from farthing.proxy.config import Config
from farthing.proxy.defer_books import Books
from farthing.proxy.defer_shelf import Works
from farthing.proxy.defer_store import DeferStore
from farthing.proxy.deferring import Desk
from farthing.proxy.errors import StoreFault
from farthing.proxy.exchange import Endpoint, Stage
from farthing.proxy.filling import FillingStage
from farthing.proxy.held import State
from farthing.proxy.sealing import sealer
from farthing.proxy.stage_defer import DeferStage

if TYPE_CHECKING:
    from farthing.proxy.routing import Routing

__all__ = ["open_desk", "open_stage"]

log = structlog.get_logger("farthing.defer")

_FILE = "deferred.db"


async def open_desk(config: Config, held: State, stack: AsyncExitStack) -> None:
    """Open `held.deferred` where requests may be deferred now, or were before; a file that can't be read is told, and
    then nothing is deferred. Raises ConfigFault: the keys that seal can't be had."""
    path = config.state_dir / _FILE
    if held.deferred is not None or not (_defers(config) or path.exists()):
        return
    seal = sealer(config.store, held.randomness)
    peers = None if held.crew is None else held.crew.peers
    lock = path.with_suffix(".lock")
    desk = Desk(DeferStore(path, seal), held.clock, held.randomness, held.secret, lock, peers)
    try:
        await desk.open()
    except StoreFault as fault:
        log.error("deferred requests can't be read: nothing is deferred", error=str(fault))
        return
    held.deferred = desk
    stack.push_async_callback(desk.close)


def open_stage(
    config: Config, held: State, account: Account, ways: Ways, routing: Routing | None, keep: Stage, spend: Stage
) -> DeferStage:
    """The stage, with what the desk works with where this policy answers."""
    desk, works = held.deferred, None
    if desk is not None:
        own_keys = config.auth.virtual_keys
        targets = {DEFAULT_UPSTREAM: Target(config.upstream, ways.pool, config.defer, own_keys=own_keys)}
        for one in config.upstreams:
            targets[one.name] = Target(one, ways.others[one.name].pool, config.defer, foreign=True)
        default, limit_bytes = ways.default(), config.limits.buffer_bytes
        asked = ways.routed(default, routing, lambda own: own) or default
        carrier = FillingStage(asked, held.tokenizer, 8 * limit_bytes)
        books = Books(account, keep, held.clock)
        works = Works(config.defer, targets, carrier, books, routing, limit_bytes)
        desk.use(works)
        desk.start()
    return DeferStage(desk if _defers(config) else None, config, routing, spend, account, works)


def _defers(config: Config) -> bool:
    upstreams = (config.upstream, *config.upstreams)
    return config.defer.enabled and any(kind_of(one, endpoint) for one in upstreams for endpoint in Endpoint)
