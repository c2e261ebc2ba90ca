"""How often each comparator errs, measured; written by bench/comparators.py. No logic but the look-ups.

A bound on wrong answers that rests on opinions must allow for `false_same`: of pairs that truly differ at most that
share was called Same, so that true wrong rate <= observed rate / (1 - false_same). Half of the sources was held out
from choosing thresholds. Upper bounds: one-sided 95 %, Clopper and Pearson (1934).
"""

from __future__ import annotations

from dataclasses import dataclass

from farthing.policies.sequence import Comparator

__all__ = ["MADE_BY", "MADE_ON", "MEASURED", "PROVED", "VERSION", "Measured", "comparator", "false_same"]

VERSION = 1
PROVED = frozenset({"bytes", "json", "calls"})


@dataclass(frozen=True, slots=True)
class Measured:
    """Counts of pairs that the comparator judged, of independent trials in them, and upper bounds of its rates.

    `differing`, `alike`: by the known truth. Pairs made from one text are one trial: the bounds count trials, and one
    is wrong if any of its pairs is.
    """

    differing: int
    differing_trials: int
    false_same: int
    false_same_upper: float
    alike: int
    alike_trials: int
    false_different: int
    false_different_upper: float


MADE_ON = "2026-11-26"
MADE_BY = "python -m bench.comparators ../shared/data --write"
MEASURED: dict[str, Measured] = {
    "bytes": Measured(0, 0, 0, 1.0, 1, 1, 0, 0.95),
    "calls": Measured(328, 164, 0, 0.0181, 164, 164, 0, 0.0181),
    "code": Measured(138, 138, 0, 0.0215, 189, 189, 1, 0.0249),
    "json": Measured(129, 43, 0, 0.0673, 86, 43, 0, 0.0673),
    "label": Measured(1362, 999, 0, 0.003, 842, 123, 1, 0.038),
    "number": Measured(1726, 351, 0, 0.0085, 2449, 361, 4, 0.0173),
    "polarity": Measured(976, 244, 0, 0.0122, 492, 245, 0, 0.0122),
    "prose": Measured(2332, 542, 5, 0.0168, 1001, 331, 9, 0.0432),
    "refusal": Measured(39, 26, 0, 0.1088, 10, 3, 3, 1.0),
}


def false_same(by: str) -> float:
    """The upper bound of the comparator's false-same rate, 0 to 1; 1 for one that was never measured.

    0 where Same isn't judged but proved: equal bytes, and equal values of JSON texts and of tool calls.
    """
    if by in PROVED:
        return 0.0
    found = MEASURED.get(by)
    return found.false_same_upper if found is not None else 1.0


def comparator() -> Comparator:
    """The chain's error, for a bound that rests on `Opinion.wrong`: the worst of the comparators that judge."""
    judging = [
        found.false_same_upper
        for name, found in MEASURED.items()
        if name not in PROVED and name != "refusal"  # two refusals are never called the same
    ]
    return Comparator(false_same=max(judging))
