"""How far are two distributions over the same bins apart? The population stability index, with its noise. Pure.

It describes; it doesn't decide. By itself it is no test: with few observations it is large where nothing has changed,
which is why `noise` says how large, and why alarms come from policies/shares.py.

Sources: Siddiqi, Credit Risk Scorecards (2006), for the index and the customary marks 0.1 and 0.25; Yurdakul,
Statistical Properties of Population Stability Index (2018), section 4: without a change, index / (1/n + 1/m) is
distributed about as chi-square with bins - 1 degrees of freedom. It is Jeffreys' divergence (Proc. R. Soc. A 186,
1946) of the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["noise", "psi", "words"]

_HALF = 0.5  # added to each count, so that an empty bin is rare and not impossible
_SOME, _MUCH = 0.1, 0.25


def psi(reference: Sequence[float], now: Sequence[float]) -> float:
    """The index of two lists of counts over the same bins, 0 where they are alike. Counts may be fractions.

    Bins that are empty in both are left out. ValueError: lists of different lengths, negative counts.
    """
    if len(reference) != len(now) or any(count < 0 for count in (*reference, *now)):
        raise ValueError("counts of the same bins, none negative")
    pairs = [(one + _HALF, other + _HALF) for one, other in zip(reference, now, strict=True) if one or other]
    before, after = sum(one for one, _ in pairs), sum(other for _, other in pairs)
    return sum((other / after - one / before) * math.log((other / after) / (one / before)) for one, other in pairs)


def noise(reference_n: float, now_n: float, bins: int) -> float:
    """The index to be expected where nothing has changed; infinite while one side is empty."""
    if reference_n <= 0 or now_n <= 0:
        return math.inf
    return (bins - 1) * (1 / reference_n + 1 / now_n)


def words(index: float) -> str:
    """The index as people who use it say it: 'alike', 'changed somewhat', 'changed much'."""
    return "alike" if index < _SOME else "changed somewhat" if index < _MUCH else "changed much"
