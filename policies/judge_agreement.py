"""How far can a judge be trusted? Its verdicts beside people's, on a labelled set. Pure.

    {"prompt" or "request", "answer", "reference": null, "label": "good" | "bad", "group": "question-7"}     a line
    {..., "label": "better" | "worse" | "tie"}         of a judge that compares two answers: answer against reference

Rules of this file:
1. What the judge doesn't say is counted by itself, and never as agreement.
2. Cases of one group (one question, one document) are no independent trials. Exact bounds count groups, and kappa's
   variance adds up each group's cases before it squares.
3. Agreement that chance brings too is taken out: a judge that always says good agrees with people wherever answers are
   good, and its kappa is 0.

Sources: Cohen, A coefficient of agreement for nominal scales (1960); its variance: Fleiss, Cohen & Everitt (1969), in
the form by influence functions, summed within groups (Liang & Zeger 1986); Clopper & Pearson (1934).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from farthing.policies.answer import Answer, read
from farthing.policies.estimate import Interval, proportion
from farthing.policies.judges import JudgeCase, Score
from farthing.policies.scipy_here import stats

__all__ = ["Agreement", "LabelledCase", "Verdict", "agreement", "read_labelled", "word_of"]

QUALITY = ("good", "bad")
PREFERENCE = ("better", "worse", "tie")
# Groups in which judge and people differ: with fewer the normal approximation isn't used.
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
    kappa = _kappa(said, agreed, level)
    return Agreement(len(verdicts), groups, len(verdicts) - len(said), agreed, kappa, found, dict(matrix))


def word_of(score: Score, words: Sequence[str] = QUALITY) -> str | None:
    """A score in people's words: from one half on it is good; above it better, below it worse."""
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
    """Of single cases; its ends are those of whole groups: all right in it, any right in it."""
    by: dict[str, list[bool]] = defaultdict(list)
    for one, group in right:
        by[group].append(one)
    value = sum(one for one, _ in right) / len(right) if right else math.nan
    low = proportion(sum(all(ones) for ones in by.values()), len(by), level).low
    high = proportion(sum(any(ones) for ones in by.values()), len(by), level).high
    return Interval(value, low, high)


def _kappa(said: Sequence[tuple[str, str, str]], agreed: Interval, level: float) -> Interval:
    n = len(said)
    human, judge = Counter(one for one, _, _ in said), Counter(one for _, one, _ in said)
    chance = sum(human[word] * judge[word] for word in human) / (n * n) if n else 1.0
    if chance >= 1:  # one word on both sides: agreement says nothing
        return Interval(math.nan, -1.0, 1.0)
    value = (agreed.value - chance) / (1 - chance)
    pulls: dict[str, float] = defaultdict(float)
    for one, other, group in said:
        by_chance = (judge[one] + human[other]) / n - 2 * chance
        pulls[group] += ((one == other) - agreed.value - (1 - value) * by_chance) / (1 - chance)
    if len({group for one, other, group in said if one != other}) < _FEW_APART or len(pulls) < 2:
        return Interval(value, *((end - chance) / (1 - chance) for end in agreed[1:]))
    variance = sum(pull * pull for pull in pulls.values()) / (n * n) * len(pulls) / (len(pulls) - 1)
    reach = float(stats().t.ppf(1 - level / 2, len(pulls) - 1)) * math.sqrt(variance)
    return Interval(value, max(-1.0, value - reach), min(1.0, value + reach))
