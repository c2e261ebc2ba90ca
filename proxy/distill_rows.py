"""What a teacher said, out of recorded traffic: only whole answers of its own that nobody complained about.

Rules of this file: what is left out is counted, by the reason; nothing is left out silently. Reads one line after the
other; what it keeps are texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import orjson

from farthing.policies.agree import refuses
from farthing.policies.answer import Answer, read
from farthing.policies.variant import STUDENT
from farthing.proxy.redact import Redactor, Unredacted
from farthing.proxy.replay_formats import recorded
from farthing.proxy.replay_values import NotARequest, Recorded

__all__ = ["Gathered", "TeacherRow", "Turn", "Wanted", "gather"]

_ENDPOINTS = ("chat", "messages", "responses", "completions")
_SPEAKERS = ("system", "developer", "user", "assistant")


class Turn(NamedTuple):
    """One turn of a conversation. `role`: system, user or assistant."""

    role: str
    text: str


class TeacherRow(NamedTuple):
    """One request and its answer's text. `turns`: without the answer; `model`: that was asked for, `teacher`: that
    answered. `picked`: a student answered whom it could, so this one is no fair sample of requests. `refused`: the
    answer may be a refusal."""

    id: str
    ts: float
    tenant: str
    endpoint: str
    model: str
    teacher: str
    body: Mapping[str, Any]
    turns: tuple[Turn, ...]
    answer: str
    picked: bool = False
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """`model`: a pattern that the answering model fits; `accepts`: whether a request is one of those wanted (a route's
    conditions). `bad`: ids of requests whose answers were rated bad. `refusals`: keep them, marked."""

    model: str = "*"
    accepts: Callable[[Recorded], bool] = lambda found: True
    bad: frozenset[str] = frozenset()
    since_s: float = 0.0
    refusals: bool = False


@dataclass(slots=True)
class Gathered:
    """`dropped`: how many, by the reason. `read`: lines."""

    rows: list[TeacherRow] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    read: int = 0


def gather(lines: Iterable[tuple[int, Any]], wanted: Wanted, redactor: Redactor | None = None) -> Gathered:
    """The teacher's answers, in the order of time. `lines`: numbers and JSON, of the capture or a trace."""
    found = Gathered()
    for number, line in lines:
        found.read += 1
        row = _row(number, line, wanted, redactor)
        if isinstance(row, str):
            found.dropped[row] += 1
        else:
            found.rows.append(row)
    found.rows.sort(key=lambda row: row.ts)
    return found


def _row(number: int, line: Any, wanted: Wanted, redactor: Redactor | None) -> TeacherRow | str:
    try:
        value = orjson.loads(line)
        one = recorded(value)
    except NotARequest as why:
        return why.kind or "not a request"
    except (orjson.JSONDecodeError, RecursionError):
        return "not JSON"
    if (one.ts or 0.0) < wanted.since_s:
        return "too old"
    if one.endpoint not in _ENDPOINTS or one.body is None:
        return "no chat or completion"
    if not wanted.accepts(one):
        return "of another route"
    reason, answer = _answered(one, wanted)
    if reason or answer is None:
        return reason
    id = str(value.get("id") or f"line-{number}")
    if id in wanted.bad:
        return "rated bad"
    body: Mapping[str, Any] = one.body
    text = answer.text
    if redactor is not None:
        try:
            body, text = redactor.clean(body, text)
        except (Unredacted, RecursionError):
            return "could not be looked through for personal data"
    turns = _turns(one.endpoint, body)
    if turns is None:
        return "holds more than text"
    teacher = one.model_served or str(body.get("model", ""))
    model = str(body.get("model", ""))
    return TeacherRow(
        id,
        one.ts or 0.0,
        one.tenant,
        one.endpoint,
        model,
        teacher,
        body,
        turns,
        text,
        _picked(one.row),
        refuses(answer),
    )


def _answered(one: Recorded, wanted: Wanted) -> tuple[str, Answer | None]:
    """Why the answer can't teach, or the answer."""
    row = one.row or {}
    if one.status not in (0, 200):
        return "failed", None
    if one.model_served.startswith(STUDENT) or str(row.get("model_served", "")).startswith(STUDENT):
        return "a student's answer", None
    if row.get("cache") == "hit-semantic":
        return "a near-duplicate's answer", None
    if not fnmatchcase(one.model_served or str((one.body or {}).get("model", "")), wanted.model):
        return "of another model", None
    choices = read(orjson.dumps(one.response)) if one.response is not None else None
    if not choices:
        return "without a whole answer", None
    (answer, *more) = choices
    if more:
        return "several answers", None
    if answer.finish == "length":
        return "cut at its length limit", None
    if refuses(answer) and not wanted.refusals:
        return "a refusal", None
    if answer.calls or answer.other:
        return "answers with more than text", None
    return ("empty", None) if not answer.text.strip() else ("", answer)


def _picked(row: Mapping[str, Any] | None) -> bool:
    """Whether a student abstained from it: that the teacher answered is then no chance."""
    try:
        told = orjson.loads((row or {}).get("decisions") or "[]")
        return any(one[0] == "student" and one[1] == "abstained" for one in told)
    except (ValueError, TypeError, IndexError, KeyError):
        return False


def _turns(endpoint: str, body: Mapping[str, Any]) -> tuple[Turn, ...] | None:
    """What was said, as a chat; None where something else than text is in it, or tools are."""
    if body.get("tools") or body.get("functions"):
        return None
    said: list[tuple[Any, Any]] = [("system", body[name]) for name in ("system", "instructions") if body.get(name)]
    given = body.get({"responses": "input", "completions": "prompt"}.get(endpoint, "messages"))
    if isinstance(given, str):
        said.append(("user", given))
    elif isinstance(given, list):
        said += [(one.get("role"), one.get("content")) if isinstance(one, dict) else (None, None) for one in given]
    turns = []
    for role, content in said:
        text = _text(content)
        if role not in _SPEAKERS or text is None:
            return None
        turns.append(Turn("system" if role == "developer" else role, text))
    return tuple(turns) if turns and turns[-1].role == "user" else None


def _text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts: Sequence[Any] = [part.get("text") if isinstance(part, dict) else None for part in content]
    kinds = {part.get("type") for part in content if isinstance(part, dict)}
    if not kinds <= {"text", "input_text", "output_text"} or not all(isinstance(part, str) for part in parts):
        return None
    return "\n".join(parts)
