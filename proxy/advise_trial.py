"""Puts a draft to the trial: the same requests under both versions, compared, until the verdict is clear.

Rules of this file: a case counts only with both answers; the long version's first answer is what others are compared
with; looking after every batch is allowed, since the bounds hold at any time (policies/paired.py).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from farthing.policies.agree import agree
from farthing.policies.agree_measured import comparator
from farthing.policies.answer import Answer
from farthing.policies.opinion import Embed
from farthing.policies.paired import Case, Judged, judge_cases
from farthing.policies.preference import as_good, questions
from farthing.proxy.advise_ask import Asker, OutOfBudget, as_case
from farthing.proxy.advise_find import Part, Place, with_draft
from farthing.proxy.advise_requests import Asked
from farthing.proxy.usage import Usage

__all__ = ["Apart", "Terms", "Trial", "cases_of", "slice_of", "try_draft"]

BATCH = 25
_SHORT_CHARS, _LONG_CHARS = 80, 400


@dataclass(frozen=True, slots=True)
class Terms:
    """How a trial is held. `noise_share`: of the cases that are asked a second time under the long version. `judge`:
    the model that is asked where answers differ; '' for none."""

    cases: int
    noise_share: float
    max_worse: float
    level: float
    model: str = ""
    judge: str = ""
    seed: int = 1


class Apart(NamedTuple):
    """A request whose answers differ: its line in the file, and both answers' texts."""

    line: int
    long: str
    short: str


class Trial(NamedTuple):
    """What came of it. `failed`: cases without both answers, `error` the first reason. `stopped`: why it ended before
    all cases, '' where it didn't. `excused`: answers that differ, and that the judge found as good. `long`, `short`:
    usage summed over the `judged.cases`, None where some answer reported none. `apart`: the cases that differ."""

    judged: Judged
    available: int
    failed: int
    error: str
    stopped: str
    excused: int
    long: Usage | None
    short: Usage | None
    apart: tuple[Apart, ...]


class _Pair(NamedTuple):
    case: Case
    excused: int
    long: Usage | None
    short: Usage | None
    apart: Apart | None


def cases_of(requests: Sequence[Asked], part: Part) -> list[tuple[Asked, list[Place]]]:
    """The requests that carry the part and can be asked again, equal ones once."""
    places: dict[int, list[Place]] = {}
    for place in part.places:
        places.setdefault(place.request, []).append(place)
    found: dict[bytes, tuple[Asked, list[Place]]] = {}
    for index, here in places.items():
        asked = requests[index]
        if asked.replayable:
            found.setdefault(orjson.dumps(asked.body, option=orjson.OPT_SORT_KEYS), (asked, here))
    return list(found.values())


def slice_of(asked: Asked) -> str:
    """The name of a request's slice: its tags, else its endpoint and how long the last user message is."""
    if asked.slice:
        return asked.slice
    last = next((spot.text for spot in reversed(asked.spots) if spot.spoken == "user"), "")
    size = "short" if len(last) < _SHORT_CHARS else "long" if len(last) > _LONG_CHARS else "middling"
    return f"{asked.endpoint}, {size} message"


async def try_draft(
    requests: Sequence[Asked],
    part: Part,
    draft: str,
    asker: Asker,
    terms: Terms,
    embed: Embed | None,
    tell: Callable[[int], None] = lambda done: None,
) -> Trial:
    """Ask a sample of requests under both versions. `tell`: is told how many cases are done. Upstream errors count as
    failed cases."""
    available = cases_of(requests, part)
    rng = random.Random(terms.seed)
    chosen = rng.sample(available, min(terms.cases, len(available)))
    again = [rng.random() < terms.noise_share for _ in chosen]
    pairs: list[_Pair] = []
    failed, error, stopped = 0, "", ""
    judged = _judge([], terms)
    for at in range(0, len(chosen), BATCH):
        batch = zip(chosen[at : at + BATCH], again[at : at + BATCH], strict=True)
        ended = await asyncio.gather(
            *(_pair(asked, places, draft, repeat, asker, terms, embed) for (asked, places), repeat in batch),
            return_exceptions=True,
        )
        for one in ended:
            if isinstance(one, _Pair):
                pairs.append(one)
            elif isinstance(one, str):
                failed, error = failed + 1, error or one
            elif isinstance(one, OutOfBudget):
                stopped = "the budget is used up"
            else:
                raise one
        tell(min(at + BATCH, len(chosen)))
        judged = _judge(pairs, terms)
        if judged.word == "recommended" and at + BATCH < len(chosen):
            stopped = "proved before all cases were needed"
        elif judged.word == "worse" and at + BATCH < len(chosen):
            stopped = "surely worse before all cases were needed"
        elif not pairs and at + BATCH < len(chosen) and not stopped:
            stopped = "no case was answered"
        if stopped:
            break
    return Trial(
        judged,
        len(available),
        failed,
        error,
        stopped,
        sum(pair.excused for pair in pairs),
        _sum([pair.long for pair in pairs]),
        _sum([pair.short for pair in pairs]),
        tuple(pair.apart for pair in pairs if pair.apart is not None),
    )


async def _pair(
    asked: Asked, places: Sequence[Place], draft: str, repeat: bool, asker: Asker, terms: Terms, embed: Embed | None
) -> _Pair | str:
    """One case; a text where an answer is lacking: why."""
    bodies = [as_case(asked.endpoint, body, terms.model) for body in (asked.body, with_draft(asked, places, draft))]
    bodies += bodies[:1] if repeat else []
    answers, used = [], []
    for body in bodies:
        said = await asker.ask(asked.endpoint, body)
        if said.answer is None:
            return said.error
        answers.append(said.answer)
        used.append(said.usage)
    excused = 0
    outcomes = []
    for other in answers[1:]:
        differs = (await asyncio.to_thread(agree, answers[0], other, embed)).wrong
        if differs and terms.judge and await _as_good(asker, terms.judge, bodies[0], answers[0], other):
            differs = False
            excused += 1
        outcomes.append(differs)
    case = Case(slice_of(asked), outcomes[0], outcomes[1] if repeat else None)
    apart = Apart(asked.line, answers[0].text, answers[1].text) if outcomes[0] else None
    return _Pair(case, excused, used[0], used[1], apart)


async def _as_good(asker: Asker, judge: str, body: Mapping[str, Any], old: Answer, new: Answer) -> bool:
    if old.calls or new.calls or old.other or new.other:
        return False
    turns = {name: body[name] for name in ("system", "instructions", "messages", "input") if name in body}
    asked = [
        await asker.ask("chat", question)
        for question in questions(judge, orjson.dumps(turns).decode(), old.text, new.text)
    ]
    return as_good(tuple(one.value for one in asked))


def _judge(pairs: Sequence[_Pair], terms: Terms) -> Judged:
    return judge_cases([pair.case for pair in pairs], terms.max_worse, terms.level, comparator())


def _sum(used: Sequence[Usage | None]) -> Usage | None:
    if not used or any(one is None for one in used):
        return None
    known = [one for one in used if one is not None]
    return Usage(
        fresh=sum(one.fresh for one in known),
        cached=sum(one.cached for one in known),
        cache_write=sum(one.cache_write for one in known),
        output=sum(one.output for one in known),
        reasoning=sum(one.reasoning for one in known),
    )
