"""Leases in Redis or Valkey, for replicas: every change is one script, and the clock is the server's own.

Key: `<prefix>:l:{<key>}<rest of the name>`, a hash in the answer's own slot: `token`, `flight`, `until` (microseconds
since the epoch), `ended` (failed, landed), `replaced` (1 once a lease was taken over), `alive` (the channel that its
holder listens to, '' if it has none). It goes with its lease where no other token can be out, and after an hour
otherwise.

A holder that dies is found out by the next who looks: the server drops its subscriptions when its connection ends. Of
one that hangs, or whose machine is gone, the lease lapses. One whose connection is made anew just then is replaced
though it lives; its answer goes to its own client, and the upstream is asked twice.

Rules of this file:
1. A token is the server's time in microseconds, or one more than the last one: it grows even where the hash was lost.
2. Every script may be sent twice (the connection may die between the server's work and its answer).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from farthing.cache.entry import Entry
from farthing.cache.lease import REMEMBERED_S, Answer, Lease, State
from farthing.cache.store import Store
from farthing.cache.store_near import NearStore
from farthing.cache.store_redis import RedisStore

__all__ = ["RedisLeases"]

_FAILURE_TOLD_MS = 2_000  # those who wait look four times a second

# KEYS: lease, entry. ARGV: flight, lease in microseconds, flight waited for, how long it is remembered in milliseconds,
# channel. In a cluster a node counts its own listeners, and each process listens at every primary.
_TAKE = """
local function listeners(channel)
  if not channel or channel == '' then return nil end
  local said = redis.pcall('PUBSUB', 'NUMSUB', channel)
  return not said.err and said[2] or nil
end
if redis.call('EXISTS', KEYS[2]) == 1 then return {'stored', '', '0'} end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local found = redis.call('HMGET', KEYS[1], 'token', 'flight', 'until', 'ended', 'replaced', 'alive')
local token, flight, ended, replaced = tonumber(found[1] or '0'), found[2] or '', found[4] or '', found[5] or '0'
if found[1] and ended == '' then
  if flight == ARGV[1] then
    redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + ARGV[2]))
    return {'taken', flight, found[1]}
  end
  if tonumber(found[3]) > now and listeners(found[6]) ~= 0 then return {'held', flight, '0'} end
  replaced = '1'
elseif ended == 'failed' and flight ~= '' and flight == ARGV[3] then
  return {'failed', flight, '0'}
end
local next = string.format('%.0f', math.max(token + 1, now))
redis.call('HSET', KEYS[1], 'token', next, 'flight', ARGV[1], 'until', string.format('%.0f', now + ARGV[2]),
           'ended', '', 'replaced', replaced, 'alive', (listeners(ARGV[5]) or 0) > 0 and ARGV[5] or '')
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'taken', ARGV[1], next}
"""

# KEYS: lease. ARGV: token, lease in microseconds.
_RENEW = """
local found = redis.call('HMGET', KEYS[1], 'token', 'ended')
if found[1] ~= ARGV[1] or found[2] ~= '' then return 0 end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', time[1] * 1000000 + time[2] + ARGV[2]))
return 1
"""

# KEYS: lease. ARGV: token, for how long its failure is told in milliseconds.
_FREE = """
local found = redis.call('HMGET', KEYS[1], 'token', 'replaced', 'ended')
if found[1] ~= ARGV[1] or found[3] ~= '' then return 0 end
redis.call('HSET', KEYS[1], 'ended', 'failed')
if found[2] ~= '1' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
"""


class RedisLeases:
    """Leases over a Redis server. `server`: the way to it, with its deadline and its breaker; `store`: what answers are
    read through. `lease_s`: how long one lasts that isn't renewed."""

    def __init__(self, server: RedisStore, store: Store, *, lease_s: float) -> None:
        self._server = server
        self._names = server.names
        self._store = store
        self.lease_s = lease_s
        self._lease_us = int(lease_s * 1_000_000)

    async def take(self, key: str, name: str, flight: str, waited_for: str) -> Answer:
        """Leases.take."""
        names = (self._names.lease(key, name), self._names.entry(key))
        alive = self._store.alive if isinstance(self._store, NearStore) else ""
        said = await self._eval(_TAKE, names, flight, self._lease_us, waited_for, int(REMEMBERED_S * 1000), alive)
        state, holder, token = (part.decode() for part in said)
        return Answer(State(state), holder, int(token))

    async def get(self, key: str, now_s: float) -> Entry | None:
        """Leases.get."""
        return await self._store.get(key, now_s)

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Leases.renew: all of them in one round trip."""
        names = [self._names.lease(lease.key, lease.name) for lease in leases]

        async def sent(client: Any) -> None:
            pipe = client.pipeline(transaction=False)
            for lease, name in zip(leases, names, strict=True):
                pipe.execute_command("EVAL", _RENEW, 1, name, lease.token, self._lease_us)
            await pipe.execute()

        await self._server.run("lease", sent)

    async def land(self, lease: Lease, entry: Entry) -> bool:
        """Leases.land."""
        if self._server.life_ms(entry) <= 0:
            await self.free(lease)
            return True
        fence = (self._names.lease(lease.key, lease.name), lease.token)
        try:
            return await self._server.keep(entry, kind="lease", fence=fence)
        finally:
            if isinstance(self._store, NearStore):
                self._store.changed(entry.key)

    async def free(self, lease: Lease) -> None:
        """Leases.free."""
        await self._eval(_FREE, (self._names.lease(lease.key, lease.name),), lease.token, _FAILURE_TOLD_MS)

    async def close(self) -> None:
        """Leases.close: the connections are the store's."""

    async def _eval(self, script: str, names: Sequence[str], *arguments: Any) -> Any:
        return await self._server.run("lease", lambda client: client.eval(script, len(names), *names, *arguments))
