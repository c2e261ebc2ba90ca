"""Is one arm worse than the other, however often one looks? A bet on which arm a bad outcome falls to. Pure.

Requests are given to the candidate by chance, with probability `share`. Whatever happens to all traffic at once (an
outage, a busy hour, a burst of long prompts) then falls to the arms in proportion, so nothing needs to stand still: it
is enough that at each moment the candidate's mean badness is no more than `ratio` times the active one's. Under that
hypothesis every bet's capital is a supermartingale:

    K <- K * (1 + f * y * (A - share) / share),   y = badness / ratio for the candidate (A = 1), badness else (A = 0)

since E[y (A - share)] = share (1 - share) (mean_candidate / ratio - mean_active) <= 0. The capital is spread over
several bets f, and P(it ever reaches 1/level) <= level (Ville's inequality).

Sources: Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting (JRSS B 2024); Shekhar & Ramdas,
Nonparametric two-sample testing by betting (IEEE Trans. IT 2024); Ham, Bojinov, Lindon & Tingley, Design-based
confidence sequences (arXiv 2210.08639), for leaning on the assignment alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Race"]

# The best bet is some share * (excess of the candidate): from barely worse at one per cent up to failing altogether.
_BETS = (0.003, 0.01, 0.03, 0.1, 0.3, 0.6, 0.9)


@dataclass(slots=True)
class Race:
    """One metric's evidence that the candidate is worse. `share`: of requests that are the candidate's, in (0, 1).
    `ratio`: how many times the active one's badness is accepted, 1 or more. `logs`: the bets' capital so far."""

    share: float
    ratio: float = 1.0
    logs: list[float] = field(default_factory=lambda: [0.0] * len(_BETS))

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0 or self.ratio < 1.0 or len(self.logs) != len(_BETS):
            raise ValueError(f"a share in (0, 1), a ratio of 1 or more, {len(_BETS)} bets: {self}")

    def add(self, *, candidate: bool, badness: float) -> None:
        """One more outcome, in [0, 1]; 0 changes nothing. ValueError outside."""
        if not 0.0 <= badness <= 1.0:
            raise ValueError(f"badness lies in [0, 1]: {badness!r}")
        if not badness:
            return
        gain = badness / self.ratio * (1.0 - self.share) / self.share if candidate else -badness
        self.logs = [log + math.log1p(bet * gain) for log, bet in zip(self.logs, _BETS, strict=True)]

    @property
    def log_e(self) -> float:
        """The logarithm of the e-value: 0 says nothing, ln(1/level) is proof at that level."""
        return log_mean(self.logs)


def log_mean(logs: Sequence[float]) -> float:
    """The logarithm of the mean of what these are logarithms of."""
    top = max(logs)
    return top + math.log(sum([math.exp(log - top) for log in logs]) / len(logs))
