"""How far can a judge be trusted? Its verdicts beside people's, on a labelled set. Pure.

    {"prompt" or "request", "answer", "reference": null, "label": "good" | "bad", "group": "question-7"}     a line
    {..., "label": "better" | "worse" | "tie"}         of a judge that compares two answers: answer against reference

Rules of this file:
1. What the judge doesn't say is counted by itself, and never as agreement.
2. Cases of one group (one question, one document) are no independent trials: variances add up each group's cases
   before they square.
3. Agreement that chance brings too is taken out: a judge that always says good agrees with people wherever answers are
   good, and its kappa is 0.

Sources: Cohen, A coefficient of agreement for nominal scales (1960); its variance: Fleiss, Cohen & Everitt (1969), in
the form by influence functions, summed within groups (Liang & Zeger, Biometrika 1986); shares: Korn & Graubard,
Confidence intervals for proportions with small expected number of positive counts estimated from survey data (Survey
Methodology 1998), which is Clopper & Pearson's interval where every case is a group of its own.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from farthing.policies.answer import Answer, read
from farthing.policies.estimate import Interval
from farthing.policies.judges import JudgeCase, Score
from farthing.policies.scipy_here import stats

__all__ = ["PREFERENCE", "QUALITY", "Agreement", "LabelledCase", "Verdict", "agreement", "read_labelled", "word_of"]

QUALITY = ("good", "bad")
PREFERENCE = ("better", "worse", "tie")
# Groups that are unlike the others: with fewer, no variance is read off them, and a group counts as one case.
_FEW_APART = 10


class LabelledCase(NamedTuple):
    """A case with what people said of it, one of QUALITY or of PREFERENCE, and the group it belongs to."""

    case: JudgeCase
    label: str
    group: str


class Verdict(NamedTuple):
    """What people and what the judge said of one case; None: it couldn't say."""

    human: str
    judge: str | None
    group: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """`unsaid`: cases of which the judge said nothing; all else is about the others. `found`: of each word that people
    used, the share that the judge gave the same: of 'good' its sensitivity, of 'bad' its specificity. `matrix`: how
    often (people's word, judge's word)."""

    cases: int
    groups: int
    unsaid: int
    agreed: Interval
    kappa: Interval
    found: Mapping[str, Interval]
    matrix: Mapping[tuple[str, str], int]


def agreement(verdicts: Sequence[Verdict], level: float = 0.05) -> Agreement:
    """A judge measured by people. Intervals cover at least 1 - level, kappa's where some 50 groups or more are there.

    Linear in the verdicts. Raises ConfigFault: scipy isn't installed.
    """
    said = [(one.human, one.judge, one.group) for one in verdicts if one.judge is not None]
    matrix = Counter((human, judge) for human, judge, _ in said)
    agreed = _share([(human == judge, group) for human, judge, group in said], level)
    words = sorted({one.human for one in verdicts})
    found = {
        word: _share([(human == judge, group) for human, judge, group in said if human == word], level)
        for word in words
    }
    groups = len({one.group for one in verdicts})
    return Agreement(len(verdicts), groups, len(verdicts) - len(said), agreed, _kappa(said, level), found, dict(matrix))


def word_of(score: Score, words: Sequence[str] = QUALITY) -> str | None:
    """A score in people's words: from one half on it is good; above it better, below it worse
    (of a pairwise judge with its `tie` at 0.5)."""
    if score.value is None:
        return None
    if "tie" in words:
        return "tie" if score.value == 0.5 else "better" if score.value > 0.5 else "worse"
    return "good" if score.value >= 0.5 else "bad"


def read_labelled(lines: Iterable[bytes]) -> Iterator[LabelledCase | tuple[int, str]]:
    """Each line's case, or its number from 1 with what is wrong; empty lines are passed by."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _labelled(orjson.loads(line), number)
        except (ValueError, TypeError) as error:
            yield number, f"not JSON: {error}" if isinstance(error, orjson.JSONDecodeError) else str(error)


def _labelled(value: Any, number: int) -> LabelledCase:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    label = {True: "good", False: "bad"}.get(told) if isinstance(told := value.get("label"), bool) else told
    if label not in (*QUALITY, *PREFERENCE):
        raise ValueError(f"label must be one of {', '.join((*QUALITY, *PREFERENCE))}, or true or false")
    request = value.get("request")
    if request is None and isinstance(value.get("prompt"), str):
        request = {"messages": [{"role": "user", "content": value["prompt"]}]}
    if not isinstance(request, dict):
        raise TypeError("no request (a body) and no prompt (a text) in it")
    answer, reference = _answer(value.get("answer"), "answer"), value.get("reference")
    case = JudgeCase(request, answer, None if reference is None else _answer(reference, "reference"))
    return LabelledCase(case, label, str(value.get("group") or f"line-{number}"))


def _answer(value: Any, name: str) -> Answer:
    if isinstance(value, str):
        return Answer(value)
    choices = read(orjson.dumps(value)) if isinstance(value, dict) else None
    if not choices:
        raise ValueError(f"{name} must be a text or a whole answer")
    return choices[0]


def _share(right: Sequence[tuple[bool, str]], level: float) -> Interval:
    """A share of cases with the exact interval for as many independent ones as they are worth (Korn & Graubard)."""
    n = len(right)
    if not n:
        return Interval(math.nan, 0.0, 1.0)
    value = sum(one for one, _ in right) / n
    pulls: dict[str, float] = defaultdict(float)
    for one, group in right:
        pulls[group] += one - value
    apart = min(len({group for one, group in right if one is said}) for said in (True, False))
    variance = _clustered(list(pulls.values()), n)
    worth = value * (1 - value) / variance if variance > 0 else math.inf
    worth = max(1.0, min(worth, len(pulls) if apart < _FEW_APART else n))
    beta, hits = stats().beta, value * worth
    low = float(beta.ppf(level / 2, hits, worth - hits + 1)) if value > 0 else 0.0
    high = float(beta.ppf(1 - level / 2, hits + 1, worth - hits)) if value < 1 else 1.0
    return Interval(value, low, high)


def _kappa(said: Sequence[tuple[str, str, str]], level: float) -> Interval:
    """With an interval that half a group's cases in every cell of the table widen: a cell in which nothing was seen
    isn't one in which nothing can be."""
    seen = [(human, judge, group, 1.0) for human, judge, group in said]
    value, _ = _kappa_and_error(seen)
    if math.isnan(value):
        return Interval(value, -1.0, 1.0)
    groups = {group for _, _, group in said}
    words = sorted({word for human, judge, _ in said for word in (human, judge)})
    half = 0.5 * len(said) / len(groups)
    unseen = [(one, other, f"\0{one}\0{other}", half) for one in words for other in words]
    middle, error = _kappa_and_error(seen + unseen)
    reach = float(stats().t.ppf(1 - level / 2, len(groups))) * error
    return Interval(value, max(-1.0, min(value, middle - reach)), min(1.0, max(value, middle + reach)))


def _kappa_and_error(rows: Sequence[tuple[str, str, str, float]]) -> tuple[float, float]:
    """Of (people's word, judge's word, group, weight); NaN where one word on both sides makes agreement say nothing."""
    human, judge = defaultdict[str, float](float), defaultdict[str, float](float)
    n = agreed = 0.0
    for one, other, _, weight in rows:
        human[one] += weight
        judge[other] += weight
        n += weight
        agreed += weight * (one == other)
    chance = sum(human[word] * judge[word] for word in list(human)) / (n * n) if n else 1.0
    if chance >= 1:
        return math.nan, math.nan
    agreed /= n
    value = (agreed - chance) / (1 - chance)
    pulls: dict[str, float] = defaultdict(float)
    for one, other, group, weight in rows:
        by_chance = (judge[one] + human[other]) / n - 2 * chance
        pulls[group] += weight * ((one == other) - agreed - (1 - value) * by_chance) / (1 - chance)
    return value, math.sqrt(_clustered(list(pulls.values()), n))


def _clustered(pulls: Sequence[float], n: float) -> float:
    """The variance of a mean over `n` cases whose groups pull it so much."""
    groups = len(pulls)
    return sum(pull * pull for pull in pulls) / (n * n) * groups / (groups - 1) if groups > 1 else math.inf
