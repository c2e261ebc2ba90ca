"""A circuit breaker: stop asking what fails, and find out with one probe when it works again. Pure; no clock."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Breaker", "Gate"]


class Gate(StrEnum):
    """What a caller may do now."""

    PASS = "pass"
    REFUSE = "refuse"
    PROBE = "probe"


class Breaker:
    """Opens after `threshold` failures in a row; `pause_s` later, and again after each failed probe, it asks one
    caller to probe. A success closes it, whoever had it."""

    def __init__(self, *, threshold: int, pause_s: float) -> None:
        self._threshold = threshold
        self._pause_s = pause_s
        self._failures = 0
        self._opened_tick: float | None = None
        self._probing = False

    @property
    def closed(self) -> bool:
        """Whether calls pass."""
        return self._opened_tick is None

    def due(self, tick_s: float) -> bool:
        """Whether `ask` would give leave now."""
        return self.closed or (not self._probing and tick_s - (self._opened_tick or 0.0) >= self._pause_s)

    def ask(self, tick_s: float) -> Gate:
        """May a call be made now? PROBE is given once; then its outcome must be told."""
        if self._opened_tick is None:
            return Gate.PASS
        if self._probing or tick_s - self._opened_tick < self._pause_s:
            return Gate.REFUSE
        self._probing = True
        return Gate.PROBE

    def succeeded(self) -> bool:
        """Tell a success; True where this closed the breaker."""
        was_open = self._opened_tick is not None
        self._failures, self._opened_tick, self._probing = 0, None, False
        return was_open

    def failed(self, tick_s: float, *, probe: bool = False) -> bool:
        """Tell a failure, of the probe or of another call; True where this opened the breaker.

        A call that was under way when the breaker opened and fails late prolongs nothing.
        """
        if self._opened_tick is not None:
            if probe:
                self._opened_tick, self._probing = tick_s, False
            return False
        self._failures += 1
        if self._failures < self._threshold:
            return False
        self._opened_tick, self._probing = tick_s, False
        return True
