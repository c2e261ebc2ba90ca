"""How many more requests a conversation will bring, learnt from those that were seen. Pure.

A request's depth is the number of the model's answers that it carries. Every conversation passes each depth once, so
among requests of one app as many have depth k as there were conversations that got so far. The mean number of requests
after one of depth k is therefore

    (n[k+1] + n[k+2] + ...) / n[k]

with n[j] the requests seen at depth j. Deliberately low: an n is never taken for more than those before it (a
conversation that was met in its middle adds none), conversations still under way have their later requests yet to come,
and `_DOUBT` requests without any successor are added to the denominator.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from farthing.compress.decided import by_model

__all__ = ["LaterTurns", "Survival", "depth"]

_DEEPEST = 256
_DOUBT = 5
# Old conversations count half once this many were begun since the last halving.
_HALVE_AT = 4096


def depth(endpoint: str, turns: Sequence[Any]) -> int:
    """The number of the model's answers among the turns; consecutive ones (words, then a call) count once."""
    answers, before = 0, False
    for turn in turns:
        answer = by_model(endpoint, turn)
        answers += answer and not before
        before = answer
    return answers


class Survival:
    """One app's counts. `counts`: requests by depth, from `counts` of another."""

    def __init__(self, counts: Sequence[int] = ()) -> None:
        self.counts = [max(0, int(count)) for count in counts[:_DEEPEST]]

    def observe(self, at: int) -> None:
        """A request of this depth was seen."""
        at = min(at, _DEEPEST - 1)
        self.counts.extend([0] * (at + 1 - len(self.counts)))
        self.counts[at] += 1
        if self.counts[at] >= _HALVE_AT:
            self.counts = [count // 2 for count in self.counts]

    def expected(self, at: int) -> Decimal:
        """Requests that a conversation at this depth will still bring, on the average and rather too few."""
        if at >= len(self.counts):
            return Decimal(0)
        most = here = min(self.counts[: at + 1])
        later = 0
        for count in self.counts[at + 1 :]:
            most = min(most, count)
            later += most
        return Decimal(later) / (here + _DOUBT)


class LaterTurns:
    """Survival by (tenant, model); of at most `most` of them, least recently used first to go."""

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self._known: OrderedDict[tuple[str, str], Survival] = OrderedDict()

    def observe(self, tenant: str, model: str, at: int) -> None:
        """A request of this depth was seen."""
        known = self._known.setdefault((tenant, model), Survival())
        known.observe(at)
        self._known.move_to_end((tenant, model))
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def expected(self, tenant: str, model: str, at: int) -> Decimal:
        """Survival.expected; 0 where nothing was seen."""
        known = self._known.get((tenant, model))
        return known.expected(at) if known else Decimal(0)
