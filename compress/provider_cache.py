"""How providers cache prompts, as far as it decides whether a shorter prompt is a cheaper one. Pure data.

Sources: OpenAI, "Prompt caching" (from 1,024 tokens, in steps of 128, kept 5 to 10 minutes after the last use);
Anthropic API reference, "Prompt caching" (up to a `cache_control`, least length by model, 5 minutes after the last
use); DeepSeek API docs, "Context caching" (units of 64 tokens). Where sources disagree about a least length, the larger
stands here: assuming one that is too large forgoes a saving, one that is too small loses reads.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["NO_CACHE", "Kind", "ProviderCache", "provider_cache"]


class Kind(StrEnum):
    """Who says what is cached: nobody, the provider by itself, or marks in the request."""

    NONE = "none"
    AUTOMATIC = "automatic"
    EXPLICIT = "explicit"


class ProviderCache(NamedTuple):
    """`minimum_tokens`: shorter prefixes aren't cached. `step_tokens`: reads are cut to a multiple of it. `ttl_s`: how
    long a prefix is kept after its last use, at least."""

    kind: Kind = Kind.NONE
    minimum_tokens: int = 0
    step_tokens: int = 1
    ttl_s: float = 0.0


NO_CACHE = ProviderCache()
_OPENAI = ProviderCache(Kind.AUTOMATIC, 1024, 128, 300.0)
_DEEPSEEK = ProviderCache(Kind.AUTOMATIC, 64, 64, 300.0)
_ANTHROPIC_TTL_S = 300.0
# Parts of names, the first that fits: the most special ones first.
_ANTHROPIC_MINIMUM = (
    ("opus-4-5", 4096),
    ("opus-4-6", 4096),
    ("opus-4-7", 4096),
    ("haiku-4-5", 4096),
    ("sonnet-4-6", 2048),
    ("haiku", 2048),
)
_ANTHROPIC_ELSE = 1024
_NAMES = {"openai": "gpt", "anthropic": "claude", "deepseek": "deepseek"}


def provider_cache(model: str, provider: str = "auto") -> ProviderCache:
    """The prompt cache before a model, by its name; for an unknown one OpenAI's, which is the most usual.

    `provider`: whose it is, whatever the model's name: none, openai, anthropic or deepseek; auto: not said.
    """
    if provider == "none":
        return NO_CACHE
    name = model.lower().replace(".", "-")
    if provider != "auto" and _NAMES[provider] not in name:
        name = _NAMES[provider]
    if "claude" in name:
        least = next((tokens for part, tokens in _ANTHROPIC_MINIMUM if part in name), _ANTHROPIC_ELSE)
        return ProviderCache(Kind.EXPLICIT, least, 1, _ANTHROPIC_TTL_S)
    return _DEEPSEEK if "deepseek" in name else _OPENAI
