"""Has something changed? Two alarms that can be asked after every observation. Pure; chance is an argument.

Rules of this file:
1. An alarm never proves that something is bad: it says that old evidence no longer speaks for today.
2. False alarms are bounded by their average distance, in observations, not by a probability over all time: a detector
   that never raises a false one can't stay quick.

Sources: Shin, Ramdas & Rinaldo, E-detectors (arXiv 2203.03532), Shiryaev-Roberts form; Vovk, Testing
randomness online (arXiv 1906.09256), conformal test martingales.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from farthing.policies.sequence import Bets

__all__ = ["Fall", "Rise"]

_RISE = Bets((2.0, 5.0, 15.0), (0.3, 0.4, 0.3))
_TILTS = (0.8, 1.8)
_ENOUGH = 1e12


@dataclass(slots=True)
class Rise:
    """Has the rate of bad outcomes risen above `mean`? While it hasn't, the average way to an alarm is >= `patience`.

    `levels`: one sum of e-values over all possible moments of change, for each bet.
    """

    mean: float
    patience: float
    levels: list[float] = field(default_factory=lambda: [0.0] * len(_RISE.odds))

    def add(self, outcome: float, weight: float = 1.0) -> bool:
        """Take one outcome in [0, 1]; whether the alarm is up."""
        for i, g in enumerate(_RISE.odds):
            gain = (1.0 + (g - 1.0) * outcome) / (1.0 + (g - 1.0) * self.mean)
            self.levels[i] = min(_ENOUGH, (1.0 + self.levels[i]) * (1.0 + weight * (gain - 1.0)))
        return self.alarm

    @property
    def alarm(self) -> bool:
        """Whether the evidence for a rise has reached its mark."""
        return self.height >= 1.0

    @property
    def height(self) -> float:
        """How far the evidence is on its way to the mark; 1 is the alarm."""
        return sum(share * level for share, level in zip(_RISE.shares, self.levels, strict=True)) / self.patience


@dataclass(slots=True)
class Fall:
    """Have the scores fallen? While they come in exchangeable order, the average way to an alarm is >= `patience`.

    Scores are known by their bin only, 0 the lowest. Each is ranked among all before it, ties broken by chance, which
    makes the ranks of exchangeable scores uniform and independent, whatever the scores' distribution; the bets are on
    low ranks. Rising scores are no alarm: a cache that fills finds nearer neighbours.
    """

    bins: int
    patience: float
    counts: list[int] = field(default_factory=list)
    levels: list[float] = field(default_factory=lambda: [0.0] * len(_TILTS))

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * self.bins

    def add(self, place: int, chance: float) -> bool:
        """Take the next score's bin, 0 <= place < bins, and a uniform number in [0, 1); whether the alarm is up."""
        self.counts[place] += 1
        rank = (sum(self.counts[:place]) + chance * self.counts[place]) / sum(self.counts)
        for i, tilt in enumerate(_TILTS):
            self.levels[i] = min(_ENOUGH, (1.0 + self.levels[i]) * (1.0 + tilt * (0.5 - rank)))
        return self.alarm

    @property
    def alarm(self) -> bool:
        """Whether the evidence for a fall has reached its mark."""
        return self.height >= 1.0

    @property
    def height(self) -> float:
        """How far the evidence is on its way to the mark; 1 is the alarm."""
        return sum(self.levels) / len(self.levels) / self.patience
