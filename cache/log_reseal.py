"""The replicas' logs of near-duplicates, sealed anew by a command, which holds no index of its own.

A replica that runs follows what is done here as it follows any other's: the same row is put again. What the stream
says under another key, or in the open, is outdated by that, and deleted. Who hasn't read it yet reads what came after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from farthing.cache.log_redis import LOGGED
from farthing.cache.log_redis_wire import REPLACE, Names, resealed
from farthing.cache.store_redis import RedisStore
from farthing.proxy.seal import Seal

__all__ = ["Judge", "reseal_logs"]

Judge = Callable[[Callable[[], bytes | None]], bytes | None]
"""Calls what seals one text anew, and counts what came of it; what is to be written, if anything is."""

_READ_AT_ONCE = 500


async def reseal_logs(
    store: RedisStore,
    seal: Seal,
    judge: Judge,
    *,
    writer: str,
    missed: Callable[[], None],
    prefix: str = "farthing",
) -> None:
    """Every row of each model's log. `writer`: a name that no replica has. `missed`: a row was changed meanwhile.

    Raises StoreFault. Cost: a walk over the server's keys, and over the rows.
    """
    found = {name async for name in store.named(Names.pattern(prefix))}
    for names in (Names.at(name.decode()) for name in sorted(found)):
        generation = await store.run("purge", partial(_field, name=names.about, field="generation"))
        if generation is None:
            continue
        for chunk in names.chunks:
            rows: dict[bytes, bytes] = await store.run("purge", partial(_all, name=chunk))
            for key, numbered in rows.items():
                packed = numbered.partition(b" ")[2]
                anew = judge(partial(resealed, key.decode(), packed, seal))
                if anew is None:
                    continue
                keys = (names.about, names.stream, chunk)
                replaced = partial(_eval, keys=keys, values=(generation, writer, LOGGED, key, numbered, anew))
                if not await store.run("purge", replaced):
                    missed()
        await _forget_outdated(store, names, seal)


async def _forget_outdated(store: RedisStore, names: Names, seal: Seal) -> None:
    """Delete what the stream holds of texts under another key, unless it is a row that couldn't be opened."""
    after = "-"
    while entries := await store.run("purge", partial(_range, name=names.stream, after=after)):
        ids = []
        for id, fields in entries:
            packed, key = fields.get(b"r", b""), fields.get(b"k", b"")
            if packed and not seal.is_current(packed):
                row = await store.run("purge", partial(_field, name=names.chunk(key.decode()), field=key))
                if row is None or row.partition(b" ")[0] != id.partition(b"-")[0]:
                    ids.append(id)
        if ids:
            await store.run("purge", partial(_delete, name=names.stream, ids=ids))
        after = f"({entries[-1][0].decode()}"


async def _field(client: Any, name: str, field: str | bytes) -> bytes | None:
    found: bytes | None = await client.hget(name, field)
    return found


async def _all(client: Any, name: str) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = await client.hgetall(name)
    return found


async def _range(client: Any, name: str, after: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    found: list[tuple[bytes, dict[bytes, bytes]]] = await client.xrange(name, min=after, count=_READ_AT_ONCE)
    return found


async def _delete(client: Any, name: str, ids: Sequence[bytes]) -> None:
    await client.xdel(name, *ids)


async def _eval(client: Any, keys: Sequence[str], values: Sequence[object]) -> int:
    return int(await client.eval(REPLACE, len(keys), *keys, *values))
