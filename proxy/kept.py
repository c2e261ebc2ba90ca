"""Texts of prompts where they are kept, for when nobody has them open: a feature that is off now, an index that isn't
loaded yet, a command beside no farthing. What is removed there is found by nobody later."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from farthing.cache.semantic_disk import forget_in
from farthing.cache.store import Store
from farthing.compress.decided_file import DecidedFile
from farthing.proxy.build_compress import TEXT_STORES, prefix_of
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.config import Config
from farthing.proxy.errors import StoreFault

if TYPE_CHECKING:
    from farthing.cache.store_redis import RedisStore

__all__ = ["forget_near", "forget_texts", "server_of"]

_NAME_BYTES = 8


def server_of(config: Config, store: Store) -> RedisStore | None:
    """The server that holds what replicas share; None where the configuration names none."""
    if not config.store.url.get_secret_value():
        return None
    from farthing.cache.store_near import redis_of

    return redis_of(store)


async def forget_near(
    config: Config, store: Store, randomness: Randomness, keys: Sequence[str], *, everything: bool = False
) -> int:
    """Near-duplicates' texts of these answers, or all: how many were there. Replicas that run follow. Raises
    StoreFault."""
    gone = await asyncio.to_thread(forget_in, config.state_dir / "semantic.db", keys, everything=everything)
    server = server_of(config, store)
    if server is not None:
        from farthing.cache.log_purge import forget_in_logs

        gone += await forget_in_logs(server, keys, writer=randomness.token(_NAME_BYTES), everything=everything)
    return gone


async def forget_texts(
    config: Config, store: Store, clock: Clock, tag: bytes, names: Iterable[str] = TEXT_STORES
) -> None:
    """What compression keeps of a tenant's prompts (`decided.tenant_tag`), or, by b'', of everybody's. Raises
    StoreFault."""
    server = server_of(config, store)
    for name in names:
        if server is not None:
            from farthing.compress.decided_redis import RedisDecisions

            shared = RedisDecisions(server, clock=clock, ttl_s=1.0, memory_bytes=0, prefix=prefix_of(name))
            await shared.forget(tag)
        path = config.state_dir / f"{name}.db"
        if path.is_file():
            await asyncio.to_thread(_forget_in_file, DecidedFile(path, 0), tag)


def _forget_in_file(file: DecidedFile, tag: bytes) -> None:
    try:
        file.forget(tag)
    except (sqlite3.Error, OSError) as error:
        raise StoreFault(f"texts can't be removed: {error}") from error
    finally:
        file.close()
