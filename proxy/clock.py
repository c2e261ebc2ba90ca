"""Time and chance as values that are handed in: nothing else in farthing reads a clock or rolls dice."""

from __future__ import annotations

import random
import secrets
import time
from typing import Protocol

__all__ = ["Clock", "FakeClock", "Randomness", "SystemClock", "SystemRandomness", "new_id"]


class Clock(Protocol):
    """Wall time for records and expiry, monotonic time for durations."""

    def now_s(self) -> float:
        """Seconds since the epoch, UTC."""
        ...

    def tick_s(self) -> float:
        """Monotonic seconds; only differences mean anything."""
        ...


class Randomness(Protocol):
    """Chance, injected."""

    def uniform(self) -> float:
        """A float in [0, 1)."""
        ...

    def token(self, n_bytes: int) -> str:
        """`n_bytes` unpredictable bytes as hex."""
        ...


class SystemClock:
    """The machine's clocks."""

    now_s = staticmethod(time.time)
    tick_s = staticmethod(time.perf_counter)


class SystemRandomness:
    """The operating system's randomness."""

    def __init__(self) -> None:
        self._random = random.Random(secrets.randbits(64))
        self._pool, self._at = "", 0

    def uniform(self) -> float:
        return self._random.random()

    def token(self, n_bytes: int) -> str:
        """Drawn from a pool, so that the operating system is asked once for many; nothing is given twice."""
        begin, end = self._at, self._at + 2 * n_bytes
        if end > len(self._pool):
            self._pool = secrets.token_hex(max(n_bytes, 2048))
            begin, end = 0, 2 * n_bytes
        self._at = end
        return self._pool[begin:end]


def new_id(now_s: float, randomness: Randomness) -> str:
    """A request's id. The moment comes first, so that ids sort by time and the ledger's index grows at its end."""
    return f"far-{int(now_s * 1000):011x}{randomness.token(7)}"


class FakeClock:
    """A clock that moves only when told; for tests and replays."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self.wall_s = now_s
        self.mono_s = 0.0

    def now_s(self) -> float:
        return self.wall_s

    def tick_s(self) -> float:
        return self.mono_s

    def advance(self, seconds: float) -> None:
        """Move both clocks on by `seconds`."""
        self.wall_s += seconds
        self.mono_s += seconds
