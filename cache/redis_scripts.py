"""What changes an entry in Redis: each change is one step, in one slot, and may be sent twice.

Names that belong to an answer have its hash tag, and every script is given all that it touches. Nothing is written
without an expiry in the same step: what nobody ever reads again must go by itself. Each begins with the one command
that a full server refuses, so that it is refused before anything has changed.
"""

from __future__ import annotations

__all__ = ["DROP", "KEEP", "LAND", "PIECE", "REPLACE"]

# KEYS: pieces that are being written. ARGV: number of the piece, the piece, life of what doesn't land in milliseconds.
PIECE = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
"""

# ARGV: value, its life in milliseconds, its key where it is a variant, how many pieces it has. Ends with the script
# where pieces are missing, unless this very value has landed.
_KEEP = """
local value, life, variant, count = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local landed = false
if count > 0 and redis.call('HLEN', KEYS[4]) ~= count then
  if redis.call('GET', KEYS[1]) ~= value then return 'lacking' end
  landed = true
end
redis.call('SET', KEYS[1], value, 'PX', life)
if count == 0 then
  redis.call('UNLINK', KEYS[2])
else
  if not landed then redis.call('RENAME', KEYS[4], KEYS[2]) end
  redis.call('PEXPIRE', KEYS[2], life)
end
if variant ~= '' then
  redis.call('SADD', KEYS[3], variant)
  if redis.call('PTTL', KEYS[3]) < tonumber(life) then redis.call('PEXPIRE', KEYS[3], life) end
end
"""

# KEYS: entry, pieces, the set of the answer's variants, pieces that are being written. ARGV: as above.
KEEP = f"{_KEEP}return 'kept'"

# KEYS: those, and the lease (leases_redis.py). ARGV: those, and the token. 'late' where a larger token was given.
LAND = f"""
local found = redis.call('HMGET', KEYS[5], 'token', 'replaced')
if found[1] and tonumber(found[1]) > tonumber(ARGV[5]) then
  redis.call('UNLINK', KEYS[4])
  return 'late'
end
{_KEEP}
if found[1] == ARGV[5] then
  if found[2] == '1' then redis.call('HSET', KEYS[5], 'ended', 'landed') else redis.call('DEL', KEYS[5]) end
end
return 'kept'
"""

# KEYS: entry, pieces. ARGV: the head as it was read. Removes both, if that is still what is there.
DROP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1], KEYS[2])
"""

# KEYS: entry, pieces, pieces that are being written. ARGV: the head as it was read, the head as it shall be, how many
# pieces. Gives 0 where another one came first. It keeps its expiry.
REPLACE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('HLEN', KEYS[3]) ~= tonumber(ARGV[3]) then return 0 end
local life = redis.call('PTTL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
redis.call('RENAME', KEYS[3], KEYS[2])
if life > 0 then redis.call('PEXPIRE', KEYS[2], life) end
return 1
"""
