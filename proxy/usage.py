"""What a request used, in disjoint buckets. Leaf.

OpenAI's `prompt_tokens` includes cached tokens, Anthropic's `input_tokens` excludes reads and writes, xAI's
`completion_tokens` excludes reasoning: `from_payload` turns them all into the same buckets, once, so that nothing
downstream can count a token twice or lose one. What each provider sends stands in tests/proxy/usage_payloads.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

__all__ = ["EXTRAS", "PLAIN", "Usage", "UsageSource", "from_payload", "tier_of", "total"]

_CHAT = ("prompt_tokens", "prompt_tokens_details", "completion_tokens", "completion_tokens_details")
_RESPONSES = ("input_tokens", "input_tokens_details", "output_tokens", "output_tokens_details")
_MOST = 10**9  # no request is as long; a larger count is a fault, and would exhaust a budget at once
_LONGEST_TIER = 32
# What providers call processing at the standard rate (OpenAI, Anthropic, Groq). Any other word may cost something else.
_STANDARD = frozenset({"", "default", "standard", "standard_only", "auto", "on_demand"})
_MIXED = "mixed"


class UsageSource(StrEnum):
    """Who counted."""

    UPSTREAM = "upstream"
    COUNTED = "counted"
    CONTRADICTED = "contradicted"
    """The upstream, whose total is less than its parts: the parts are taken, and nothing is learnt from them."""


class Usage(NamedTuple):
    """Tokens of one answer; the buckets are disjoint, so their sum is the whole.

    `fresh`: text input neither read from nor written to the provider's cache. `cached`: read from it. `cache_write`:
    written to it, for as long as the provider keeps it by default (Anthropic: five minutes); `cache_write_1h`: for an
    hour. `output`: visible output. `reasoning`: output spent on thinking. `audio_*`, `image_*`: what was told apart of
    these modalities, and isn't in the buckets of text. `searches`: web searches, which are no tokens. `tier`: the
    service tier that answered, '' for the standard one; its rates are other ones.
    """

    fresh: int = 0
    cached: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    source: UsageSource = UsageSource.UPSTREAM
    cache_write_1h: int = 0
    audio_in: int = 0
    audio_cached: int = 0
    audio_out: int = 0
    image_in: int = 0
    image_cached: int = 0
    image_out: int = 0
    searches: int = 0
    tier: str = ""

    @property
    def plain(self) -> bool:
        """Whether the five buckets of every answer, at the standard tier, are all that there is."""
        return self[_FIRST_EXTRA:] == PLAIN

    @property
    def tokens_in(self) -> int:
        """All input tokens."""
        fresh, cached, written, _, _, _, hour, audio, audio_cached, _, image, image_cached, _, _, _ = self
        return fresh + cached + written + hour + audio + audio_cached + image + image_cached

    @property
    def tokens_out(self) -> int:
        """All output tokens, reasoning among them."""
        return self.output + self.reasoning + self.audio_out + self.image_out

    @property
    def tokens_read(self) -> int:
        """Input tokens read from the provider's cache, of whatever modality."""
        return self.cached + self.audio_cached + self.image_cached

    @property
    def tokens_written(self) -> int:
        """Input tokens written to the provider's cache, for however long."""
        return self.cache_write + self.cache_write_1h


_FIRST_EXTRA = Usage._fields.index("source") + 1
EXTRAS = Usage._fields[_FIRST_EXTRA:-1]
"""The buckets beyond the five that every answer may have."""
PLAIN = Usage()[_FIRST_EXTRA:]
"""What stands there in an ordinary usage: nothing, at the standard tier."""


def total(usages: Sequence[Usage]) -> Usage:
    """All of them together; counted where one of them is. `tier` is theirs if they share one, else 'mixed'."""
    counted = any(usage.source is UsageSource.COUNTED for usage in usages)
    tiers = {usage.tier for usage in usages}
    sums = {name: sum(getattr(usage, name) for usage in usages) for name in (*_FIVE, *EXTRAS)}
    return Usage(
        **sums,
        source=UsageSource.COUNTED if counted else UsageSource.UPSTREAM,
        tier=(tiers.pop() if len(tiers) == 1 else _MIXED) if tiers else "",
    )


_FIVE = Usage._fields[: _FIRST_EXTRA - 1]


def tier_of(value: object) -> str:
    """A service tier's name as rates know it: '' for the standard tier, whatever the provider calls it."""
    if not isinstance(value, str):
        return ""
    name = value.strip().lower()[:_LONGEST_TIER]
    return "" if name in _STANDARD else name


def from_payload(endpoint: str, usage: Mapping[str, Any], tier: object = "") -> Usage | None:
    """A provider's own usage object, in disjoint buckets; None where its counts make no sense.

    `tier`: the answer's `service_tier`, where it stands beside the usage (OpenAI) and not in it (Anthropic).

    OpenAI chat and completions: `prompt_tokens` includes `cached_tokens`, `cache_write_tokens`, `audio_tokens` and
    `image_tokens` of `prompt_tokens_details`; `completion_tokens` includes `reasoning_tokens` and `audio_tokens` of
    `completion_tokens_details`. What `total_tokens` has beyond the two was thought outside of `completion_tokens`, as
    xAI and Gemini count it. DeepSeek's `prompt_cache_hit_tokens` and Moonshot's `cached_tokens` are reads. Embeddings:
    `prompt_tokens`, or `total_tokens` alone. Responses: the same under `input_*` and `output_*`. Anthropic messages:
    `input_tokens` excludes `cache_read_input_tokens` and `cache_creation_input_tokens`; `cache_creation` tells the
    latter apart by TTL. A detail larger than its whole is cut to the whole; a count that is negative or no integer
    makes the whole object unusable; a total below its parts is marked in `source`.
    Sources: OpenAI API reference (usage objects), Anthropic API reference (Messages, `usage`), xAI's guides (reasoning,
    prompt caching), DeepSeek API reference (`usage`).
    """
    answered_at = tier_of(tier) if tier and tier != "default" else ""
    try:
        if endpoint == "messages":
            return _of_messages(usage) if "input_tokens" in usage else None
        given, given_parts, made, made_parts = _RESPONSES if endpoint == "responses" else _CHAT
        whole_in, whole_out, both = usage.get(given), usage.get(made), usage.get("total_tokens")
        if whole_in is None and given not in usage:
            if endpoint != "embeddings" or both is None:
                return None
            whole_in = max(_count(both) - _count(whole_out), 0)
        if type(whole_in) is not int or not 0 <= whole_in <= _MOST:
            whole_in = _count(whole_in)
        if type(whole_out) is not int or not 0 <= whole_out <= _MOST:
            whole_out = _count(whole_out)
        reads = writes = thought = 0
        media = None
        parts = usage.get(given_parts)
        if parts and (type(parts) is dict or isinstance(parts, Mapping)):
            reads = _count(found) if (found := parts.get("cached_tokens")) else 0
            writes = _count(found) if (found := parts.get("cache_write_tokens")) else 0
            if parts.get("audio_tokens") or parts.get("image_tokens"):
                media = parts
        if not reads and (found := usage.get("prompt_cache_hit_tokens") or usage.get("cached_tokens")):
            reads = _count(found)
        made_media = None
        parts = usage.get(made_parts)
        if parts and (type(parts) is dict or isinstance(parts, Mapping)):
            thought = _count(found) if (found := parts.get("reasoning_tokens")) else 0
            if parts.get("audio_tokens") or parts.get("image_tokens"):
                made_media = parts
    except ValueError:
        return None
    source = UsageSource.UPSTREAM
    if type(both) is int and both and (outside := both - whole_in - whole_out):
        if outside < 0:
            source = UsageSource.CONTRADICTED
        elif both <= _MOST and endpoint == "embeddings":
            whole_in += outside
        elif both <= _MOST:
            whole_out += outside
            thought = max(thought, outside)
    if reads > whole_in:
        reads = whole_in
    if writes > whole_in - reads:
        writes = whole_in - reads
    if thought > whole_out:
        thought = whole_out
    plain = Usage(whole_in - reads - writes, reads, writes, whole_out - thought, thought, source)
    if media is None and made_media is None and not answered_at:
        return plain
    return _with_media(plain, media or {}, made_media or {})._replace(tier=answered_at)


def _with_media(plain: Usage, media: Mapping[str, Any], made_media: Mapping[str, Any]) -> Usage:
    """The same tokens with audio and images apart.

    Where a provider doesn't say which modality was read from its cache (`cached_tokens_details` does), text was, as far
    as there is text. What can't be counted, or exceeds what there is, stays with the text.
    """
    known = media.get("cached_tokens_details")
    by_media = known if isinstance(known, Mapping) else {}
    usage = plain
    for name in ("audio", "image"):
        whole = _or_none(media.get(f"{name}_tokens")) or 0
        read = _or_none(by_media.get(f"{name}_tokens"))
        read = min(max(0, whole - usage.fresh) if read is None else read, whole, usage.cached)
        new = min(whole - read, usage.fresh)
        made = min(_or_none(made_media.get(f"{name}_tokens")) or 0, usage.output)
        usage = usage._replace(fresh=usage.fresh - new, cached=usage.cached - read, output=usage.output - made)
        if name == "audio":
            usage = usage._replace(audio_in=new, audio_cached=read, audio_out=made)
        else:
            usage = usage._replace(image_in=new, image_cached=read, image_out=made)
    return usage


def _of_messages(usage: Mapping[str, Any]) -> Usage:
    """Anthropic's. Raises ValueError where a count makes no sense."""
    fresh, cached = _count(usage.get("input_tokens")), _count(usage.get("cache_read_input_tokens"))
    written, output = _count(usage.get("cache_creation_input_tokens")), _count(usage.get("output_tokens"))
    hour = thought = 0
    by_ttl = usage.get("cache_creation")
    if by_ttl and isinstance(by_ttl, Mapping):
        hour = _count(by_ttl.get("ephemeral_1h_input_tokens"))
        if "cache_creation_input_tokens" not in usage:
            written = hour + _count(by_ttl.get("ephemeral_5m_input_tokens"))
        hour = min(hour, written)
    parts = usage.get("output_tokens_details")
    if parts and isinstance(parts, Mapping):
        thought = min(output, _count(parts.get("thinking_tokens")))
    plain = Usage(fresh, cached, written - hour, output - thought, thought)
    tools = usage.get("server_tool_use")
    searches = _count(tools.get("web_search_requests")) if tools and isinstance(tools, Mapping) else 0
    tier = ""
    if usage.get("service_tier", "standard") != "standard" or "speed" in usage or "inference_geo" in usage:
        tier = _tier_of_messages(usage)
    return plain._replace(cache_write_1h=hour, searches=searches, tier=tier) if hour or searches or tier else plain


def _tier_of_messages(usage: Mapping[str, Any]) -> str:
    """What multiplies Anthropic's rates: the tier, fast mode, inference kept in one country; several joined by '+'."""
    tiers = [tier_of(usage.get("service_tier")), tier_of(usage.get("speed"))]
    geo = usage.get("inference_geo")
    tiers.append(geo.lower() if isinstance(geo, str) and geo.lower() not in ("global", "not_available", "") else "")
    return "+".join(tier for tier in tiers if tier)[:_LONGEST_TIER]


def _or_none(value: object) -> int | None:
    try:
        return None if value is None else _count(value)
    except ValueError:
        return None


def _count(value: object) -> int:
    """A count; 0 for null. Raises ValueError where it is no count."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise ValueError("no count of tokens")
    return value
