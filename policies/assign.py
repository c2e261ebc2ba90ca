"""Which arm a unit belongs to: drawn once by hash, the same ever after, on every machine. Pure.

A unit is whatever must not change sides: a user, a tenant, a session. Its point in [0, 1) is fixed by the salt and its
name; arms lie one after the other from 0 on. So an arm that stands first and grows keeps everyone it had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

__all__ = ["Unit", "arm_of", "point_of"]

Unit = Literal["user", "tenant", "session", "request"]
_BITS = 53  # of a float's mantissa: every point is exact, and none is 1


def point_of(salt: str, unit: str) -> float:
    """The unit's place in [0, 1): uniform over units, independent between salts. `salt`: 64 bytes at most."""
    digest = hashlib.blake2b(unit.encode(errors="surrogateescape"), key=salt.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> (64 - _BITS)) * 2.0**-_BITS


def arm_of(salt: str, unit: str, shares: Sequence[float]) -> int:
    """The number of the unit's arm. `shares`: of all units, for each arm but the last, which gets the rest."""
    point, upto = point_of(salt, unit), 0.0
    for number, share in enumerate(shares):
        upto += share
        if point < upto:
            return number
    return len(shares)
