"""How often each comparator errs, measured; written by bench/comparators.py. No logic but the look-up.

A bound on wrong answers that rests on opinions must add `false_same`: of pairs that truly differ at most that share was
called Same, so that true wrong rate <= observed rate + false_same. Half of the sources was held out from choosing
thresholds. Upper bounds: one-sided 95 %, Clopper and Pearson (1934).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MADE_BY", "MADE_ON", "MEASURED", "VERSION", "Measured", "false_same"]

VERSION = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """Counts of pairs that the comparator judged, and rates' upper bounds. `differing`, `alike`: by the known truth."""

    differing: int
    false_same: int
    false_same_upper: float
    alike: int
    false_different: int
    false_different_upper: float


MADE_ON = ""
MADE_BY = ""
MEASURED: dict[str, Measured] = {}


def false_same(by: str) -> float:
    """The upper bound of the comparator's false-same rate, 0 to 1. 1 for one that was never measured: its Same is no
    evidence. Equal bytes can't be told apart by anybody: 0."""
    if by == "bytes":
        return 0.0
    found = MEASURED.get(by)
    return found.false_same_upper if found is not None else 1.0
