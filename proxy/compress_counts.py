"""What compression has done since the start: counted as it happens, on the event loop, a few additions a request.

`sent` and `replayed` add up to what was really taken out of requests that were answered: `sent` when a message first
went out in its form (and all of tidy, which knows no first time), `replayed` in each later request that repeats it.
`observed` is what new messages would have saved in the next form, so it compares with `sent`. Tokens are our own
count, by the target model's tokenizer; where rules worked one upon the other, each has what its own step took off.

Rules of this file: every set of labels is bounded; no text of a prompt is kept.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from farthing.compress.decided import Decision
from farthing.compress.decided_store import Settled, Why
from farthing.policies.reuse import RouteKey

__all__ = ["LEFT", "MODES", "RULES", "CompressCounts", "RouteCount", "Use", "changed", "used"]

RULES = ("tidy", "rows", "table", "log", "ansi", "html", "repeats", "blobs", "squeeze", "words", "other")
MODES = ("sent", "replayed", "observed")
LEFT = ("observing", "not_proved", "not_audited", "not_kept", "does_not_pay", "lost", "store_away", "frozen")
"""Why messages were left that might have been shorter."""

_WHY: Mapping[str, str] = {
    Why.AWAY: "store_away",
    Why.UNKEPT: "store_away",
    Why.GONE: "lost",
    Why.MARKED: "frozen",
}
_MOST_ROUTES = 1_000


class Use(NamedTuple):
    """One rule's work on one message. `mode`: of MODES."""

    rule: str
    mode: str
    tokens: int


@dataclass(slots=True)
class RouteCount:
    """Tokens that a route's requests were sent without, tidying left out, and that its new messages might have
    lacked."""

    sent: int = 0
    observed: int = 0


@dataclass(slots=True)
class CompressCounts:
    """`tokens`, `texts`: by rule and mode. `left`: messages by reason. `routes`: tokens, the latest used last."""

    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    texts: Counter[tuple[str, str]] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    routes: OrderedDict[RouteKey, RouteCount] = field(default_factory=OrderedDict)

    def met(self, route: RouteKey) -> RouteCount:
        """A request of this route is there; what is counted of it."""
        found = self.routes.setdefault(route, RouteCount())
        self.routes.move_to_end(route)
        if len(self.routes) > _MOST_ROUTES:
            self.routes.popitem(last=False)
        return found

    def add(self, uses: Iterable[Use]) -> None:
        """What rules did. A step that, by a joint between texts, cost a token is none that saved."""
        for rule, mode, tokens in uses:
            key = (rule if rule in RULES else "other", mode)
            self.tokens[key] += max(0, tokens)
            self.texts[key] += 1

    def sent(self, uses: Iterable[Use], tidied: int, tokens_saved: int) -> None:
        """A request was answered that lacked `tokens_saved`: what the rules in `uses` didn't take, tidying did, of
        which `tidied` texts had nothing else done to them."""
        uses = tuple(uses)
        self.add(uses)
        self.tokens["tidy", "sent"] += max(0, tokens_saved - sum(use.tokens for use in uses))
        self.texts["tidy", "sent"] += tidied

    def kept(self, settled: Iterable[Settled]) -> None:
        """Messages for which no form could be chosen: the decision is lost, can't be had, or isn't ours to make."""
        for one in settled:
            if one.why:
                self.left[_WHY[one.why]] += 1

    def values(self) -> Iterator[tuple[str, float]]:
        """For /metrics: each with its labels behind colons."""
        for name, counter in (("compress_tokens_saved", self.tokens), ("compress_texts", self.texts)):
            for (rule, mode), count in counter.items():
                yield f"{name}:{rule}:{mode}", count
        for reason, count in self.left.items():
            yield f"compress_left:{reason}", count


def used(decisions: Iterable[Decision], mode: str) -> list[Use]:
    """Which rules did what in these."""
    return [
        Use(rule, mode, tokens)
        for decision in decisions
        if any(decision.texts)
        for rule, tokens in zip(decision.rules, decision.tokens, strict=False)
    ]


def changed(decisions: Iterable[Decision]) -> int:
    """How many of these messages are other than tidied."""
    return sum(any(decision.texts) for decision in decisions)
