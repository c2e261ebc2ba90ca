"""What every policy on reusing an answer has in common: the question, the verdict, the label.

The pipeline asks `decide` about one candidate a request, the best by score, and tells `learn` what came of it. Which
requests get a label, and with what probability, is the policy's choice, written into the verdict: so a label must
be learnt with the verdict under which it was seen, and never for a candidate that `decide` wasn't asked about.

Rules of this file:
1. Pure: no IO, no clock, no randomness. Chance is a uniform number in [0, 1), fresh for every request.
2. A policy never serves what it isn't allowed to: `mode` observe means that `decide` never says SERVE.
3. Whatever `learn` is told, it may only make serving rarer or better founded; labels from another epoch are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

__all__ = [
    "Action", "Bound", "Candidate", "Label", "Mode", "Policy", "RouteKey", "RouteState", "Slice", "Source", "Verdict",
    "slices", "whole",
]  # fmt: skip

Mode = Literal["off", "observe", "serve"]
# A part of a dump: the field it belongs to, and what is added to it. A list or a dict adds to those before it.
Slice = tuple[str, Any]
T = TypeVar("T")
_SLICE = 32


class RouteKey(NamedTuple):
    """What shares evidence: a family of scopes. `name` is for screens, `tenant` never crosses."""

    tenant: str
    name: str


class Action(StrEnum):
    """SERVE: give the neighbour's answer. OBSERVE: ask the upstream, and compare for free.

    EXPLORE: as OBSERVE, though it could have been served; it is asked in order to learn.
    """

    SERVE = "serve"
    OBSERVE = "observe"
    EXPLORE = "explore"


class Source(StrEnum):
    """How a label came: by the comparison that the verdict foresaw, or by somebody's rating."""

    COMPARISON = "comparison"
    RATING = "rating"


@dataclass(frozen=True, slots=True)
class Bound:
    """What the operator accepts: `max_wrong` wrong answers per served hit (or per request), proved at `confidence`.

    ValueError out of range.
    """

    max_wrong: float = 0.01
    per: Literal["hit", "request"] = "hit"
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not 0.0 < self.max_wrong < 1.0 or not 0.5 <= self.confidence < 1.0:
            raise ValueError("max_wrong lies between 0 and 1, confidence between 0.5 and 1")

    @property
    def level(self) -> float:
        """The probability with which the promise may fail."""
        return 1.0 - self.confidence


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer that might be reused. `score`: the verifier's, in [0, 1], higher is safer. `cosine`: the embedder's."""

    entry_key: str
    score: float
    cosine: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a candidate, and what is known at that moment.

    `audit`: the hit is to be checked upstream after it was served. `bound`: no more than this share is wrong, at the
    confidence asked for; None: nothing is proved. `wrong`: the policy's estimate that this answer is wrong.
    `threshold`: the score above which it serves. `label_chance`: the probability that this request gets a label,
    given everything but the coin. `epoch`, `weight`, `pool_weight`: for `learn`.
    """

    action: Action
    reason: str
    audit: bool = False
    bound: float | None = None
    wrong: float | None = None
    threshold: float | None = None
    label_chance: float = 1.0
    epoch: int = 0
    weight: float = 1.0
    pool_weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Label:
    """What a comparison found. `outcome`: 1 for a wrong answer, 0 for a right one, or a judge's P(wrong) in between."""

    outcome: float
    source: Source = Source.COMPARISON

    def __post_init__(self) -> None:
        if not 0.0 <= self.outcome <= 1.0:
            raise ValueError(f"an outcome lies in [0, 1]: {self.outcome!r}")


@dataclass(frozen=True, slots=True)
class RouteState:
    """One route, for a screen. `needed`: about how many more good labels until it may serve; None: unknown, or it does.

    `labels` and `wrong` are those of the threshold that serves, or of the one that is nearest to it: the pool's where
    `proof` is the pool's, so that they belong to the bound, else the route's own. `own_labels`, `own_wrong`: always the
    route's own. `drift`: how far the evidence for a change is
    on its way to the alarm, which is 1. `wrong_served`: of this epoch's `epoch_served` hits at most so many were
    wrong, whatever has changed meanwhile; None: the policy doesn't say. `taken_back`: how often it has served something
    and was sent back to observing.
    """

    route: RouteKey
    serving: bool
    proof: Literal["", "own", "pool", "unproven"]
    threshold: float | None
    bound: float | None
    labels: float
    wrong: float
    needed: int | None
    epoch: int
    served: int
    drift: float
    reason: str
    own_labels: float = 0.0
    own_wrong: float = 0.0
    epoch_served: int = 0
    wrong_served: float | None = None
    taken_back: int = 0


class Policy(Protocol):
    """Whether a near-duplicate's answer may be given. One object serves one thread."""

    @property
    def entries(self) -> Literal["misses", "wrong"]:
        """Which prompts become entries: every miss, or only one whose candidate turned out wrong (vCache)."""
        ...

    def decide(self, route: RouteKey, candidate: Candidate, chance: float, *, may_audit: bool = True) -> Verdict:
        """What to do with the best candidate of one request. `may_audit`: whether an audit may still be paid for,
        worked out before the request was seen."""
        ...

    def serves(self, route: RouteKey) -> bool:
        """Whether this route may serve anything now: else nobody needs to wait for a look-up."""
        ...

    def learn(self, route: RouteKey, candidate: Candidate, verdict: Verdict, label: Label) -> None:
        """Take in what came of a verdict."""
        ...

    def forget(self, route: RouteKey) -> None:
        """The operator's word that a route starts anew: its evidence is dropped, and it observes."""
        ...

    @property
    def count(self) -> int:
        """How many routes are known."""
        ...

    def state(self, most: int | None = None) -> list[RouteState]:
        """The routes, latest used first, `most` of them; None: all. Costs nothing for those that are left out."""
        ...

    def state_of(self, route: RouteKey) -> RouteState | None:
        """One route; None: it is not known."""
        ...

    def dump_slices(self) -> Iterator[Slice]:
        """Everything learnt, as JSON values, a few routes at a time: the policy may go on between two slices.

        Each route is as it stood at one moment, not all at the same; `load` takes `whole` of it.
        """
        ...

    def dump(self) -> dict[str, Any]:
        """Everything learnt, as JSON values, at once."""
        ...

    def load(self, dumped: dict[str, Any]) -> None:
        """Take over what `dump` gave. ValueError where it is damaged or of another version; then nothing is changed."""
        ...


def slices(values: Iterable[T], size: int = _SLICE) -> Iterator[list[T]]:
    """The values, in lists of `size` at most."""
    left = iter(values)
    while part := list(islice(left, size)):
        yield part


def whole(parts: Iterable[Slice]) -> dict[str, Any]:
    """The dump that slices make."""
    found: dict[str, Any] = {}
    for name, value in parts:
        if isinstance(value, list):
            found.setdefault(name, []).extend(value)
        elif isinstance(value, dict):
            found.setdefault(name, {}).update(value)
        else:
            found[name] = value
    return found
