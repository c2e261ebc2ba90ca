"""Judges: how good is an answer, by a declared measure? One protocol, free ones here; those that ask somebody stand
apart.

Rules of this file:
1. A score is 1 for good, 0 for bad, anything between for partly; None where the judge can't say, with the reason.
   None is never good: whoever bounds a loss counts it as 0.
2. A judge that compares says what the reference says; one without a reference looks at the answer alone.
3. A reason never holds text of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple, Protocol

import regex

from farthing.policies.accept import json_fault, schema_of
from farthing.policies.agree import agree, refuses
from farthing.policies.agree_short import plain
from farthing.policies.answer import Answer
from farthing.policies.nearest import did_you_mean
from farthing.policies.opinion import Agreement, Embed
from farthing.proxy.errors import ConfigFault
from farthing.proxy.text import normalise

__all__ = ["FREE", "Judge", "JudgeCase", "Score", "declared", "judge_of"]

_SEARCH_S = 0.2
_NUMBER = regex.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})++(?:\.\d++)?|\d++(?:\.\d++)?)")
GOOD, BAD = 1.0, 0.0


class JudgeCase(NamedTuple):
    """What was asked, what came, and what it is measured by (None: by nothing but itself)."""

    request: Mapping[str, Any]
    answer: Answer
    reference: Answer | None = None


class Score(NamedTuple):
    """`value` in [0, 1], 1 is good; None: it can't be said. `cost_pico`: what judging cost; None: unknown."""

    value: float | None
    reason: str
    cost_pico: int | None = 0


class Judge(Protocol):
    """`name`: as configured. `compares`: whether it needs a reference."""

    name: ClassVar[str]
    compares: ClassVar[bool]

    def judge(self, case: JudgeCase) -> Score:
        """The score of one answer. Never raises for any answer."""
        ...


@dataclass(frozen=True, slots=True)
class Exact:
    """The same text, but for white space at both ends."""

    name: ClassVar[str] = "exact"
    compares: ClassVar[bool] = True

    def judge(self, case: JudgeCase) -> Score:
        """1 where equal."""
        return _equal(case, str.strip)


@dataclass(frozen=True, slots=True)
class Text:
    """The same words: case, markdown, lead-ins and outer punctuation aside."""

    name: ClassVar[str] = "text"
    compares: ClassVar[bool] = True

    def judge(self, case: JudgeCase) -> Score:
        """1 where equal after normalisation."""
        return _equal(case, plain)


@dataclass(frozen=True, slots=True)
class Number:
    """The last number of the answer is the reference's, within an absolute or a relative tolerance."""

    tolerance: float = 0.0
    relative: float = 0.0
    name: ClassVar[str] = "number"
    compares: ClassVar[bool] = True

    def judge(self, case: JudgeCase) -> Score:
        """0 where the answer has no number, None where the reference has none."""
        if case.reference is None:
            return _NO_REFERENCE
        wanted, got = _last_number(case.reference.text), _last_number(case.answer.text)
        if wanted is None:
            return Score(None, "the reference has no number")
        if got is None:
            return Score(BAD, "no number")
        room = max(Decimal(str(self.tolerance)), abs(wanted) * Decimal(str(self.relative)))
        near = abs(got - wanted) <= room
        return Score(float(near), "within the tolerance" if near else "another number")


@dataclass(frozen=True, slots=True)
class Labels:
    """The same set of labels, divided by `separator`; `labels`: the closed set, outside of which an answer is bad."""

    labels: tuple[str, ...] = ()
    separator: str = ","
    name: ClassVar[str] = "labels"
    compares: ClassVar[bool] = True

    def judge(self, case: JudgeCase) -> Score:
        """1 where the sets are equal, else their overlap (Jaccard)."""
        if case.reference is None:
            return _NO_REFERENCE
        got, wanted = self._set(case.answer.text), self._set(case.reference.text)
        known = {plain(label) for label in self.labels}
        if known and not got <= known:
            return Score(BAD, "no label of the set")
        whole = got | wanted
        return Score(len(got & wanted) / len(whole) if whole else GOOD, f"{len(got & wanted)} of {len(whole)} labels")

    def _set(self, text: str) -> set[str]:
        return {found for part in text.split(self.separator) if (found := plain(part))}


@dataclass(frozen=True, slots=True)
class Json:
    """JSON, by the request's own schema where it gives one; with `equal` the same value as the reference's too."""

    equal: bool = True
    name: ClassVar[str] = "json"
    compares: ClassVar[bool] = True

    def judge(self, case: JudgeCase) -> Score:
        """0 where it is no JSON or not by its schema."""
        if wrong := json_fault([case.answer.text], schema_of(dict(case.request))[1]):
            return Score(BAD, wrong)
        if not self.equal:
            return Score(GOOD, "valid")
        if case.reference is None:
            return _NO_REFERENCE
        found = agree(case.answer, case.reference)
        return Score(float(found.agreement is Agreement.SAME), found.reason)


@dataclass(frozen=True, slots=True)
class Refusal:
    """It doesn't refuse, unless the reference does."""

    name: ClassVar[str] = "refusal"
    compares: ClassVar[bool] = False

    def judge(self, case: JudgeCase) -> Score:
        """0 where only the answer refuses."""
        excused = case.reference is not None and refuses(case.reference)
        return Score(float(excused or not refuses(case.answer)), "refuses" if refuses(case.answer) else "answers")


@dataclass(frozen=True, slots=True)
class Format:
    """Its form alone: not empty, not cut, as long as it may be, with what must and without what must not be in it.

    `must`, `must_not`: regular expressions; one that takes longer than 0.2 s counts as not met.
    """

    min_chars: int = 1
    max_chars: int = 0
    complete: bool = True
    must: tuple[str, ...] = ()
    must_not: tuple[str, ...] = ()
    name: ClassVar[str] = "format"
    compares: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for pattern in (*self.must, *self.must_not):
            try:
                regex.compile(pattern)
            except regex.error as error:
                raise ConfigFault(f"judge format: {pattern!r} is no regular expression: {error}") from None

    def judge(self, case: JudgeCase) -> Score:
        """0 with the first thing that is wrong."""
        text, calls = case.answer.text, case.answer.calls
        if self.complete and case.answer.finish == "length":
            return Score(BAD, "cut at its length limit")
        if len(text.strip()) < self.min_chars and not calls:
            return Score(BAD, "too short")
        if self.max_chars and len(text) > self.max_chars:
            return Score(BAD, "too long")
        for pattern in self.must:
            if _found(pattern, text) is not True:
                return Score(BAD, f"without /{pattern}/")
        for pattern in self.must_not:
            if _found(pattern, text) is not False:
                return Score(BAD, f"with /{pattern}/")
        return Score(GOOD, "well formed")


@dataclass(frozen=True, slots=True)
class Agree:
    """It says what the reference says, by the chain of policies/agree.py; in doubt None."""

    labels: tuple[str, ...] = ()
    embed: Embed | None = None
    name: ClassVar[str] = "agree"
    compares: ClassVar[bool] = True

    def judge(self, case: JudgeCase) -> Score:
        """1 the same, 0 another, None where no comparator can tell."""
        if case.reference is None:
            return _NO_REFERENCE
        found = agree(case.answer, case.reference, self.embed, frozenset(self.labels))
        value = {Agreement.SAME: GOOD, Agreement.DIFFERENT: BAD}.get(found.agreement)
        return Score(value, f"{found.by}: {found.reason}")


_NO_REFERENCE = Score(None, "no reference")
_KINDS: tuple[type[Any], ...] = (Agree, Exact, Text, Number, Labels, Json, Refusal, Format)
FREE: Mapping[str, type[Any]] = {kind.name: kind for kind in _KINDS}


def judge_of(table: Mapping[str, Any], embed: Embed | None = None) -> Judge:
    """The free judge that a table declares: `{judge = "number", tolerance = 0.01}`. Raises ConfigFault as `declared`
    does; proxy/judging.py knows the other judges too."""
    found: Judge = declared(table, FREE, embed)
    return found


def declared(
    table: Mapping[str, Any],
    kinds: Mapping[str, type[Any]],
    embed: Embed | None = None,
    besides: Sequence[str] = (),
) -> Any:
    """One of `kinds` (dataclasses by name), with the parameters that a table gives. `besides`: names that the caller
    takes care of, for the message.

    Raises ConfigFault: no such judge or parameter (the nearest is named), or a value of another kind.
    """
    name = str(table.get("judge", "agree"))
    kind = kinds.get(name)
    if kind is None:
        names = (*kinds, *besides)
        raise ConfigFault(f"there is no judge {name!r}{did_you_mean(name, names)}; there are {', '.join(names)}")
    known = {field.name: field for field in fields(kind) if field.name != "embed"}
    given: dict[str, Any] = {}
    for key, value in table.items():
        if key == "judge":
            continue
        if key not in known:
            raise ConfigFault(f"judge {name}: unknown key {key!r}{did_you_mean(key, known)}")
        default = known[key].default
        given[key] = _as(type(default) if default is not MISSING else str, value, f"judge {name}: {key}")
    embeds = any(field.name == "embed" for field in fields(kind))
    return kind(**given, embed=embed) if embeds else kind(**given)


def _as(kind: type, value: Any, where: str) -> Any:
    if kind is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        if all(isinstance(one, str) for one in value):
            return tuple(value)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ConfigFault(f"{where} must be a {'list of texts' if kind is tuple else kind.__name__}, not {value!r:.60}")


def _equal(case: JudgeCase, form: Callable[[str], str]) -> Score:
    if case.reference is None:
        return _NO_REFERENCE
    same = form(case.answer.text) == form(case.reference.text) and case.answer.calls == case.reference.calls
    return Score(float(same), "equal" if same else "not equal")


def _last_number(text: str) -> Decimal | None:
    found = _NUMBER.findall(normalise(text))
    return Decimal(found[-1].replace(",", "")) if found else None


def _found(pattern: str, text: str) -> bool | None:
    try:
        return regex.search(pattern, text, timeout=_SEARCH_S) is not None
    except TimeoutError:
        return None
