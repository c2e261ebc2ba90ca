"""A provider's prompt cache, as the scripted upstream simulates one: by turns, per caller and model.

A prompt reads what it has in common with earlier ones, in whole turns, from 1,024 tokens in steps of 128, for ten
minutes after the last use, and never what was asked before the earlier one's answer began. It shares no code with
farthing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["PromptCache"]

Prefix = tuple[str, str, str]


@dataclass
class PromptCache:
    """`now_s`: the time. `held`: until when each prefix is kept."""

    now_s: Callable[[], float]
    least: int = 1024
    step: int = 128
    kept_s: float = 600.0
    held: dict[Prefix, float] = field(default_factory=dict)

    def read(self, headers: Mapping[str, str], body: bytes) -> int:
        """The tokens that a request reads, were it asked now."""
        longest = 0
        for prefix, tokens in _prefixes(headers, body):
            if self.held.get(prefix, 0.0) > self.now_s():
                longest = tokens
        cut = longest // self.step * self.step
        return cut if cut >= self.least else 0

    def keep(self, headers: Mapping[str, str], body: bytes) -> None:
        """The request's answer begins."""
        for prefix, _ in _prefixes(headers, body):
            self.held[prefix] = self.now_s() + self.kept_s


def _prefixes(headers: Mapping[str, str], body: bytes) -> list[tuple[Prefix, int]]:
    try:
        asked = json.loads(body)
        model, turns = asked["model"], asked["messages"]
    except (ValueError, KeyError, TypeError):
        return []
    said = [json.dumps(turns[: end + 1], ensure_ascii=False) for end in range(len(turns))]
    return [((headers.get("Authorization", ""), model, text[:-1]), len(text.split())) for text in said]
