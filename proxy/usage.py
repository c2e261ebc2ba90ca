"""What a request used, in disjoint buckets. Leaf.

OpenAI's `prompt_tokens` includes cached tokens, Anthropic's `input_tokens` excludes reads and writes: `from_payload`
turns both into the same buckets, once, so that nothing downstream can count a token twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Usage", "UsageSource"]


class UsageSource(StrEnum):
    """Who counted."""

    UPSTREAM = "upstream"
    COUNTED = "counted"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer; the buckets are disjoint, so their sum is the whole.

    `fresh`: input neither read from nor written to the provider's cache. `cached`: input read from it.
    `cache_write`: input written to it. `output`: visible output. `reasoning`: output spent on thinking.
    """

    fresh: int = 0
    cached: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    source: UsageSource = UsageSource.UPSTREAM

    @property
    def tokens_in(self) -> int:
        """All input tokens."""
        return self.fresh + self.cached + self.cache_write

    @property
    def tokens_out(self) -> int:
        """All output tokens, reasoning among them."""
        return self.output + self.reasoning
