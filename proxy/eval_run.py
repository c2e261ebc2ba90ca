"""A whole evaluation: both arms asked, answers judged, results in one file that can be compared again.

By what an answer is measured: the case's own reference where it has one; else the baseline's first answer, and then the
baseline is asked a second time and judged by its first, as the candidate is. So what differs by chance alone differs
for both.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson

from farthing.policies.answer import Answer, read
from farthing.policies.compare import ArmResult, CaseResult
from farthing.policies.dataset import EvalCase, read_cases
from farthing.policies.judges import JudgeCase, Score
from farthing.proxy.errors import ConfigFault
from farthing.proxy.eval_arm import Answered, Arm, asked, isolated
from farthing.proxy.whole_file import write_whole

__all__ = ["Judging", "Run", "RunFile", "across", "load_cases", "load_run", "run", "save_run"]

VERSION = 1


class Judging(Protocol):
    """Scores many answers at once; what it asks of others it pays for."""

    @property
    def name(self) -> str:
        """As it is declared."""
        ...

    async def judge(self, cases: Sequence[JudgeCase]) -> list[Score]:
        """One score for each, in order."""
        ...


class Run(NamedTuple):
    """What an evaluation is about. `warm`: asked of the candidate before. `max_usd`: for each arm; None: no limit.

    `checks`: further judges of the candidate's answers, by name.
    """

    baseline: Arm
    candidate: Arm
    cases: tuple[EvalCase, ...]
    judge: Judging
    key: str = ""
    at_once: int = 4
    max_usd: Decimal | None = None
    warm: tuple[EvalCase, ...] = ()
    checks: tuple[tuple[str, Judging], ...] = ()


class RunFile(NamedTuple):
    """A run's results with what they are results of."""

    made_s: float
    dataset: str
    judge: str
    baseline: str
    candidate: str
    judge_pico: int | None
    results: tuple[CaseResult, ...]


async def run(wanted: Run, now_s: float, tell: Callable[[str, int, int], None] = lambda *_: None) -> RunFile:
    """Ask and judge. `tell(stage, done, of)`: progress. Raises ConfigFault: an arm can't start."""
    with tempfile.TemporaryDirectory(prefix="farthing-eval-") as place:
        first = await _asked(wanted.baseline, wanted.cases, Path(place) / "baseline", wanted, tell)
        lacking = tuple(case for case in wanted.cases if case.reference is None)
        again = await _asked(wanted.baseline, lacking, Path(place) / "again", wanted, tell) if lacking else {}
        candidate = await _asked(wanted.candidate, wanted.cases, Path(place) / "candidate", wanted, tell, wanted.warm)
    references = {case.id: _reference(case, first[case.id]) for case in wanted.cases}
    judged_as_baseline = {case.id: again.get(case.id, first[case.id]) for case in wanted.cases}
    scores = [await _scores(wanted, wanted.judge, references, arm) for arm in (judged_as_baseline, candidate)]
    checked = {name: await _scores(wanted, judge, references, candidate) for name, judge in wanted.checks}
    tell("judged", len(wanted.cases), len(wanted.cases))
    costs = [score.cost_pico for arm in (*scores, *checked.values()) for score in arm.values()]
    results = tuple(
        CaseResult(
            case.id,
            case.slices,
            case.weight,
            _result(first[case.id], scores[0][case.id]),
            _result(candidate[case.id], scores[1][case.id]),
            case.source,
            case.expect,
            scores[0][case.id].value if case.id in again else None,
            {name: told[case.id].value for name, told in checked.items()},
        )
        for case in wanted.cases
    )
    return RunFile(
        now_s,
        digest(wanted.cases),
        wanted.judge.name,
        wanted.baseline.name,
        wanted.candidate.name,
        None if any(cost is None for cost in costs) else sum(cost or 0 for cost in costs),
        results,
    )


async def _asked(
    arm: Arm,
    cases: Sequence[EvalCase],
    folder: Path,
    wanted: Run,
    tell: Callable[[str, int, int], None],
    warm: Sequence[EvalCase] = (),
) -> dict[str, Answered]:
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        tell(f"{arm.name}, again" if folder.name == "again" else arm.name, done, len(cases))

    config = isolated(arm.config, folder, wanted.max_usd)
    return await asked(Arm(arm.name, config, arm.learnt), cases, folder, wanted.key, wanted.at_once, one_more, warm)


def _reference(case: EvalCase, first: Answered) -> Answer | None:
    if case.reference is None:
        return first.answer
    choices = read(orjson.dumps(case.reference, default=str))
    return choices[0] if choices else None


async def _scores(
    wanted: Run, judge: Judging, references: Mapping[str, Answer | None], answers: Mapping[str, Answered]
) -> dict[str, Score]:
    """A case without an answer has no score."""
    told = [(case, answer) for case in wanted.cases if (answer := answers[case.id].answer) is not None]
    found = await judge.judge([JudgeCase(case.request, answer, references[case.id]) for case, answer in told])
    scores = {case.id: score for (case, _), score in zip(told, found, strict=True)}
    return {case.id: scores.get(case.id, Score(None, "no answer")) for case in wanted.cases}


def _result(one: Answered, score: Score) -> ArmResult:
    return ArmResult(
        one.status, score.value, one.cost_pico, one.latency_ms, one.overhead_ms, one.cache, one.error or score.reason
    )


def digest(cases: Sequence[EvalCase]) -> str:
    """Names a dataset by what is asked in it."""
    told = hashlib.sha256()
    for case in cases:
        told.update(orjson.dumps([case.id, case.endpoint, case.request], option=orjson.OPT_SORT_KEYS, default=str))
    return told.hexdigest()[:12]


# -- files


def load_cases(path: Path) -> tuple[tuple[EvalCase, ...], list[tuple[int, str]]]:
    """The dataset's cases and the lines that can't be used. Raises ConfigFault: it can't be read, or holds no case."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigFault(f"can't read {path}: {error.strerror}") from None
    cases, broken = [], []
    for found in read_cases(lines):
        if isinstance(found, EvalCase):
            cases.append(found)
        else:
            broken.append(found)
    if not cases:
        first = f"; line {broken[0][0]}: {broken[0][1]}" if broken else ""
        raise ConfigFault(f"{path} holds no case that can be asked{first}")
    return tuple(cases), broken


def across(one: RunFile, other: RunFile) -> RunFile:
    """The candidates of two runs over the same cases: the first one's as the baseline. Raises ConfigFault."""
    if one.dataset != other.dataset:
        raise ConfigFault("the two runs asked other cases: only runs of one dataset can be compared")
    if one.judge != other.judge:
        raise ConfigFault(f"the two runs were judged otherwise: {one.judge} and {other.judge}")
    theirs = {result.id: result for result in other.results}
    results = tuple(
        result._replace(baseline=result.candidate, candidate=theirs[result.id].candidate) for result in one.results
    )
    return other._replace(baseline=f"{one.candidate} of the first", results=results)


def save_run(path: Path, found: RunFile) -> None:
    """As JSON, whole or not at all; it holds no prompt and no answer. Raises ConfigFault."""
    value = {"version": VERSION, **found._asdict(), "results": [_plain(one) for one in found.results]}
    try:
        write_whole(path, (orjson.dumps(value, option=orjson.OPT_INDENT_2),))
    except OSError as error:
        raise ConfigFault(f"can't write {path}: {error.strerror}") from None


def load_run(path: Path) -> RunFile:
    """Raises ConfigFault: it isn't a run's file."""
    try:
        value = orjson.loads(path.read_bytes())
        if value.pop("version") != VERSION:
            raise ValueError("another version")
        results = tuple(
            CaseResult(**{**one, "baseline": ArmResult(**one["baseline"]), "candidate": ArmResult(**one["candidate"])})
            for one in value.pop("results")
        )
        return RunFile(**value, results=results)
    except OSError as error:
        raise ConfigFault(f"can't read {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigFault(f"{path} is no file of `farthing eval run`: {error}") from None


def _plain(one: CaseResult) -> dict[str, Any]:
    return {
        **one._asdict(),
        "checks": dict(one.checks),
        "baseline": one.baseline._asdict(),
        "candidate": one.candidate._asdict(),
    }
