"""What a request used, in disjoint buckets. Leaf.

OpenAI's `prompt_tokens` includes cached tokens, Anthropic's `input_tokens` excludes reads and writes: `from_payload`
turns both into the same buckets, once, so that nothing downstream can count a token twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

__all__ = ["Usage", "UsageSource", "from_payload", "total"]

_CHAT = ("prompt_tokens", "prompt_tokens_details", "completion_tokens", "completion_tokens_details")
_RESPONSES = ("input_tokens", "input_tokens_details", "output_tokens", "output_tokens_details")
_MOST = 10**9  # no request is as long; a larger count is a fault, and would exhaust a budget at once


class UsageSource(StrEnum):
    """Who counted."""

    UPSTREAM = "upstream"
    COUNTED = "counted"


class Usage(NamedTuple):
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


def total(usages: Sequence[Usage]) -> Usage:
    """All of them together; counted where one of them is."""
    counted = any(usage.source is UsageSource.COUNTED for usage in usages)
    return Usage(
        sum(usage.fresh for usage in usages),
        sum(usage.cached for usage in usages),
        sum(usage.cache_write for usage in usages),
        sum(usage.output for usage in usages),
        sum(usage.reasoning for usage in usages),
        UsageSource.COUNTED if counted else UsageSource.UPSTREAM,
    )


def from_payload(endpoint: str, usage: Mapping[str, Any]) -> Usage | None:
    """A provider's own usage object, in disjoint buckets; None where its counts make no sense.

    OpenAI chat and completions: `prompt_tokens` includes `cached_tokens` and `cache_write_tokens` of
    `prompt_tokens_details`; `completion_tokens` includes `reasoning_tokens` of `completion_tokens_details`. Embeddings:
    `prompt_tokens`. Responses: the same under `input_*` and `output_*`. Anthropic messages: `input_tokens` excludes
    `cache_read_input_tokens` and `cache_creation_input_tokens`. A detail larger than its whole is cut to the whole; a
    count that is negative or no integer makes the whole object unusable.
    Sources: OpenAI API reference (usage objects), Anthropic API reference (Messages, `usage`).
    """
    try:
        if endpoint == "messages":
            if "input_tokens" not in usage:
                return None
            return Usage(
                fresh=_count(usage, "input_tokens"),
                cached=_count(usage, "cache_read_input_tokens"),
                cache_write=_count(usage, "cache_creation_input_tokens"),
                output=_count(usage, "output_tokens"),
            )
        given, given_parts, made, made_parts = _RESPONSES if endpoint == "responses" else _CHAT
        if given not in usage:
            return None
        whole_in, whole_out = _count(usage, given), _count(usage, made)
        cached = written = reasoning = 0
        if details := _details(usage, given_parts):
            cached = min(whole_in, _count(details, "cached_tokens"))
            written = min(whole_in - cached, _count(details, "cache_write_tokens"))
        if details := _details(usage, made_parts):
            reasoning = min(whole_out, _count(details, "reasoning_tokens"))
    except ValueError:
        return None
    return Usage(
        fresh=whole_in - cached - written,
        cached=cached,
        cache_write=written,
        output=whole_out - reasoning,
        reasoning=reasoning,
    )


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = usage.get(name)
    return found if type(found) is dict or isinstance(found, Mapping) else {}


def _count(usage: Mapping[str, Any], name: str) -> int:
    """A count; 0 where it is absent or null. Raises ValueError where it is no count."""
    value = usage.get(name)
    if type(value) is int and 0 <= value <= _MOST:
        return value
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise ValueError(name)
    return value
