"""What is remembered of prompts and of providers' caches, and what was done about them. Bounded; no text is kept."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from farthing.policies.prefix_returns import Returns

__all__ = ["WINDOWS_S", "Group", "PromptMemory"]

WINDOWS_S = (300.0, 600.0, 1800.0, 3600.0)
"""Within which returns are counted: the lives that providers offer, and twice Anthropic's shortest one."""
_MOST_GROUPS = 4_096
_MOST_MODELS = 1_024
_USUAL_CHARS = 4.0
_REFUSED_S = 3_600.0
_RECENT_TOKENS = 1_000_000
_FIRST_TOKENS = 20_000  # what is believed beforehand: as if so many had been promised, and read


@dataclass(slots=True)
class Group:
    """Requests of one head. `promised`, `kept`: tokens that should have been read and were, without a
    `prompt_cache_key` of ours and with one. `minute`, `count`, `rate`: this minute, its requests, the last one's."""

    promised: list[int] = field(default_factory=lambda: [0, 0])
    kept: list[int] = field(default_factory=lambda: [0, 0])
    keyed: bool = False
    buckets: int = 1
    minute: int = 0
    count: int = 0
    rate: int = 0

    def arrive(self, now_s: float) -> None:
        """One more request."""
        minute = int(now_s // 60)
        if minute != self.minute:
            self.rate = self.count if minute == self.minute + 1 else 0
            self.minute, self.count = minute, 0
        self.count += 1

    def note(self, promised: int, kept: int) -> None:
        """So many tokens should have been read, and were."""
        way = int(self.keyed)
        self.promised[way] += promised
        self.kept[way] += min(promised, kept)
        if self.promised[way] > _RECENT_TOKENS:
            self.promised[way] //= 2
            self.kept[way] //= 2

    def lost(self, *, keyed: bool) -> float:
        """The share of promised tokens that wasn't read; little while little is known."""
        return 1 - (self.kept[keyed] + _FIRST_TOKENS) / (self.promised[keyed] + _FIRST_TOKENS)


@dataclass(slots=True)
class PromptMemory:
    """All of it. `counts`: what was done, for metrics. `tool_orders`: by set, the order seen first."""

    returns: Returns
    groups: OrderedDict[int, Group] = field(default_factory=OrderedDict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    tool_orders: OrderedDict[int, tuple[int, ...]] = field(default_factory=OrderedDict)
    _chars: OrderedDict[str, float] = field(default_factory=OrderedDict)
    _refused: OrderedDict[Hashable, float] = field(default_factory=OrderedDict)

    @classmethod
    def of(cls, most_prefixes: int) -> PromptMemory:
        """An empty one."""
        return cls(Returns(WINDOWS_S, most_prefixes))

    def group(self, key: int) -> Group:
        """What is known of requests with this head."""
        found = self.groups.setdefault(key, Group())
        self.groups.move_to_end(key)
        if len(self.groups) > _MOST_GROUPS:
            self.groups.popitem(last=False)
        return found

    def tokens(self, model: str, chars: int) -> int:
        """So many characters of a prompt, in the model's tokens: by its own earlier counts."""
        return int(chars / self._chars.get(model, _USUAL_CHARS))

    def counted(self, model: str, chars: int, tokens: int) -> None:
        """The provider has counted a prompt."""
        if chars > 0 and tokens > 0:
            before = self._chars.get(model)
            now = chars / tokens
            self._chars[model] = now if before is None else before + 0.2 * (now - before)
            self._chars.move_to_end(model)
            if len(self._chars) > _MOST_MODELS:
                self._chars.popitem(last=False)

    def refuse(self, who: Hashable, now_s: float) -> None:
        """An upstream refuses what is added for this model: it is left alone for an hour."""
        self._refused[who] = now_s + _REFUSED_S
        if len(self._refused) > _MOST_MODELS:
            self._refused.popitem(last=False)

    def refuses(self, who: Hashable, now_s: float) -> bool:
        """Whether it does."""
        return bool(self._refused) and self._refused.get(who, 0.0) > now_s

    def values(self) -> Iterator[tuple[str, float]]:
        """For /metrics: each with its label behind a colon."""
        for (name, label), count in self.counts.items():
            yield f"{name}:{label}", count
