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
# The mean rank of served scores that is borne, and how much is bet against a lower one. A half would be 'no lower at
# all': small falls are many, and harm little; what they do harm is for the rate's own alarm to find.
_LEAST = 0.4
_TILTS = (0.6, 1.5)
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
    """Have the served scores fallen far below those that the proof was made of? Else the average way is >= `patience`.

    Scores are known by their bin only, 0 the lowest. What is compared is what is served: each score from the threshold
    up is ranked among all before it from there up, ties broken by chance. While they come in exchangeable order, the
    ranks are uniform and independent, whatever the scores' distribution. Bets are on a mean rank below `_LEAST`.
    Scores that are only observed are counted, for later ones to be ranked among, and bet on by nobody: what
    was proved of them is no news. Rising scores are no alarm: a cache that fills finds nearer neighbours.
    """

    bins: int
    patience: float
    counts: list[int] = field(default_factory=list)
    levels: list[float] = field(default_factory=lambda: [0.0] * len(_TILTS))

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * self.bins

    def see(self, place: int) -> None:
        """Take the bin of a score that isn't served, 0 <= place < bins."""
        self.counts[place] += 1

    def restart(self) -> None:
        """Nothing is served any more: what comes is evidence again, and when serving begins so do the bets."""
        self.levels = [0.0] * len(_TILTS)

    def add(self, place: int, chance: float, lowest: int = 0) -> bool:
        """Take a served score's bin, lowest <= place < bins, and a uniform number in [0, 1); whether the alarm is up.

        `lowest`: the bin where serving begins. Where it is the highest there is nothing to compare.
        """
        self.see(place)
        if lowest >= self.bins - 1:
            return self.alarm
        here = self.counts[lowest:]
        rank = (sum(here[: place - lowest]) + chance * self.counts[place]) / sum(here)
        for i, tilt in enumerate(_TILTS):
            self.levels[i] = min(_ENOUGH, (1.0 + self.levels[i]) * (1.0 + tilt * (_LEAST - rank)))
        return self.alarm

    @property
    def alarm(self) -> bool:
        """Whether the evidence for a fall has reached its mark."""
        return self.height >= 1.0

    @property
    def height(self) -> float:
        """How far the evidence is on its way to the mark; 1 is the alarm."""
        return sum(self.levels) / len(self.levels) / self.patience
