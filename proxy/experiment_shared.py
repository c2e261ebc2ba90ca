"""Records of experiments that replicas share: one for each name, the latest, in Redis or Valkey.

    {farthing:x:NAME}:record   hash: id, state, body (the record as JSON, without its history)
    {farthing:x:NAME}:alive    id of the one that some replica runs; a minute after the last has looked it is gone
    {farthing:x:NAME}:ended    hashes of declarations that have ended

Every change is one script, which says what it expects to be there; each may be sent twice. None of it has an expiry but
the second: what has ended stays ended.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from farthing.proxy.errors import StoreFault
from farthing.proxy.experiment_book import Record

if TYPE_CHECKING:
    from farthing.cache.store_redis import RedisStore

__all__ = ["SharedRecords", "Standing"]

_ALIVE_MS = 60_000

# KEYS: record, alive, ended. ARGV: id of the one that runs here, for how long that holds in ms, a declaration's hash.
# Gives id and body, the id that is alive, and whether that declaration has ended.
_LOOK = """
local found = redis.call('HMGET', KEYS[1], 'id', 'state', 'body')
if found[1] and found[1] == ARGV[1] and found[2] == 'running' then
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
end
return {found[1] or '', found[3] or '', redis.call('GET', KEYS[2]) or '', redis.call('SISMEMBER', KEYS[3], ARGV[3])}
"""

# KEYS: record, alive. ARGV: id, body, the id that it comes after, for how long it is alive in ms. Gives the body that
# stands.
_BEGIN = """
local id = redis.call('HGET', KEYS[1], 'id') or ''
if id == ARGV[3] and id ~= ARGV[1] then
  redis.call('HSET', KEYS[1], 'id', ARGV[1], 'state', 'running', 'body', ARGV[2])
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[4])
end
return redis.call('HGET', KEYS[1], 'body')
"""

# KEYS: record, alive, ended. ARGV: id, state, body, the declaration's hash or ''. Gives the body that stands, or ''.
_END = """
local found = redis.call('HMGET', KEYS[1], 'id', 'state')
if found[1] == ARGV[1] and found[2] == 'running' then
  redis.call('HSET', KEYS[1], 'state', ARGV[2], 'body', ARGV[3])
  redis.call('DEL', KEYS[2])
  if ARGV[4] ~= '' then redis.call('SADD', KEYS[3], ARGV[4]) end
end
return redis.call('HGET', KEYS[1], 'body') or ''
"""


class Standing(NamedTuple):
    """What is known of one name. `record`: the latest; `alive`: some replica runs it; `ended`: the declaration that was
    asked about has ended once."""

    record: Record | None
    alive: bool
    ended: bool


class SharedRecords:
    """See the module. Everything raises StoreFault."""

    def __init__(self, server: RedisStore, prefix: str = "farthing") -> None:
        self._server = server
        self._prefix = prefix

    async def look(self, name: str, *, declared: str = "", going: str = "") -> Standing:
        """What stands now. `going`: the id of the one that runs here, which keeps it alive."""
        id, body, alive, ended = await self._eval(_LOOK, name, "rae", going, _ALIVE_MS, declared)
        return Standing(_read(body) if id else None, bool(id) and alive == id, bool(ended))

    async def begin(self, record: Record, after: str) -> Record:
        """Let it stand, if what stands now has the id `after` ('': nothing does); what stands then."""
        body = await self._eval(_BEGIN, record.name, "ra", record.id, _body(record), after, _ALIVE_MS)
        return _read(body)

    async def end(self, record: Record, *, for_good: bool) -> Record | None:
        """It has ended as it says, if it stands and runs; what stands then. `for_good`: its declaration isn't begun
        again."""
        declared = record.declared if for_good else ""
        body = await self._eval(_END, record.name, "rae", record.id, record.state, _body(record), declared)
        return _read(body) if body else None

    async def _eval(self, script: str, name: str, keys: str, *values: object) -> Any:
        tag = f"{{{self._prefix}:x:{name}}}"
        named = [f"{tag}:{what}" for what in ("record", "alive", "ended") if what[0] in keys]
        return await self._server.run("write", lambda client: client.eval(script, len(named), *named, *values))


def _body(record: Record) -> bytes:
    return orjson.dumps({name: value for name, value in asdict(record).items() if name != "points"})


def _read(body: bytes) -> Record:
    try:
        return Record.read(orjson.loads(body))
    except (ValueError, KeyError, TypeError) as error:
        raise StoreFault(f"what replicas know of an experiment can't be read: {error!r}") from error
