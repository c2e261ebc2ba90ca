"""Did each arm get its share? A sample-ratio mismatch says that the assignment is broken, and every result with it.
Pure.

The test may be looked at after every request: P(it ever alarms though the shares are right) <= level.

Source: Lindon & Malek, Sequential testing of multinomial hypotheses (NeurIPS 2022, arXiv 2011.03567): a Dirichlet
mixture against the declared shares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["log_e", "mismatch_p"]

_CONCENTRATION = 100.0


def log_e(counts: Sequence[int], shares: Sequence[float]) -> float:
    """The logarithm of the e-value against 'each unit falls into arm k with chance shares[k]'.

    ValueError: another number of shares, or shares that aren't above 0 with sum 1.
    """
    if len(counts) != len(shares) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError("one share above 0 for each arm, 1 in all")
    n, found = sum(counts), 0.0
    for count, share in zip(counts, shares, strict=True):
        weight = _CONCENTRATION * share
        found += math.lgamma(weight + count) - math.lgamma(weight) - count * math.log(share)
    return found + math.lgamma(_CONCENTRATION) - math.lgamma(_CONCENTRATION + n)


def mismatch_p(counts: Sequence[int], shares: Sequence[float]) -> float:
    """The always-valid p-value: small means a mismatch. Over time the least one so far counts."""
    return min(1.0, math.exp(-max(0.0, log_e(counts, shares))))
