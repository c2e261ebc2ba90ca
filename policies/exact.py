"""Ends of Clopper and Pearson's interval without scipy, for what runs in every installation. Pure.

Sources: Clopper & Pearson (Biometrika 26, 1934); the incomplete beta function by its continued fraction: DLMF 8.17.22,
evaluated as Lentz does (Numerical Recipes, 6.4).
"""

from __future__ import annotations

import math

__all__ = ["lower", "upper"]

_TERMS, _TINY, _NEAR = 10_000, 1e-300, 1e-14


def upper(count: float, n: float, risk: float) -> float:
    """The share that lies above the true one but for `risk`, where `count` of `n` were seen. 0 < risk < 1."""
    return 1.0 if count >= n else _quantile(1.0 - risk, count + 1, n - count)


def lower(count: float, n: float, risk: float) -> float:
    """The same from below."""
    return 0.0 if count <= 0 else _quantile(risk, count, n - count + 1)


def _quantile(p: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    while high - low > _NEAR * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _below(middle, a, b) < p else (low, middle)
    return (low + high) / 2


def _below(x: float, a: float, b: float) -> float:
    """P(Beta(a, b) <= x)."""
    if not 0.0 < x < 1.0:
        return float(x >= 1.0)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side
        return 1.0 - _below(1.0 - x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    found, c, d = 1.0, 1.0, 0.0
    for step in range(_TERMS):
        m = step // 2
        if step == 0:
            term = 1.0
        elif step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / (1.0 + term * d or _TINY)
        c = 1.0 + term / c or _TINY
        found *= c * d
        if step and abs(c * d - 1.0) < 1e-15:
            break
    return math.exp(front) / a * (found - 1.0)
