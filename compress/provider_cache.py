"""How providers cache prompts, as far as it decides what a prompt costs. Pure data.

Sources: OpenAI, "Prompt caching" (from 1,024 tokens, in steps of 128; kept 5 to 10 minutes after the last use, or 24
hours where `prompt_cache_retention` asks for it; from GPT-5.6 on 30 minutes, writes are charged, and
`prompt_cache_breakpoint` marks where); Anthropic API reference, "Prompt caching" (up to a `cache_control`, at most 20
blocks before one, least length by model, 5 minutes or 1 hour after the last use, writes are charged); DeepSeek API
docs, "Context caching" (units of 64 tokens, kept for hours); Gemini API docs, "Context caching" (implicit, least length
by model, no lifetime is promised); Mistral docs, "Prompt caching" (`prompt_cache_key` makes hits likelier; neither a
least length nor a lifetime is told); xAI docs, "Prompt Caching" (automatic; each server has its own, and a chat's
header `x-grok-conv-id`, or a response's `prompt_cache_key`, finds it again; entries may go at any time). Where nothing
is told OpenAI's older rules stand, and what is learnt from answers corrects them. Where sources disagree about a least
length, the larger stands here: assuming one that is too large forgoes a saving, one that is too small loses reads.
"""

from __future__ import annotations

import re
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
    long a prefix is kept after its last use, at least. `usual_s`: how long it may well be kept (0: `ttl_s`).
    `charges_writes`: what is written to it costs more than what is not. `look_back_blocks`: how far before a mark an
    earlier mark's prefix is looked for (0: as far as there is).

    What a request may say about it: `mark`: the field of a content block that marks where a prefix ends ('': none),
    `most_marks`: how many count, `hour`: whether a mark may be kept for an hour, at a price of its own; `keyed`: it may
    name a `prompt_cache_key`, of which `key_per_minute` requests stay together (0: not told); `key_header`: where a
    chat names it, if not in a field; `responses`: all this holds for OpenAI's responses too. `source`: who says it."""

    kind: Kind = Kind.NONE
    minimum_tokens: int = 0
    step_tokens: int = 1
    ttl_s: float = 0.0
    usual_s: float = 0.0
    charges_writes: bool = False
    look_back_blocks: int = 0
    mark: str = ""
    most_marks: int = 0
    hour: bool = False
    keyed: bool = False
    key_per_minute: int = 0
    key_header: str = ""
    responses: bool = False
    source: str = ""

    @property
    def kept_s(self) -> float:
        """How long a prefix is to be expected after its last use."""
        return self.usual_s or self.ttl_s


NO_CACHE = ProviderCache()
_OPENAI = ProviderCache(
    *(Kind.AUTOMATIC, 1024, 128, 300.0, 600.0),
    keyed=True,
    key_per_minute=15,
    responses=True,
    source="OpenAI, Prompt caching: models before GPT-5.6",
)
_OPENAI_CHARGING = ProviderCache(
    *(Kind.AUTOMATIC, 1024, 128, 1800.0),
    charges_writes=True,
    mark="prompt_cache_breakpoint",
    most_marks=4,
    keyed=True,
    key_per_minute=15,
    responses=True,
    source="OpenAI, Prompt caching: GPT-5.6 and later; API reference, prompt_cache_options",
)
_DEEPSEEK = ProviderCache(Kind.AUTOMATIC, 64, 64, 300.0, 10_800.0, source="DeepSeek API docs, Context caching")
_GEMINI = ProviderCache(Kind.AUTOMATIC, 4096, 1, 300.0, 600.0, source="Gemini API docs, Context caching (implicit)")
_GEMINI_FLASH = _GEMINI._replace(minimum_tokens=1024)
_MISTRAL = ProviderCache(*(Kind.AUTOMATIC, 1024, 128, 300.0), keyed=True, source="Mistral docs, Prompt caching")
_XAI = ProviderCache(
    *(Kind.AUTOMATIC, 1024, 128, 300.0),
    keyed=True,
    key_header="x-grok-conv-id",
    responses=True,
    source="xAI docs, Prompt Caching: Maximizing Cache Hits",
)
_ANTHROPIC = ProviderCache(
    *(Kind.EXPLICIT, 1024, 1, 300.0),
    charges_writes=True,
    look_back_blocks=20,
    mark="cache_control",
    most_marks=4,
    hour=True,
    source="Anthropic API reference, Prompt caching",
)
# Parts of names, the first that fits: the most special ones first.
_ANTHROPIC_MINIMUM = (
    ("opus-4-5", 4096),
    ("opus-4-6", 4096),
    ("opus-4-7", 4096),
    ("haiku-4-5", 4096),
    ("sonnet-4-6", 2048),
    ("opus-5", 512),
    ("fable-5", 512),
    ("mythos-5", 512),
    ("haiku", 2048),
)
# Models whose name says who serves them. Open weights (Mistral's, gpt-oss) may be served by anybody.
_NAMES = (
    ("anthropic", re.compile("claude")),
    ("deepseek", re.compile("deepseek")),
    ("gemini", re.compile("gemini")),
    ("xai", re.compile("grok")),
    ("openai", re.compile(r"(?<![a-z])gpt-?[3-9]|chatgpt|codex|(?:^|[/:])o[1-9](?![0-9a-z])")),
)
_GPT_VERSION = re.compile(r"gpt-(\d{1,2})(?:-(\d{1,2}))?(?!\d)")
_CHARGES_FROM = (5, 6)


def provider_cache(model: str, provider: str = "auto") -> ProviderCache:
    """The prompt cache before a model; none where nobody knows whose it is.

    `provider`: whose it is, whatever the model's name: none, openai, anthropic, deepseek, gemini, mistral or xai; auto:
    not said, so the model's name says it, if it does.
    """
    name = model.lower().replace(".", "-").replace("gpt-35", "gpt-3-5")  # as Azure writes it
    whose = next((one for one, named in _NAMES if named.search(name)), "") if provider == "auto" else provider
    match whose:
        case "openai":
            version = _GPT_VERSION.search(name)
            charges = version is not None and (int(version[1]), int(version[2] or 0)) >= _CHARGES_FROM
            return _OPENAI_CHARGING if charges else _OPENAI
        case "anthropic":
            least = next((tokens for part, tokens in _ANTHROPIC_MINIMUM if part in name), _ANTHROPIC.minimum_tokens)
            return _ANTHROPIC._replace(minimum_tokens=least)
        case "deepseek":
            return _DEEPSEEK
        case "gemini":
            return _GEMINI_FLASH if "flash" in name else _GEMINI
        case "mistral":
            return _MISTRAL
        case "xai":
            return _XAI
        case _:
            return NO_CACHE
