"""Less noise in an experiment: what a unit did before it began is taken out of what it does now. Pure.

With Y a unit's outcome and X the same metric of the time before, Y - theta (X - mean X) has the same expectation,
since X can't know the arm, and 1 - correlation^2 of the variance. Units without a past keep X = 0, which is only less
help.

Source: Deng, Xu, Kohavi & Walker, Improving the sensitivity of online controlled experiments by utilizing
pre-experiment data (WSDM 2013).
"""

from __future__ import annotations

from typing import NamedTuple

from farthing.policies.confidence import Sums

__all__ = ["PairSums", "adjusted"]


class PairSums(NamedTuple):
    """Sums over one arm's units: of outcome and covariate."""

    units: int = 0
    y: float = 0.0
    x: float = 0.0
    yy: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def add(self, y: float, x: float) -> PairSums:
        """With one more unit."""
        return PairSums(
            self.units + 1, self.y + y, self.x + x, self.yy + y * y, self.xx + x * x, self.xy + x * y
        )  # fmt: skip

    def moments(self) -> tuple[float, float, float]:
        """Sums of squared deviations of y, of x, and of their products."""
        n = max(1, self.units)
        return self.yy - self.y * self.y / n, self.xx - self.x * self.x / n, self.xy - self.x * self.y / n


def adjusted(one: PairSums, other: PairSums) -> tuple[Sums, Sums, float]:
    """Both arms' outcomes with the covariate taken out, and the share of variance that it took (0: it was no help).

    theta is both arms' together, so that it can't take a difference out. The differences of the adjusted means
    estimates what the difference of the plain ones does.
    """
    n = one.units + other.units
    moments = [a + b for a, b in zip(one.moments(), other.moments(), strict=True)]
    theta = moments[2] / moments[1] if moments[1] > 0 else 0.0
    middle = (one.x + other.x) / n if n else 0.0
    found = [_arm(arm, theta, middle) for arm in (one, other)]
    plain = moments[0]
    gone = 1 - sum(arm.m2 for arm in found) / plain if plain > 0 else 0.0
    return found[0], found[1], max(0.0, gone)


def _arm(arm: PairSums, theta: float, middle: float) -> Sums:
    if not arm.units:
        return Sums()
    yy, xx, xy = arm.moments()
    mean = arm.y / arm.units - theta * (arm.x / arm.units - middle)
    return Sums(arm.units, mean, max(0.0, yy - 2 * theta * xy + theta * theta * xx))
