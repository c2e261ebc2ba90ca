"""`farthing cache calibrate`: on recorded traffic, the lowest score from which near-duplicates may be served.

The trace is replayed as a farthing in observe would see it: every prompt is looked up among those before it, in its own
scope, and then becomes an entry. A text that came before in its scope is left out: the exact cache would have answered
it, and counted here it would flatter the bound. Whether the candidate would have been right is told by `class` where
the trace has it, else by comparing the two answers, whose error then widens the bound. Bounds: Clopper and Pearson's
would need a count fixed beforehand, so the betting bound of policies/sequence.py is used, its level shared among the
thresholds looked at; audits and warm-up are not part of a replay, so that the hit rate shown is what a route reaches
once it serves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multidict import CIMultiDict
from rich.table import Table

from farthing.cache.key import Scope, neighbourhood
from farthing.cache.places import Placed, Places
from farthing.cache.semantic import SemanticCache
from farthing.cache.template import Templates
from farthing.cache.unmatchable import UNLESS_DIVIDED
from farthing.policies.agree import agree
from farthing.policies.answer import Answer
from farthing.policies.sequence import Comparator, Evidence, upper
from farthing.proxy.errors import ConfigFault
from farthing.proxy.exchange import Controls, Endpoint

__all__ = ["Row", "Turn", "calibrate", "read_trace", "table"]

THRESHOLDS = (0.99, 0.97, 0.95, 0.92, 0.9, 0.88, 0.86, 0.84, 0.8, 0.7)
_NEVER_S = 2e9
_EXACT = Comparator()


@dataclass(frozen=True, slots=True)
class Turn:
    """One recorded request. `truth`: the class of its right answer, '' where only `answer` is known."""

    tenant: str
    body: dict[str, Any]
    truth: str
    answer: str


@dataclass(frozen=True, slots=True)
class Row:
    """What serving from `threshold` on would have done. `bound`: wrong per hit, at most, at that confidence."""

    threshold: float
    hits: int
    wrong: int
    hit_rate: float
    bound: float
    safe: bool


@dataclass(frozen=True, slots=True)
class _Judged:
    """One would-be hit. `compared`: its answers had to be compared, since its classes aren't both known."""

    score: float
    wrong: bool
    compared: bool


def read_trace(path: Path) -> Iterator[Turn]:
    """The requests of a JSON-lines file: `messages` or `body`, and `class` or `answer`; `tenant`, `model` if known.

    Raises ConfigFault with the line that can't be used.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigFault(f"can't read {path}: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            body = item.get("body") or {"model": str(item.get("model", "m")), "messages": item["messages"]}
            truth, answer = str(item.get("class", "")), str(item.get("answer", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigFault(f"{path}, line {number}: not an object with messages") from None
        if not truth and not answer:
            raise ConfigFault(f"{path}, line {number}: neither class nor answer, so nobody can tell a wrong hit")
        yield Turn(str(item.get("tenant", "")), body, truth, answer)


def calibrate(
    turns: Iterable[Turn],
    cache: SemanticCache,
    *,
    max_wrong: float,
    confidence: float,
    comparator: Comparator,
    tell: Callable[[int], None] = lambda done: None,
) -> list[Row]:
    """Replay, and judge each threshold, strictest first. `cache`: empty. `tell`: how many are done."""
    places = Places(Templates())
    known: dict[str, Turn] = {}
    asked: set[tuple[str, str]] = set()
    judged: list[_Judged] = []
    count = 0
    for count, turn in enumerate(turns, 1):
        scope = Scope(turn.tenant, Endpoint.CHAT, "/v1/chat/completions", "", CIMultiDict(), Controls())
        place = neighbourhood(scope, turn.body)
        tell(count)
        if isinstance(place, str) or (place.scope, place.text) in asked:
            continue
        asked.add((place.scope, place.text))
        settled = places.settle(place)
        refusal = places.refusal(settled)
        if not refusal:
            for one in places.called(settled):
                _put(cache, one)
            place = settled.place
            found = cache.lookup(place.scope, place.route, place.text, 0.0)
            if found.entry_key is not None:
                judged.append(_judge(found.score, known[found.entry_key], turn, cache))
        if not refusal or refusal in UNLESS_DIVIDED:
            known[str(count)] = turn
            placed = Placed(settled, str(count), _NEVER_S)
            places.wait(placed)
            _put(cache, placed)
    level = (1.0 - confidence) / len(THRESHOLDS)
    rows = []
    for threshold in THRESHOLDS:
        hits = [one for one in judged if one.score >= threshold]
        wrong = sum(one.wrong for one in hits)
        # The wrong ones may all be among those that were compared, however few these are.
        by = comparator if any(one.compared for one in hits) else _EXACT
        bound = upper(Evidence(len(hits), wrong), level, by) if hits else 1.0
        rows.append(Row(threshold, len(hits), wrong, len(hits) / max(count, 1), bound, bound <= max_wrong))
    return rows


def _put(cache: SemanticCache, one: Placed) -> None:
    place = one.settled.place
    cache.add(place.scope, place.text, one.entry_key, one.expires_s, route=place.route)


def _judge(score: float, one: Turn, other: Turn, cache: SemanticCache) -> _Judged:
    """Whether the earlier turn's answer would have been wrong for the later one; in doubt it would."""
    if one.truth and other.truth:
        return _Judged(score, one.truth != other.truth, compared=False)
    said = (Answer(text=one.answer), Answer(text=other.answer))
    return _Judged(score, agree(*said, cache.embed).wrong, compared=True)


def table(rows: list[Row], max_wrong: float, confidence: float) -> Table:
    """The thresholds, aligned; the lowest safe one is marked."""
    lowest = min((row.threshold for row in rows if row.safe), default=None)
    shown = Table(
        title=f"At most {max_wrong:.2%} wrong per hit, {confidence:.0%} sure", title_justify="left", title_style="bold"
    )
    for name in ("score", "hits", "hit rate", "wrong", "wrong per hit ≤", ""):
        shown.add_column(name, justify="left" if not name else "right")
    for row in rows:
        mark = "[bold green]← the lowest safe one[/]" if row.threshold == lowest else "safe" if row.safe else ""
        bound = f"{row.bound:.2%}" if row.hits else "–"
        shown.add_row(f"{row.threshold:.2f}", f"{row.hits:,}", f"{row.hit_rate:.1%}", f"{row.wrong:,}", bound, mark)
    return shown


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    """The rows as plain values."""
    return [asdict(row) for row in rows]
