"""What a state that replicas agree upon looks like in Redis: names, scripts, and how it is packed. Pure.

All keys of one state have one hash tag, so that they are in one slot of a cluster:

    {farthing:a:NAME}:about   hash: generation; at, digest: of the state that is kept; from: the log is whole after it;
                              last: of the log; marked_ms
    {farthing:a:NAME}:log     stream: w, the teller; e, an event as JSON; or m, who marks
    {farthing:a:NAME}:state   hash: the state as it was at `at`, packed, in numbered pieces
    {farthing:a:NAME}:before  the same of `from`, for ten minutes: for who began to read it while it was the one kept
    {farthing:a:NAME}:c:X     pieces of one that isn't kept yet, until a minute after the last came
    {farthing:a:NAME}:claim   somebody is writing the first one, for half a minute after each piece
    {farthing:a:NAME}:t:W     number of the last event that teller W has in the log, for a day

Source: Redis, "Streams" and "Scripting with Lua" (a script is atomic).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

__all__ = [
    "APPEND",
    "BEGIN",
    "FORGET",
    "KEEP",
    "LOOK",
    "MARK",
    "PART",
    "PIECE",
    "READ",
    "Id",
    "Names",
    "Packed",
    "id_of",
    "pack",
    "told",
    "unpack",
]

_TOLD_S = 86_400
_UNUSED_S = 3_600  # whoever follows it has it, and puts it back; so it goes soon after the last one
_BEFORE_S = 600
_COMING_S = 60
_CLAIM_S = 30
_LEVEL = 1


class Id(NamedTuple):
    """Of an entry of a stream; they compare in the order of the log."""

    ms: int
    number: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.number}"


def id_of(text: bytes | str) -> Id:
    """Raises ValueError: it is no id."""
    ms, _, number = (text.decode() if isinstance(text, bytes) else text).partition("-")
    return Id(int(ms), int(number))


class Names:
    """The keys of the state of this name."""

    def __init__(self, name: str, prefix: str = "farthing") -> None:
        self._tag = f"{{{prefix}:a:{name}}}"
        self.about, self.log, self.state = (f"{self._tag}:{what}" for what in ("about", "log", "state"))
        self.before, self.claim = f"{self._tag}:before", f"{self._tag}:claim"

    def coming(self, name: str) -> str:
        """Pieces of a state that isn't kept yet."""
        return f"{self._tag}:c:{name}"

    def told(self, teller: str) -> str:
        """How far this teller's events have come."""
        return f"{self._tag}:t:{teller}"


class Packed(NamedTuple):
    """A state: `body` is its slices, one JSON text a line, compressed; equal states have equal digests."""

    body: bytes
    digest: str


def pack(lines: Iterable[bytes]) -> Packed:
    """Of the state's slices as JSON."""
    whole = b"\n".join(lines)
    return Packed(zlib.compress(whole, _LEVEL), hashlib.sha256(whole).hexdigest()[:32])


def unpack(body: bytes) -> list[Any]:
    """The slices. Raises ValueError: damaged."""
    try:
        return [orjson.loads(line) for line in zlib.decompress(body).splitlines()]
    except zlib.error as error:
        raise ValueError(f"the replicas' state is damaged: {error}") from None


def told(numbered: Sequence[tuple[int, bytes]]) -> list[bytes | int]:
    """The arguments of APPEND for these events."""
    return [part for one in numbered for part in one]


# Nothing of it is lost: the log has one entry at least since the first one came.
_WHOLE = """
local stands = redis.call('HMGET', KEYS[1], 'generation', 'last')
local whole = stands[1] and redis.call('EXISTS', KEYS[3]) == 1
  and (stands[2] == '0-0' or redis.call('EXISTS', KEYS[2]) == 1)
"""

# KEYS: about, log, state, claim. Gives generation ('': something of it is lost), at, digest, how many pieces the state
# has (0: it is something else), and whether somebody is writing the first one.
LOOK = f"""{_WHOLE}
if not whole then return {{'', '0-0', '', 0, redis.call('EXISTS', KEYS[4])}} end
local about = redis.call('HMGET', KEYS[1], 'at', 'digest')
local count = redis.call('TYPE', KEYS[3]).ok == 'hash' and redis.call('HLEN', KEYS[3]) or 0
return {{stands[1], about[1], about[2], count, 0}}
"""

# KEYS: the coming state's, and claim or none. ARGV: number, piece.
PIECE = f"""
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], {_COMING_S})
if KEYS[2] then redis.call('SET', KEYS[2], 1, 'EX', {_CLAIM_S}) end
return 1
"""

# KEYS: about, state, before. ARGV: generation, the place that the state is of, number. Gives that piece, which is
# empty where it was lost; false: that state isn't kept any more.
PART = """
local about = redis.call('HMGET', KEYS[1], 'generation', 'at', 'from')
if about[1] ~= ARGV[1] then return false end
if about[2] == ARGV[2] then return redis.call('HGET', KEYS[2], ARGV[3]) or '' end
if about[3] == ARGV[2] then return redis.call('HGET', KEYS[3], ARGV[3]) end
return false
"""

# KEYS: about, log, state, before, claim, the coming state's. ARGV: generation, digest, how many pieces, and the
# generation that is of no use, or ''. Gives 1 where it was begun so: there was none, something of it is lost, or it is
# that one; -1: pieces are missing.
BEGIN = f"""{_WHOLE}
if whole and stands[1] ~= ARGV[4] then return 0 end
if redis.call('HLEN', KEYS[6]) ~= tonumber(ARGV[3]) then return -1 end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'at', '0-0', 'from', '0-0', 'last', '0-0', 'digest', ARGV[2],
  'marked_ms', 0)
redis.call('EXPIRE', KEYS[1], {_UNUSED_S})
redis.call('RENAME', KEYS[6], KEYS[3])
redis.call('EXPIRE', KEYS[3], {_UNUSED_S})
return 1
"""

# KEYS: about, log, state, told. ARGV: generation, teller, then number and JSON of each event. One that is there
# already, since the script was sent twice, is passed by. Gives the generation that stands.
APPEND = f"""
local generation = redis.call('HGET', KEYS[1], 'generation') or ''
if generation ~= ARGV[1] then return generation end
local last = tonumber(redis.call('GET', KEYS[4]) or '0')
for i = 3, #ARGV, 2 do
  local number = tonumber(ARGV[i])
  if number > last then
    local id = redis.call('XADD', KEYS[2], '*', 'w', ARGV[2], 'n', ARGV[i], 'e', ARGV[i + 1])
    redis.call('HSET', KEYS[1], 'last', id)
    last = number
  end
end
redis.call('SET', KEYS[4], string.format('%.0f', last), 'EX', {_TOLD_S})
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], {_UNUSED_S}) end
return generation
"""

# KEYS: about, log, state. ARGV: the last id that was read, how many, of how many bytes (but one at least). Gives
# generation ('': something of it is lost), at, digest, from, last, and the entries.
READ = f"""{_WHOLE}
if not whole then return {{'', '0-0', '', '0-0', '0-0', {{}}}} end
local about = redis.call('HMGET', KEYS[1], 'at', 'digest', 'from')
local found = redis.call('XRANGE', KEYS[2], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
local bytes, fit = 0, 0
for i = 1, #found do
  for _, part in ipairs(found[i][2]) do bytes = bytes + #part end
  if i > 1 and bytes > tonumber(ARGV[3]) then break end
  fit = i
end
for i = #found, fit + 1, -1 do found[i] = nil end
return {{stands[1], about[1], about[2], about[3], stands[2], found}}
"""

# KEYS: about, log. ARGV: generation, teller, ms between marks. Whoever comes first after that time marks.
MARK = """
if (redis.call('HGET', KEYS[1], 'generation') or '') ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local since_ms = now_ms - tonumber(redis.call('HGET', KEYS[1], 'marked_ms') or 0)
if since_ms >= 0 and since_ms < tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], 'marked_ms', string.format('%.0f', now_ms))
redis.call('HSET', KEYS[1], 'last', redis.call('XADD', KEYS[2], '*', 'm', ARGV[2]))
return 1
"""

# KEYS: about, log, state, before, the coming state's. ARGV: generation, the mark's id, the mark before that, digest,
# how many pieces. The log keeps what came since the mark before, for those who are a little behind.
KEEP = f"""
local about = redis.call('HMGET', KEYS[1], 'generation', 'at')
if about[1] ~= ARGV[1] or about[2] ~= ARGV[3] then return 0 end
if redis.call('HLEN', KEYS[5]) ~= tonumber(ARGV[5]) then return 0 end
redis.call('UNLINK', KEYS[4])
if redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('RENAME', KEYS[3], KEYS[4])
  redis.call('EXPIRE', KEYS[4], {_BEFORE_S})
end
redis.call('HSET', KEYS[1], 'at', ARGV[2], 'from', ARGV[3], 'digest', ARGV[4])
redis.call('RENAME', KEYS[5], KEYS[3])
redis.call('EXPIRE', KEYS[3], {_UNUSED_S})
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[3])
return 1
"""

# KEYS: about, log, state, before, claim.
FORGET = "return redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])"
