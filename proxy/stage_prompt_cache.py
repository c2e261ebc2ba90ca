"""The prompt_cache stage: whether a request's marks are looked after, and what came of it.

Which marks depends on who serves, and so on each leg: the upstream stage asks `Marker.look` when it knows the body that
it is going to send. Here the request is given its marker, and at the end the decision is told and learnt from.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from farthing.proxy.account import dollars
from farthing.proxy.exchange import GO_ON, Exchange, Quiet, Verdict
from farthing.proxy.prompt_marking import MARKED, Marked, Marker
from farthing.proxy.prompt_warm import Warmer

__all__ = ["PromptCacheStage"]


@dataclass(slots=True)
class PromptCacheStage(Quiet):
    """`marker`: None where this is off; `warmer`: where prefixes aren't kept warm."""

    marker: Marker | None
    warmer: Warmer | None = None
    name: str = field(default="prompt_cache", init=False)
    hard: bool = field(default=False, init=False)

    @property
    def idle(self) -> bool:
        """Whether it is off."""
        return self.marker is None

    def on_request(self, ex: Exchange) -> Verdict:
        """Let the upstream stage care for it, where it is a prompt that is understood."""
        if ex.optimise and ex.payload is not None and ex.exact is not None and ex.endpoint in MARKED:
            ex.marker = self.marker
        return GO_ON

    def on_end(self, ex: Exchange) -> None:
        """Tell what was decided, and learn from the answer."""
        marked: Marked | None = ex.marked
        if marked is None or self.marker is None or ex.call is None:
            return
        told = said(marked)
        if told:
            ex.decide(self.name, *told)
            self._count(marked)
        if 200 <= ex.call.status < 300:
            self.marker.learn(marked, ex.call.usage)
            if self.warmer is not None:
                self.warmer.after(ex, marked)

    def _count(self, marked: Marked) -> None:
        assert self.marker is not None
        counts, mode = self.marker.memory.counts, "sent" if marked.changed else "observed"
        counts["prompt_cache_breakpoints", mode] += len(marked.chosen)
        counts["prompt_cache_keys", mode] += bool(marked.key)


def said(marked: Marked) -> tuple[str, str] | None:
    """What was decided, in words; None where nothing was."""
    if marked.refused:
        return "left", "the upstream refused the request with what was added"
    parts = []
    if marked.chosen:
        hours = sum(life == "1h" for _, life in marked.chosen)
        kept = f" ({hours} for 1 h)" if hours else ""
        parts.append(f"{len(marked.chosen)} breakpoint{'s' * (len(marked.chosen) != 1)}{kept}")
    elif marked.explicit:
        parts.append("nothing to be written")
    if marked.key:
        parts.append("a key")
    if marked.reordered:
        parts.append("tools in their first order")
    if not parts:
        return None
    what = " and ".join(parts)
    gain = f", expected saving ${dollars(marked.gain_pico)}" if marked.gain_pico else ""
    return "marked" if marked.serves else "would mark", what + gain
