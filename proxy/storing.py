"""Opens the store of answers that the configuration names, and the leases on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farthing.cache.lease import Leases
from farthing.cache.store import Store
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.config import Config
from farthing.proxy.sealing import sealer
from farthing.proxy.tasks import TaskGroup

if TYPE_CHECKING:
    from farthing.cache.store_redis import RedisStore

__all__ = ["open_leases", "open_store"]

_FILE, _ALIVE = "answers.db", "alive"
_NAME_BYTES = 8  # of a process, among those that share a store


async def open_store(
    config: Config, clock: Clock, randomness: Randomness, tasks: TaskGroup | None = None, *, shared: bool = False
) -> Store:
    """The store that the configuration names, ready. `tasks`: of whoever serves from it for long, so that it follows
    what others change. `shared`: other processes have the same files.

    Raises ConfigFault: its keys can't be had.
    """
    seal = sealer(config.store, randomness)
    url = config.store.url.get_secret_value()
    if url:
        from farthing.cache.store_redis import RedisStore

        server = RedisStore(url, deadline_ms=config.store.deadline_ms, clock=clock, seal=seal)
        return server if tasks is None else await before(server, config, clock, randomness)
    from farthing.cache.store_local import LocalStore
    from farthing.cache.store_shared import SharedStore

    limits = {name: getattr(config.store, name) for name in ("memory_bytes", "max_bytes", "max_entries")}
    path = config.state_dir / _FILE
    store = (
        SharedStore(path, clock=clock, seal=seal, spawn=tasks.spawn, **limits)
        if shared and tasks is not None
        else LocalStore(path, clock=clock, seal=seal, **limits)
    )
    await store.open()
    return store


async def before(server: RedisStore, config: Config, clock: Clock, randomness: Randomness) -> Store:
    """Memory before the server, where the configuration has some."""
    from farthing.cache.store_near import NearStore

    own, url = config.store, config.store.url.get_secret_value()
    if not (own.stale_s and own.memory_bytes):
        return server
    store = NearStore(
        server,
        url,
        clock=clock,
        memory_bytes=own.memory_bytes,
        max_entries=own.max_entries,
        stale_s=own.stale_s,
        name=randomness.token(_NAME_BYTES),
        spawn=TaskGroup().spawn,  # of its own: nobody waits for its end, but for the store's
    )
    await store.open()
    return store


def open_leases(config: Config, store: Store, clock: Clock, randomness: Randomness) -> Leases | None:
    """Leases in the same place, where other processes have it too."""
    lease_s, deadline_ms = config.cache.join_lease_s, config.store.deadline_ms
    if config.store.url.get_secret_value():
        from farthing.cache.leases_redis import RedisLeases
        from farthing.cache.store_near import server_of

        return RedisLeases(server_of(store), store, lease_s=lease_s)
    from farthing.cache.alive import Alive
    from farthing.cache.leases_shared import SharedLeases
    from farthing.cache.store_shared import SharedStore

    if not isinstance(store, SharedStore):
        return None
    path = config.state_dir / _FILE
    alive = Alive(config.state_dir / _ALIVE, randomness.token(_NAME_BYTES))
    return SharedLeases(store, path, clock, alive, lease_s=lease_s, deadline_s=deadline_ms / 1000)
