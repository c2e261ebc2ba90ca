"""What is sealed in Redis, sealed anew: answers, what compression keeps, the replicas' near-duplicates."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from farthing.cache import codec
from farthing.cache.log_reseal import reseal_logs
from farthing.cache.store_redis import RedisStore
from farthing.compress import decided
from farthing.proxy.build_compress import TEXT_STORES, prefix_of
from farthing.proxy.reseal import Tally, Tell
from farthing.proxy.seal import Seal

__all__ = ["reseal_server"]

# KEYS: one. ARGV: SHA-1 of its value as it was read, the value as it shall be. It keeps its expiry.
_REPLACE = """
local value = redis.call('GET', KEYS[1])
if not value or redis.sha1hex(value) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
"""


async def reseal_server(server: RedisStore, seal: Seal, writer: str, tell: Tell) -> dict[str, Tally]:
    """One pass over all that farthing has on this server. `writer`: a name that no replica has. Raises StoreFault.

    Cost: walks over the server's keys.
    """
    total = (await server.stats()).entries
    found = {"redis answers": Tally()}
    answers = found["redis answers"]
    await _values(
        server,
        f"{server.names.entries}*",
        lambda name, value: codec.resealed(value, seal),
        answers,
        partial(tell, "redis answers"),
        total,
        lambda name, head: _in_pieces(server, name, head, seal, answers) if codec.is_head(head) else None,
    )
    await server.purge_loose()
    for name in TEXT_STORES:
        prefix = f"{prefix_of(name)}:d:"
        found[f"redis {name}"] = tally = Tally()
        await _values(
            server, f"{prefix}*", partial(_decided, len(prefix), seal), tally, partial(tell, f"redis {name}"), total
        )
    found["redis near-duplicates"] = near = Tally()
    await reseal_logs(server, seal, near.judge, writer=writer, missed=near.miss)
    tell("redis near-duplicates", near.entries, near.entries)
    return {place: tally for place, tally in found.items() if tally.entries}


def _decided(prefix: int, seal: Seal, name: bytes, value: bytes) -> bytes | None:
    return decided.anew(bytes.fromhex(name[prefix:].decode("ascii")), value, seal)


async def _values(
    server: RedisStore,
    pattern: str,
    anew: Callable[[bytes, bytes], bytes | None],
    tally: Tally,
    tell: Callable[[int, int], None],
    total: int,
    otherwise: Callable[[bytes, bytes], Awaitable[None] | None] = lambda name, value: None,
) -> None:
    """`otherwise`: does what is to be done with a value that isn't all there is; None where it is."""
    done = 0
    async for name in server.named(pattern):
        value = await server.run("purge", partial(_get, name=name))
        if value is None:
            continue  # it has expired
        if (other := otherwise(name, value)) is not None:
            await other
        elif (again := tally.judge(partial(anew, name, value))) is not None:
            digest = hashlib.sha1(value, usedforsecurity=False).hexdigest()
            if not await server.run("purge", partial(_replace, name=name, digest=digest, value=again)):
                tally.miss()
        done += 1
        tell(done, max(done, total))


async def _in_pieces(server: RedisStore, name: bytes, head: bytes, seal: Seal, tally: Tally) -> None:
    key = server.names.key(name.decode(errors="replace"))
    raw = await server.whole(key, head)
    if raw is None:
        return  # it was no answer any more
    again = tally.judge(partial(codec.resealed, raw, seal))
    if again is not None and not await server.replace(key, head, again):
        tally.miss()


async def _get(client: Any, name: bytes) -> bytes | None:
    value: bytes | None = await client.get(name)
    return value


async def _replace(client: Any, name: bytes, digest: str, value: bytes) -> int:
    return int(await client.eval(_REPLACE, 1, name, digest, value))
