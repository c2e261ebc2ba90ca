"""A replica's circuit: whether what failed lately is asked again, and when. Pure; ticks are handed in.

It opens after so many failures in a row, or where too large a share of the calls in a window failed. When its pause is
over, one call is let through (half-open): its success closes the circuit, its failure begins another pause.

Sources: Nygard, "Release It!", 2nd edition, "Circuit Breaker"; Envoy, "Outlier detection" (failures in a row, and a
share of them).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Circuit", "CircuitRules", "Gate"]


@dataclass(frozen=True, slots=True)
class CircuitRules:
    """`failures`: in a row, that open it. `share`: of the calls of the last `window_s`, if they are `least_calls`."""

    failures: int = 5
    pause_s: float = 10.0
    share: float = 0.5
    least_calls: int = 20
    window_s: float = 30.0


class Gate(StrEnum):
    """What a call may do now."""

    PASS = "pass"
    REFUSE = "refuse"
    PROBE = "probe"


class Circuit:
    """The state of one. Tell it of each call: `begin`, and then `succeeded`, `failed` or `given_up`, once.

    While it is open only the probe's outcome counts: a call that began before and ends late says nothing new.
    """

    __slots__ = ("_before", "_failures", "_half", "_now", "_opened_tick", "_probing", "rules")

    def __init__(self, rules: CircuitRules) -> None:
        self.rules = rules
        self._failures = 0
        self._opened_tick: float | None = None
        self._probing = False
        self._half = 0  # the number of the half window that is being counted
        self._now, self._before = [0, 0], [0, 0]  # calls and failures in this half window, and in the one before

    @property
    def open(self) -> bool:
        """Whether calls are refused, but for probes."""
        return self._opened_tick is not None

    def gate(self, tick_s: float, most_s: float = math.inf) -> Gate:
        """What a call that begins now may do. Changes nothing. `most_s`: no pause counts as longer than that."""
        if self._opened_tick is None:
            return Gate.PASS
        if self._probing or tick_s - self._opened_tick < min(self.rules.pause_s, most_s):
            return Gate.REFUSE
        return Gate.PROBE

    def wait_s(self, tick_s: float, most_s: float = math.inf) -> float:
        """Seconds until a call may pass or probe; while a probe is under way, the pause that it may begin."""
        if self._opened_tick is None:
            return 0.0
        pause_s = min(self.rules.pause_s, most_s)
        return pause_s if self._probing else max(0.0, self._opened_tick + pause_s - tick_s)

    def begin(self) -> bool:
        """A call that `gate` let through begins; True: it is the probe, which is to be told with its outcome."""
        if self._opened_tick is None:
            return False
        self._probing = True
        return True

    def succeeded(self, tick_s: float, *, probe: bool) -> bool:
        """True: this closed it."""
        if self._opened_tick is None:
            self._failures = 0
            self._count(tick_s, failed=0)
            return False
        if not probe:
            return False
        self._failures, self._opened_tick, self._probing = 0, None, False
        self._now, self._before = [0, 0], [0, 0]
        return True

    def failed(self, tick_s: float, *, probe: bool) -> bool:
        """True: this opened it."""
        if self._opened_tick is not None:
            if probe:
                self._opened_tick, self._probing = tick_s, False
            return False
        self._failures += 1
        self._count(tick_s, failed=1)
        calls, failures = self._now[0] + self._before[0], self._now[1] + self._before[1]
        rules = self.rules
        if self._failures < rules.failures and (calls < rules.least_calls or failures < rules.share * calls):
            return False
        self._opened_tick, self._probing = tick_s, False
        return True

    def given_up(self, *, probe: bool) -> None:
        """The call ended without saying anything of the replica: the client left. Another may probe."""
        if probe:
            self._probing = False

    def _count(self, tick_s: float, *, failed: int) -> None:
        half = int(tick_s / (self.rules.window_s / 2))
        if half != self._half:
            self._before = self._now if half == self._half + 1 else [0, 0]
            self._now, self._half = [0, 0], half
        self._now[0] += 1
        self._now[1] += failed
