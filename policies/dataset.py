"""A case of an evaluation, and what a dataset of them looks like: JSON lines. Pure.

    {"id", "ts", "tenant", "slices": {"length": "short", "tag:team": "x"}, "weight", "endpoint", "request": {...},
     "reference": {...} or null, "source": "traffic" | "rating" | "generated:KIND", "of": "the case it was made from",
     "expect": "" | "same" | "other"}

Rules of this file:
1. `weight` says for how many requests of production a case stands; weighted means over cases estimate production's.
2. A line that can't be used is named by its number with the reason; the others are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

__all__ = ["ENDPOINTS", "EXPECT_OTHER", "EXPECT_SAME", "EvalCase", "Unusable", "dumped", "read_cases"]

ENDPOINTS = ("chat", "responses", "messages", "completions")
EXPECT_SAME, EXPECT_OTHER = "same", "other"


class Unusable(ValueError):
    """A line is no case; the message says why."""


@dataclass(frozen=True, slots=True)
class EvalCase:
    """One request to be asked again. `reference`: the whole answer that it is measured by, None: another arm's answer.

    `of`: the case it was made from, and `expect` what is known beforehand: a changed prompt whose answer must be the
    same as the original's, or another one; '' where nothing is known.
    """

    id: str
    request: Mapping[str, Any]
    endpoint: str = "chat"
    reference: Mapping[str, Any] | None = None
    slices: Mapping[str, str] = field(default_factory=dict)
    weight: float = 1.0
    ts: float = 0.0
    tenant: str = ""
    source: str = "traffic"
    of: str = ""
    expect: str = ""


def dumped(case: EvalCase) -> bytes:
    """Its line, with the line's end."""
    return orjson.dumps(asdict(case), option=orjson.OPT_APPEND_NEWLINE)


def read_cases(lines: Iterable[bytes]) -> Iterator[EvalCase | tuple[int, str]]:
    """Each line's case, or its number from 1 with what is wrong; empty lines are passed by. Ids that come twice: the
    later one is refused."""
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            case = _case(orjson.loads(line), number)
            if case.id in seen:
                raise Unusable(f"the id {case.id[:80]!r} came before")
        except (Unusable, orjson.JSONDecodeError) as error:
            yield number, f"not JSON: {error}" if isinstance(error, orjson.JSONDecodeError) else str(error)
            continue
        seen.add(case.id)
        yield case


def _case(value: Any, number: int) -> EvalCase:
    if not isinstance(value, dict):
        raise Unusable("not an object")
    request = value.get("request")
    if request is None and isinstance(value.get("prompt"), str):  # the shortest thing that people write by hand
        request = {"messages": [{"role": "user", "content": value["prompt"]}]}
    if not isinstance(request, dict):
        raise Unusable("no request (a body) and no prompt (a text) in it")
    endpoint = value.get("endpoint") or "chat"
    if endpoint not in ENDPOINTS:
        raise Unusable(f"endpoint {endpoint!r}: {', '.join(ENDPOINTS)} can be evaluated")
    weight, ts = value.get("weight", 1.0), value.get("ts") or 0.0
    if not _is_number(weight) or weight <= 0:
        raise Unusable("weight must be a number above 0")
    if not _is_number(ts):
        raise Unusable("ts must be seconds since the epoch")
    slices = value.get("slices") or {}
    if not isinstance(slices, dict) or not all(isinstance(one, str) for one in slices.values()):
        raise Unusable("slices must be an object of texts")
    expect = value.get("expect") or ""
    if expect not in ("", EXPECT_SAME, EXPECT_OTHER):
        raise Unusable(f"expect must be {EXPECT_SAME!r} or {EXPECT_OTHER!r}")
    return EvalCase(
        str(value.get("id") or f"line-{number}"),
        request,
        endpoint,
        _reference(value.get("reference")),
        slices,
        float(weight),
        float(ts),
        str(value.get("tenant") or ""),
        str(value.get("source") or "traffic"),
        str(value.get("of") or ""),
        expect,
    )


def _reference(value: Any) -> Mapping[str, Any] | None:
    """A whole answer, or a text, which is as good as the shortest answer that says it."""
    if value is None or isinstance(value, dict):
        return value
    if isinstance(value, str):
        message = {"role": "assistant", "content": value}
        return {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    raise Unusable("reference must be an answer's object or a text")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
