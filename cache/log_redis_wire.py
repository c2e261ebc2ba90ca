"""What the replicas' log looks like in Redis: names, rows, and the scripts that change it in one step. Pure.

All keys of one log have one hash tag, so that they are in one slot of a cluster:

    {farthing:s:ID}:about     hash: generation, seq (the last number given out), marked_ms
    {farthing:s:ID}:log       stream; an entry's id is its number: seq-0
    {farthing:s:ID}:rows:N    hash by entry key, N of 0 to 255: number and packed row; the snapshot
    {farthing:s:ID}:told      hash of what each replica says that it holds, by its name

The rows are changed by the script that appends, so they are never behind the stream, and whatever the stream is
trimmed to, a snapshot is at hand. Whoever appends a change is told the number of the one that it outdates, whose entry
holds a text that nobody should find any more: it is deleted when all have had time to read it.

Source: Redis, "Streams" (explicit ids grow) and "Scripting with Lua" (a script is atomic).
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from typing import TYPE_CHECKING

from farthing.cache.semantic_disk import Row
from farthing.proxy.seal import Seal, SealedElsewhere

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["APPEND", "BEGIN", "CHUNKS", "CLEAR", "READ", "REPLACE", "TALK", "Names", "pack", "resealed", "unpack"]

CHUNKS = 256
_FORMAT = "1"
_HEAD = struct.Struct("<IddHI")  # checksum of the rest, expires_s, worth_usd, bytes of the scope, bytes of the text
_UNKNOWN_WORTH = -1.0


class Names:
    """The keys of the log that vectors of one model share."""

    def __init__(self, prefix: str, embedder: str) -> None:
        id = hashlib.sha256(f"{_FORMAT}\0{embedder}".encode()).hexdigest()[:12]
        self._named(f"{{{prefix}:s:{id}}}")

    @classmethod
    def at(cls, about: str) -> Names:
        """Those of the log whose `about` has this name, whatever its model."""
        names = cls.__new__(cls)
        names._named(about.removesuffix(":about"))
        return names

    @staticmethod
    def pattern(prefix: str) -> str:
        """What finds the `about` of every model's log."""
        return f"{{{prefix}:s:*}}:about"

    def _named(self, tag: str) -> None:
        self.about, self.stream, self.told = (f"{tag}:{what}" for what in ("about", "log", "told"))
        self.chunks: Sequence[str] = [f"{tag}:rows:{number}" for number in range(CHUNKS)]

    def chunk(self, entry_key: str) -> str:
        """Where the entry's row is."""
        return self.chunks[zlib.crc32(entry_key.encode()) % CHUNKS]


def pack(row: Row, seal: Seal | None) -> bytes:
    """A row as bytes: the vector in half precision, which moves a cosine by 0.001 at most."""
    scope, text = row.scope.encode(), row.text.encode()
    worth_usd = _UNKNOWN_WORTH if row.worth_usd is None else row.worth_usd
    tail = _HEAD.pack(0, row.expires_s, worth_usd, len(scope), len(text))[4:]
    rest = b"".join((tail, scope, text, row.vector.astype("<f2").tobytes()))
    whole = struct.pack("<I", zlib.crc32(rest)) + rest
    return whole if seal is None else seal.close(whole, row.entry_key.encode())


def unpack(entry_key: str, packed: bytes, dim: int, seal: Seal | None) -> Row | None:
    """The row; None: damaged, of another form, or sealed under a key that isn't here."""
    import numpy as np

    try:
        whole = packed if seal is None else seal.open(packed, entry_key.encode())
        check, expires_s, worth_usd, scope_bytes, text_bytes = _HEAD.unpack_from(whole)
        text_at = _HEAD.size + scope_bytes
        vector_at = text_at + text_bytes
        if len(whole) != vector_at + 2 * dim or zlib.crc32(memoryview(whole)[4:]) != check:
            return None
        scope, text = whole[_HEAD.size : text_at].decode(), whole[text_at:vector_at].decode()
    except (SealedElsewhere, ValueError, struct.error):
        return None
    vector = np.frombuffer(whole, "<f2", offset=vector_at).astype(np.float32)
    if not np.isfinite(vector).all() or not math.isfinite(expires_s):
        return None
    return Row(scope, entry_key, text, expires_s, vector, worth_usd if 0 <= worth_usd < math.inf else None)


def resealed(entry_key: str, packed: bytes, seal: Seal) -> bytes | None:
    """The row under the seal's current key; None where it is so already. Raises SealedElsewhere; ValueError: it is
    damaged."""
    if seal.is_current(packed):
        return None
    bound = entry_key.encode()
    return seal.close(packed if _is_open(packed) else seal.open(packed, bound), bound)


def _is_open(packed: bytes) -> bool:
    """Whether it is a row that no seal has closed: those have no mark."""
    try:
        check, _, _, scope_bytes, text_bytes = _HEAD.unpack_from(packed)
    except struct.error:
        return False
    whole: bool = len(packed) >= _HEAD.size + scope_bytes + text_bytes
    return whole and zlib.crc32(memoryview(packed)[4:]) == check


# KEYS: about, stream, then each change's rows. ARGV: generation, writer, length of the stream, then for each change the
# entry key and the row, '' where it goes. Gives the generation, and for each change the number by which it stood in the
# log, and the number that it outdates, or 0.
APPEND = """
local generation = redis.call('HGET', KEYS[1], 'generation') or ''
if generation ~= ARGV[1] then return {generation} end
local told = {generation}
local seq = tonumber(redis.call('HGET', KEYS[1], 'seq'))
for i = 3, #KEYS do
  local key, row = ARGV[2 * i - 2], ARGV[2 * i - 1]
  local old = redis.call('HGET', KEYS[i], key)
  if row ~= '' or old then
    seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
    if row == '' then redis.call('HDEL', KEYS[i], key) else redis.call('HSET', KEYS[i], key, seq .. ' ' .. row) end
    redis.call('XADD', KEYS[2], 'MINID', '~', math.max(seq - ARGV[3], 0) .. '-0', seq .. '-0',
      'w', ARGV[2], 'k', key, 'r', row)
  end
  told[#told + 1] = seq
  told[#told + 1] = old and tonumber(string.match(old, '^(%d+) ')) or 0
end
return told
"""

# KEYS: about, stream, the entry's rows. ARGV: generation, writer, length of the stream, entry key, number and row as
# they stand, the row as it shall be. Gives the number that the change got; 0 where another one came first.
REPLACE = """
if (redis.call('HGET', KEYS[1], 'generation') or '') ~= ARGV[1] then return 0 end
if redis.call('HGET', KEYS[3], ARGV[4]) ~= ARGV[5] then return 0 end
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
redis.call('HSET', KEYS[3], ARGV[4], seq .. ' ' .. ARGV[6])
redis.call('XADD', KEYS[2], 'MINID', '~', math.max(seq - ARGV[3], 0) .. '-0', seq .. '-0',
  'w', ARGV[2], 'k', ARGV[4], 'r', ARGV[6])
return seq
"""

# KEYS: about, stream, all rows. ARGV: generation, writer.
CLEAR = """
local generation = redis.call('HGET', KEYS[1], 'generation') or ''
if generation ~= ARGV[1] then return {generation} end
for i = 3, #KEYS do redis.call('UNLINK', KEYS[i]) end
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
redis.call('DEL', KEYS[2])
redis.call('XADD', KEYS[2], seq .. '-0', 'w', ARGV[2], 'k', '', 'r', '')
return {generation, seq, 0}
"""

# KEYS: about, stream, told, all rows. ARGV: the generation to begin. Gives the one that stands then: whoever is first
# has begun it, for all.
BEGIN = """
local generation = redis.call('HGET', KEYS[1], 'generation')
if generation then return generation end
for i = 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'seq', 0)
return ARGV[1]
"""

# KEYS: about, stream. ARGV: offset, count. Gives generation, last number, and what the stream has after the offset.
READ = """
local about = redis.call('HMGET', KEYS[1], 'generation', 'seq')
local found = redis.call('XRANGE', KEYS[2], '(' .. ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])
return {about[1] or '', tonumber(about[2] or 0), found}
"""

# KEYS: about, stream, told. ARGV: generation, writer, what it says, ms between marks, s that a mark looks ahead, ms
# that a replica is believed, length of the stream. Gives names and sayings of all who live, one after the other.
TALK = """
if (redis.call('HGET', KEYS[1], 'generation') or '') ~= ARGV[1] then return {} end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local marked_ms = tonumber(redis.call('HGET', KEYS[1], 'marked_ms') or 0)
if now_ms - marked_ms >= tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[1], 'marked_ms', string.format('%.0f', now_ms))
  local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
  local minute = math.floor((time[1] + ARGV[5]) / 60)
  redis.call('XADD', KEYS[2], 'MINID', '~', math.max(seq - ARGV[7], 0) .. '-0', seq .. '-0', 'm', minute)
end
redis.call('HSET', KEYS[3], ARGV[2], string.format('%.0f', now_ms) .. ' ' .. ARGV[3])
local all, living = redis.call('HGETALL', KEYS[3]), {}
for i = 1, #all, 2 do
  local said_ms, said = string.match(all[i + 1], '^(%d+) (.*)$')
  if said_ms and now_ms - tonumber(said_ms) < tonumber(ARGV[6]) then
    living[#living + 1] = all[i]
    living[#living + 1] = said
  else
    redis.call('HDEL', KEYS[3], all[i])
  end
end
return living
"""
