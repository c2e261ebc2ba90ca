"""Accounts and buckets in Redis or Valkey: exact over all replicas, since every change is one script.

Keys, all in one slot so that a request's accounts can be looked at together:
    <prefix>:{spend}:a:ACCOUNT   hash: spent, held, h:HOLD for each reservation, l:HOLD for each that came to be late
    <prefix>:{spend}:z:ACCOUNT   sorted set of reservations by their deadline
    <prefix>:{spend}:ends        sorted set of accounts by when they go, two days after their window
    <prefix>:{spend}:d:HOLD      that this reservation is over though there was none, for ten minutes
    <prefix>:{spend}:b:BUCKET    hash: held, at (by the server's clock); it ends when the bucket would be full

Rules of this file:
1. A reservation whose deadline has passed was most likely made by a replica that died: it counts as spent, until it is
   settled after all. So it does no harm where replicas' clocks differ or a request outlives its deadline.
2. Every script may be sent twice (the connection may die between the server's work and its answer), and come late,
   after what was to follow it: reserving, settling and adding happen once, and what was given up isn't reserved any
   more. Taking may happen twice then, which costs a request's place in a minute, and no money.
3. Sums are 64-bit integers on the server. Scripts compare them as doubles: to the pico-dollar below $9,007, and within
   1e-10 dollar beyond.
4. Accounts have no expiry, so that a server that is full and evicts what has one (`volatile-*`) takes answers and no
   money. They are removed by whoever reserves next, by the server's own clock.
5. Rates go by the server's clock too: replicas whose own ones differ would fill a bucket at each turn. A replica
   carries on what the server said with its own monotonic clock, which can't jump, and is put right by the next answer
   where it is off by half of `AHEAD_S`: so two that were put right don't differ by more than a stamp may.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import structlog

from farthing.cache.redis_client import everywhere
from farthing.policies.bucket import AHEAD_S, Take
from farthing.policies.budget import KEPT_S, Moved, Want
from farthing.proxy.budgets import Reserved, Standing
from farthing.proxy.clock import Clock
from farthing.proxy.errors import StoreFault

__all__ = ["RedisAccounts", "Server"]

log = structlog.get_logger("farthing.budgets")
T = TypeVar("T")

_PAUSES_S = (0.1, 0.5, 2.0, 5.0, 15.0)
_MOST_SEEN = 10_000
_MOST_TOLD_AT_ONCE = 500
_FRESH_S = 1.0  # an answer that took longer tells the time no more
_MOST_AT_ONCE = 32  # more wait here, where no deadline of theirs runs; connections are shared with the caches

# KEYS: account and deadlines of each, then the mark and the ends. ARGV: hold, pico, now, deadline, then limit (-1:
# soft) and end of each account. Gives the place of the account that refuses (or -1), then spent and held of it; else of
# every account.
_RESERVE = """
local hold, pico = 'h:' .. ARGV[1], tonumber(ARGV[2])
local mark, ends = KEYS[#KEYS - 1], KEYS[#KEYS]
local count = #KEYS / 2 - 1
local told = {}
local clock = redis.call('TIME')[1]
for _, over in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', clock, 'LIMIT', 0, 10)) do
  redis.call('DEL', over, (string.gsub(over, '{spend}:a:', '{spend}:z:', 1)))
  redis.call('ZREM', ends, over)
end
for i = 1, count do
  local account, deadlines = KEYS[2 * i - 1], KEYS[2 * i]
  for _, late in ipairs(redis.call('ZRANGEBYSCORE', deadlines, '-inf', ARGV[3], 'LIMIT', 0, 100)) do
    local amount = redis.call('HGET', account, 'h:' .. late)
    if amount then
      if amount ~= '0' then redis.call('HINCRBY', account, 'held', '-' .. amount) end
      redis.call('HINCRBY', account, 'spent', amount)
      redis.call('HDEL', account, 'h:' .. late)
      redis.call('HSET', account, 'l:' .. late, amount)
    end
    redis.call('ZREM', deadlines, late)
  end
end
local given_up = redis.call('EXISTS', mark) == 1
for i = 1, count do
  local account = KEYS[2 * i - 1]
  local spent = redis.call('HGET', account, 'spent') or '0'
  local held = redis.call('HGET', account, 'held') or '0'
  local limit = tonumber(ARGV[3 + 2 * i])
  if redis.call('HEXISTS', account, hold) == 0 and limit >= 0 and not given_up then
    local s = tonumber(spent)
    if s + tonumber(held) + pico > limit or (pico == 0 and s >= limit) then return {i - 1, spent, held} end
  end
  told[2 * i - 1], told[2 * i] = spent, held
end
if given_up then return {-1, unpack(told)} end
for i = 1, count do
  local account, deadlines = KEYS[2 * i - 1], KEYS[2 * i]
  if redis.call('HSETNX', account, hold, ARGV[2]) == 1 then
    redis.call('HINCRBY', account, 'held', ARGV[2])
    redis.call('ZADD', deadlines, ARGV[4], ARGV[1])
    if redis.call('ZADD', ends, ARGV[4 + 2 * i], account) == 1 then
      redis.call('PERSIST', account)  -- an older farthing gave it an expiry
      redis.call('PERSIST', deadlines)
    end
  end
end
return {-1, unpack(told)}
"""

# KEYS: account and deadlines of each, then the mark and the ends. ARGV: hold, pico, 1 where there is no reservation,
# end of each. Gives changed or not, spent before, spent after, held: for each account.
_SETTLE = """
local hold, late = 'h:' .. ARGV[1], 'l:' .. ARGV[1]
local mark, ends = KEYS[#KEYS - 1], KEYS[#KEYS]
local count = #KEYS / 2 - 1
local found = 0
for i = 1, count do
  local account = KEYS[2 * i - 1]
  found = found + redis.call('HEXISTS', account, hold) + redis.call('HEXISTS', account, late)
end
local adds = false
if ARGV[3] == '1' then
  adds = redis.call('SET', mark, '1', 'NX', 'EX', 600)
elseif found == 0 then
  redis.call('SET', mark, '1', 'EX', 600)
end
local told = {}
for i = 1, count do
  local account, deadlines = KEYS[2 * i - 1], KEYS[2 * i]
  local before = redis.call('HGET', account, 'spent') or '0'
  local amount, counted = redis.call('HGET', account, hold), redis.call('HGET', account, late)
  local changed = 0
  if amount then
    if amount ~= '0' then redis.call('HINCRBY', account, 'held', '-' .. amount) end
    redis.call('HDEL', account, hold)
    redis.call('ZREM', deadlines, ARGV[1])
  end
  if counted then
    if counted ~= '0' then redis.call('HINCRBY', account, 'spent', '-' .. counted) end
    redis.call('HDEL', account, late)
  end
  if amount or counted or adds then
    redis.call('HINCRBY', account, 'spent', ARGV[2])
    if redis.call('ZADD', ends, ARGV[3 + i], account) == 1 then redis.call('PERSIST', account) end
    changed = 1
  end
  table.insert(told, changed)
  table.insert(told, before)
  table.insert(told, redis.call('HGET', account, 'spent') or '0')
  table.insert(told, redis.call('HGET', account, 'held') or '0')
end
return told
"""

# KEYS: buckets. ARGV: mode (take, give), now (empty: as the server says), how far a stamp may be ahead, then amount and
# per minute of each. Gives the place to wait for, the seconds, and the server's time, as text. The same arithmetic as
# policies.bucket.take_all and give.
_BUCKETS = """
local time = redis.call('TIME')
local clock = string.format('%d.%06d', time[1], time[2])
local giving, now, ahead = ARGV[1] == 'give', tonumber(ARGV[2]) or tonumber(clock), tonumber(ARGV[3])
local place, longest = -1, 0
local held, at, anew = {}, {}, {}
for i = 1, #KEYS do
  local amount, per = tonumber(ARGV[2 + 2 * i]), tonumber(ARGV[3 + 2 * i])
  local level = redis.call('HMGET', KEYS[i], 'held', 'at')
  held[i], at[i] = per, now
  if level[1] then
    local since = tonumber(level[2])
    if since > now + ahead then since, anew[i] = now, true end
    held[i] = math.min(per, tonumber(level[1]) + math.max(0, now - since) * per / 60)
    at[i] = math.max(now, since)
  end
  if giving then
    held[i] = math.min(per, held[i] + amount)
  else
    local lacks = math.min(amount, per) - held[i]
    if lacks > 1e-9 then
      local wait = at[i] - now + lacks * 60 / per
      if wait > longest then place, longest = i - 1, wait end
    else
      held[i] = held[i] - amount
    end
  end
end
if place >= 0 then
  for i in pairs(anew) do redis.call('HSET', KEYS[i], 'at', string.format('%.17g', now)) end
  return {place, string.format('%.6f', longest), clock}
end
for i = 1, #KEYS do
  local per = tonumber(ARGV[3 + 2 * i])
  redis.call('HSET', KEYS[i], 'held', string.format('%.17g', held[i]), 'at', string.format('%.17g', at[i]))
  redis.call('EXPIRE', KEYS[i], math.ceil((per - held[i]) * 60 / per) + 60)
end
return {-1, '0', clock}
"""


class Server(Protocol):
    """A connection with a deadline and a breaker: cache.store_redis.RedisStore."""

    async def run(self, kind: str, command: Callable[[Any], Awaitable[T]]) -> T:
        """The command's result, given redis-py's client. Raises StoreFault."""
        ...


class RedisAccounts:
    """Accounts over a Redis server. `hold_s`: how long a request may take before its reservation counts as spent.
    `pauses_s`: between tries to settle while the server is away; then the reservation's deadline settles it."""

    def __init__(
        self,
        server: Server,
        *,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        hold_s: float = 3660.0,
        pauses_s: Sequence[float] = _PAUSES_S,
        prefix: str = "farthing",
    ) -> None:
        self._server = server
        self._clock = clock
        self._spawn = spawn
        self._hold_s = hold_s
        self._pauses_s = pauses_s
        self._prefix = f"{prefix}:{{spend}}"
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._server_s: float | None = None  # the server's clock where our monotonic one is 0, once it has told it
        self._at_once = asyncio.Semaphore(_MOST_AT_ONCE)

    async def reserve(self, hold: str, wants: Sequence[Want], pico: int, now_s: float) -> Reserved:
        """Accounts.reserve."""
        arguments: list[Any] = [hold, pico, repr(now_s), repr(now_s + self._hold_s)]
        for want in wants:
            arguments += [want.budget.limit if want.budget.hard else -1, want.ends_s + KEPT_S]
        place, *figures = await self._eval(_RESERVE, self._names(hold, wants), arguments)
        if place >= 0:
            spent, held = map(int, figures)
            self._note(wants[place].account, spent, held, wants[place].ends_s)
            return Reserved(place, spent, held)
        for at, want in enumerate(wants):
            self._note(want.account, int(figures[2 * at]), int(figures[2 * at + 1]) + pico, want.ends_s)
        return Reserved()

    def settle(
        self, hold: str, wants: Sequence[Want], pico: int, told: Callable[[Sequence[Moved]], None], *, reserved: bool
    ) -> None:
        """Accounts.settle."""
        self._spawn(self._settle(hold, wants, pico, told, reserved=reserved))

    def take(self, takes: Sequence[Take], now_s: float) -> Awaitable[tuple[int, float]]:
        """Accounts.take."""
        return self._buckets("take", takes, [take.amount for take in takes], now_s)

    def give(self, takes: Sequence[Take], amount: int, now_s: float) -> None:
        """Accounts.give."""
        self._spawn(self._give(takes, amount, now_s))

    async def standing(self, now_s: float) -> list[Standing]:
        """Accounts.standing. Cost: two calls for every 500 accounts."""
        start, found = f"{self._prefix}:a:", list[Standing]()
        least = now_s + KEPT_S

        async def some(client: Any) -> int:
            ends, at = f"{self._prefix}:ends", len(found)
            names = await client.zrangebyscore(ends, f"({least}", "+inf", start=at, num=_MOST_TOLD_AT_ONCE)
            pipe = client.pipeline(transaction=False)
            for name in names:
                pipe.hmget(name, "spent", "held")
            for name, (spent, held) in zip(names, await pipe.execute() if names else (), strict=True):
                found.append(Standing(name.decode().removeprefix(start), int(spent or 0), int(held or 0)))
            return len(names)

        while await self._server.run("purge", some) == _MOST_TOLD_AT_ONCE:
            pass
        return found

    def seen(self) -> dict[str, tuple[int, int]]:
        """Accounts.seen: what the last answers said."""
        now_s = self._clock.now_s()
        return {account: (spent, held) for account, (spent, held, ends_s) in self._seen.items() if ends_s > now_s}

    async def close(self) -> None:
        """Accounts.close: the connection is left open."""

    async def warn_of_eviction(self) -> None:
        """Tell in the log where the server, once it is full, may drop what was spent. Never raises."""
        with suppress(StoreFault):
            told = await self._server.run("read", lambda client: client.info("memory", **everywhere(client)))
            nodes = [told] if "maxmemory" in told else list(told.values())  # of a cluster: by node
            full = {node.get("maxmemory_policy", "") for node in nodes if int(node.get("maxmemory", 0))}
            if found := sorted(one for one in full if one.startswith("allkeys")):
                said = "the store may forget what budgets have spent when it is full: choose a volatile- policy for it"
                log.error(said, maxmemory_policy=", ".join(found))

    def _names(self, hold: str, wants: Sequence[Want]) -> list[str]:
        each = [f"{self._prefix}:{kind}:{want.account}" for want in wants for kind in "az"]
        return [*each, f"{self._prefix}:d:{hold}", f"{self._prefix}:ends"]

    async def _eval(self, script: str, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        async def sent(client: Any) -> Any:
            from redis.exceptions import NoScriptError

            try:
                return await client.evalsha(_digest(script), len(names), *names, *arguments)
            except NoScriptError:  # the first time, and after the server was restarted
                return await client.eval(script, len(names), *names, *arguments)

        async with self._at_once:
            return await self._server.run("write", sent)

    async def _buckets(
        self, mode: str, takes: Sequence[Take], amounts: Sequence[int], now_s: float
    ) -> tuple[int, float]:
        tick = self._clock.tick_s() - (self._clock.now_s() - now_s)  # the moment that is meant
        at = None if self._server_s is None else self._server_s + tick
        arguments: list[Any] = [mode, "" if at is None else repr(at), repr(AHEAD_S)]
        for take, amount in zip(takes, amounts, strict=True):
            arguments += [amount, take.rate.per_min]
        names = [f"{self._prefix}:b:{take.bucket}" for take in takes]
        place, wait, clock = await self._eval(_BUCKETS, names, arguments)
        off_s = AHEAD_S if at is None else abs(float(clock) - at)
        if off_s > AHEAD_S / 2 and self._clock.tick_s() - tick <= _FRESH_S:
            self._server_s = float(clock) - tick
        return int(place), float(wait)

    async def _give(self, takes: Sequence[Take], amount: int, now_s: float) -> None:
        try:
            await self._buckets("give", takes, [amount] * len(takes), now_s)
        except StoreFault as fault:
            log.debug("tokens could not be given back", fault=str(fault))

    async def _settle(
        self, hold: str, wants: Sequence[Want], pico: int, told: Callable[[Sequence[Moved]], None], *, reserved: bool
    ) -> None:
        names = self._names(hold, wants)
        arguments = [hold, pico, int(not reserved), *(want.ends_s + KEPT_S for want in wants)]
        for pause_s in (*self._pauses_s, None):
            try:
                figures = await self._eval(_SETTLE, names, arguments)
                break
            except StoreFault as fault:
                if pause_s is None:
                    became = "what it reserved counts as spent" if reserved else "no budget knows of it"
                    log.error(f"a request could not be settled: {became}", fault=str(fault))
                    return
                await asyncio.sleep(pause_s)
        moved = []
        for at, want in enumerate(wants):
            changed, before, after, held = map(int, figures[4 * at : 4 * at + 4])
            self._note(want.account, after, held, want.ends_s)
            if changed:
                moved.append(Moved(want.account, before, after))
        if moved:
            told(moved)

    def _note(self, account: str, spent: int, held: int, ends_s: int) -> None:
        self._seen.pop(account, None)
        self._seen[account] = (spent, held, ends_s)
        if len(self._seen) > _MOST_SEEN:
            del self._seen[next(iter(self._seen))]


@lru_cache(maxsize=8)
def _digest(script: str) -> str:
    """The name under which the server remembers a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
