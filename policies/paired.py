"""Is one version of a prompt as good as another? Paired outcomes, the long version's own noise, and a verdict. Pure.

Every case is one request, answered under both versions; some are answered twice under the long one. `worse` is how much
more often answers differ for the new version than they do for none at all. Two claims are tried, each with half of the
level, and either is enough:

1. Answers differ in at most `max_worse` of all requests, whatever the noise.
2. P(new differs, repeat agrees) - P(new agrees, repeat differs), over the repeated cases, is at most `max_worse`. Where
   the new version's answers are drawn as the long one's, both are equal. Where a share b of requests breaks and the
   noise is q, it is about b x (1 - q): the claim is about requests on which the long version is steady.

Bounds hold at any time (policies/sequence.py), so looking early, stopping, and adding cases later are all allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from farthing.policies.sequence import Comparator, Evidence, lower, upper

__all__ = ["Case", "Judged", "SliceCount", "Word", "judge_cases"]

Word = Literal["recommended", "not shown to be as good", "worse"]
_MOST_MORE = 1 << 20
_EXACT = Comparator()


class Case(NamedTuple):
    """One request. `differs`: the new version's answer from the long one's; `noisy`: the long one's second answer from
    its first, None where it wasn't asked twice."""

    slice: str
    differs: bool
    noisy: bool | None = None


class SliceCount(NamedTuple):
    """`upper`: of the share that differs, for this slice alone. `worse`: it is surely worse here."""

    name: str
    cases: int
    differ: int
    repeated: int
    noisy: int
    upper: float
    worse: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict with its figures; rates are shares of 1, bounds one-sided.

    `differ_upper`: claim 1's. `excess_upper`: claim 2's; None without repeats. `more_cases`: how many more would prove
    the nearer claim if all of them agreed; 0 where it is proved, None where no number of cases would.
    """

    word: Word
    cases: int
    differ: int
    differ_upper: float
    repeated: int
    noisy: int
    excess_upper: float | None
    more_cases: int | None
    slices: tuple[SliceCount, ...]


def judge_cases(
    cases: Sequence[Case], max_worse: float = 0.02, level: float = 0.05, comparator: Comparator = _EXACT
) -> Judged:
    """Whether the new version may be recommended. ValueError unless 0 < max_worse < 1 and 0 < level < 1.

    `level`: the probability of recommending one that is worse by more than `max_worse`. `comparator`: the error of
    whoever compared the answers.
    """
    if not (0.0 < max_worse < 1.0 and 0.0 < level < 1.0):
        raise ValueError(f"max_worse and level lie between 0 and 1: {max_worse!r}, {level!r}")
    pairs = _Pairs.of(cases)
    plain = pairs.differ_upper(level / 2, comparator)
    excess = pairs.excess_upper(level / 2, comparator) if pairs.repeated else None
    names = list(dict.fromkeys(case.slice for case in cases))
    slices = tuple(
        _slice(name, [case for case in cases if case.slice == name], max_worse, level, len(names), comparator)
        for name in names
    )
    proved = plain <= max_worse or (excess is not None and excess <= max_worse)
    bad = any(one.worse for one in slices) or pairs.excess_lower(level) > max_worse
    more: int | None = 0
    if not proved:
        claims = [lambda extra: pairs.longer(extra).differ_upper(level / 2, comparator) <= max_worse]
        if pairs.repeated:
            claims.append(lambda extra: pairs.longer(extra).excess_upper(level / 2, comparator) <= max_worse)
        more = min((found for claim in claims if (found := _least(claim)) is not None), default=None)
    word: Word = "worse" if bad else "recommended" if proved else "not shown to be as good"
    return Judged(
        word, pairs.cases, pairs.differ, plain, pairs.repeated, pairs.noisy, excess, None if bad else more, slices
    )


class _Pairs(NamedTuple):
    """Counts. `broke`: differs where the repeat agrees; `mended`: the other way round."""

    cases: int
    differ: int
    repeated: int
    noisy: int
    broke: int
    mended: int

    @classmethod
    def of(cls, cases: Sequence[Case]) -> _Pairs:
        again = [case for case in cases if case.noisy is not None]
        return cls(
            len(cases),
            sum(case.differs for case in cases),
            len(again),
            sum(case.noisy is True for case in again),
            sum(case.differs and not case.noisy for case in again),
            sum(not case.differs and case.noisy is True for case in again),
        )

    def longer(self, extra: int) -> _Pairs:
        """With more cases, all of which agree."""
        return self._replace(cases=self.cases + extra, repeated=self.repeated + extra)

    def differ_upper(self, level: float, comparator: Comparator) -> float:
        return upper(Evidence(self.cases, self.differ), level, comparator)

    def excess_upper(self, level: float, comparator: Comparator) -> float:
        broke = upper(Evidence(self.repeated, self.broke), level / 2, comparator)
        return broke - lower(Evidence(self.repeated, self.mended), level / 2)

    def excess_lower(self, level: float) -> float:
        """What the new version is worse by at least; 0 where nothing was asked twice, since noise may be all of it."""
        if not self.repeated:
            return 0.0
        broke = lower(Evidence(self.repeated, self.broke), level / 2)
        return broke - upper(Evidence(self.repeated, self.mended), level / 2)


def _slice(
    name: str, cases: Sequence[Case], max_worse: float, level: float, of: int, comparator: Comparator
) -> SliceCount:
    pairs = _Pairs.of(cases)
    worse = pairs.excess_lower(level / of) > max_worse
    bound = pairs.differ_upper(level, comparator)
    return SliceCount(name, pairs.cases, pairs.differ, pairs.repeated, pairs.noisy, bound, worse)


def _least(proved: Callable[[int], bool]) -> int | None:
    """The least number of further cases that proves a claim; None where there is none below a million."""
    high = 1
    while not proved(high):
        high *= 2
        if high > _MOST_MORE:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if proved(middle) else (middle, high)
    return high
