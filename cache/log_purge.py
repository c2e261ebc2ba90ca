"""Removing texts from the replicas' logs by a command, which holds no index of its own.

A replica that runs follows what is done here as any other replica's deed. What the log says of a text that is removed
goes at once, and not, as among replicas, when all have had time to read it: who hasn't read it yet reads that it went.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from farthing.cache.log_redis import LOGGED
from farthing.cache.log_redis_wire import APPEND, CLEAR, Names
from farthing.cache.store_redis import RedisStore

__all__ = ["forget_in_logs"]

_AT_ONCE = 256
_SCAN_COUNT = 500


async def forget_in_logs(
    store: RedisStore, entry_keys: Sequence[str], *, writer: str, everything: bool = False, prefix: str = "farthing"
) -> int:
    """Delete these entries' rows (`everything`: all rows) from the log of each model; how many were there.

    `writer`: a name that no replica has. Raises StoreFault. Cost: a walk over the server's keys.
    """
    if not entry_keys and not everything:
        return 0
    gone = 0
    for names in await store.run("purge", lambda client: _logs(client, prefix)):
        generation = await store.run("purge", partial(_generation, about=names.about))
        if generation is None:
            continue
        who = (generation, writer)
        gone += await (_clear(store, names, who) if everything else _delete(store, names, who, entry_keys))
    return gone


async def _logs(client: Any, prefix: str) -> list[Names]:
    found = [Names.at(name.decode()) async for name in client.scan_iter(match=Names.pattern(prefix), count=_SCAN_COUNT)]
    return list({names.about: names for names in found}.values())  # a walk may meet a key twice


async def _delete(store: RedisStore, names: Names, who: tuple[bytes, str], entry_keys: Sequence[str]) -> int:
    gone = 0
    for at in range(0, len(entry_keys), _AT_ONCE):
        some = entry_keys[at : at + _AT_ONCE]
        keys = (names.about, names.stream, *map(names.chunk, some))
        values = [value for key in some for value in (key, b"")]
        told = await _eval(store, APPEND, keys, *who, LOGGED, *values)
        outdated = [f"{seq}-0" for seq in told[2::2] if seq]
        if outdated:
            await store.run("purge", partial(_outdate, stream=names.stream, ids=outdated))
        gone += len(outdated)
    return gone


async def _clear(store: RedisStore, names: Names, who: tuple[bytes, str]) -> int:
    gone = 0
    for chunk in names.chunks:
        gone += await store.run("purge", partial(_count, chunk=chunk))
    await _eval(store, CLEAR, (names.about, names.stream, *names.chunks), *who)
    return gone


async def _generation(client: Any, about: str) -> bytes | None:
    found: bytes | None = await client.hget(about, "generation")
    return found


async def _outdate(client: Any, stream: str, ids: Sequence[str]) -> None:
    await client.xdel(stream, *ids)


async def _count(client: Any, chunk: str) -> int:
    return int(await client.hlen(chunk))


async def _eval(store: RedisStore, script: str, keys: Sequence[str], *values: object) -> Any:
    return await store.run("purge", lambda client: client.eval(script, len(keys), *keys, *values))
