"""Virtual keys in Redis or Valkey, for all replicas.

Keys: `<prefix>:{keys}`, a hash of records by id, and `<prefix>:{keys}:version`, which every change counts up; it begins
at the server's clock, so that a number never comes again, not after everything was lost either. A change is one script,
so no replica sees the one without the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from farthing.proxy.keys import VirtualKey, readable, written

__all__ = ["RedisKeys", "Server"]

T = TypeVar("T")

_CHANGED = """
local function changed()
  if redis.call('EXISTS', KEYS[2]) == 0 then
    local now = redis.call('TIME')
    redis.call('SET', KEYS[2], string.format('%.0f', now[1] * 1000000 + now[2]))
  end
  redis.call('INCR', KEYS[2])
end
"""
_PUT = f"""{_CHANGED}
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 1 then changed() end
return 1
"""
# ARGV: id, record and 1 where it is revoked, of each.
_PUT_BACK = f"""{_CHANGED}
local any = false
for i = 1, #ARGV, 3 do
  local record = redis.call('HGET', KEYS[1], ARGV[i])
  if not record or (ARGV[i + 2] == '1' and string.find(record, '"revoked_s":0.0', 1, true)) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    any = true
  end
end
if any then changed() end
return 1
"""
_REVOKE = """
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record then return 0 end
if string.find(record, '"revoked_s":0.0', 1, true) then
  local now = string.gsub(record, '"revoked_s":0%.0', '"revoked_s":' .. ARGV[2], 1)
  redis.call('HSET', KEYS[1], ARGV[1], now)
  redis.call('INCR', KEYS[2])
end
return 1
"""


class Server(Protocol):
    """A connection with a deadline and a breaker: cache.store_redis.RedisStore."""

    async def run(self, kind: str, command: Callable[[Any], Awaitable[T]]) -> T:
        """The command's result, given redis-py's client. Raises StoreFault."""
        ...


class RedisKeys:
    """KeyStore over a Redis server. The connection belongs to whoever made it."""

    def __init__(self, server: Server, prefix: str = "farthing") -> None:
        self._server = server
        self._names = (f"{prefix}:{{keys}}", f"{prefix}:{{keys}}:version")

    async def add(self, key: VirtualKey) -> None:
        """KeyStore.add."""
        await self._server.run("write", lambda client: client.eval(_PUT, 2, *self._names, key.id, written(key)))

    async def revoke(self, id: str, now_s: float) -> bool:
        """KeyStore.revoke."""
        found = await self._server.run("write", lambda client: client.eval(_REVOKE, 2, *self._names, id, repr(now_s)))
        return bool(found)

    async def all(self) -> list[VirtualKey]:
        """KeyStore.all."""
        records: dict[bytes, bytes] = await self._server.run("read", lambda client: client.hgetall(self._names[0]))
        return readable(records.values())

    async def version(self) -> str:
        """KeyStore.version."""
        found = await self._server.run("read", lambda client: client.get(self._names[1]))
        return "none" if found is None else found.decode()

    async def put_back(self, keys: Sequence[VirtualKey]) -> None:
        """KeyStore.put_back."""
        each = [text for key in keys for text in (key.id, written(key), int(bool(key.revoked_s)))]
        await self._server.run("write", lambda client: client.eval(_PUT_BACK, 2, *self._names, *each))

    async def close(self) -> None:
        """KeyStore.close: the connection is left open."""
