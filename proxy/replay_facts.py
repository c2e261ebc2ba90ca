"""What a replay must know of one recorded request: its identity, what may be done with it, what it used. Pure.

The decisions are those of the modules that take them for a request on the wire: `policies.eligibility`, `cache.key`,
`cache.replay`, `policies.freshness`, `compress`. Prompts are read here and left here, so that what goes on is small.

Rules of this file: several configurations are read at once, and what they have in common is worked out once; what a
trace doesn't say is taken as a plain request would have it (no `x-farthing-*` header, credentials that are good).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from multidict import CIMultiDict

from farthing.cache import replay
from farthing.cache.key import Place, Scope, digest_of, key_of, neighbourhood
from farthing.compress.decided import first_new
from farthing.compress.forms import Form, forms_of
from farthing.compress.places import Marks, places, turns_of, up_to
from farthing.compress.places import Place as TextPlace
from farthing.compress.plan import lossy
from farthing.compress.provider_cache import provider_cache
from farthing.compress.request import Texts, decide
from farthing.compress.tidy import tidied_text
from farthing.policies.eligibility import Eligibility, Rules, eligible
from farthing.policies.freshness import Freshness
from farthing.proxy.attribute import Money
from farthing.proxy.build_compress import marks_of, rules_of
from farthing.proxy.build_semantic import freshness
from farthing.proxy.config import Config
from farthing.proxy.exchange import CacheMode, CacheStatus, Controls, Endpoint
from farthing.proxy.prompt_marking import cache_behind
from farthing.proxy.replay_prompt import Prompt, prompt_of
from farthing.proxy.replay_values import Recorded, number
from farthing.proxy.row import MONEY_COLUMNS
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage, UsageSource
from farthing.proxy.wire import is_plain

__all__ = ["Before", "Fact", "Part", "Reading", "fact_of", "reading_of"]

_MOST_CHARS = 400_000  # as compressing.py has it
_NOTHING_ASKED = Controls()
_ANSWERED = (CacheStatus.HIT_EXACT, CacheStatus.HIT_SEMANTIC, CacheStatus.JOINED)
# What a row's reason says that the request's own headers had asked for.
_ASKED: Mapping[str, Controls] = {
    "no-cache": Controls(no_cache=True),
    "no-store": Controls(no_store=True),
    "x-farthing-off": Controls(off=True),
    "x-farthing-cache: off": Controls(cache=CacheMode.OFF),
}


class Tidied(NamedTuple):
    """What tidying does to a request: tokens that it saves, of them in turns that were sent before, and the tokens of
    these as sent."""

    saved: int = 0
    before: int = 0
    sent: int = 0


UNTOUCHED = Tidied()


class Part(NamedTuple):
    """What one configuration makes of a request. `key`: '' where it has none. `reason`: why not all may be done.

    `ttl_s`, `near_ttl_s`: how long its answer may be given again, and to near-duplicates. `place`: where it is looked
    for; a text says why nowhere, None that nobody looks. `cut`: tokens that each form beyond tidy would save. `prompt`:
    None where it is too short for a provider's cache.
    """

    key: str
    reason: str
    store: bool
    read: bool
    join: bool
    semantic: bool
    ttl_s: int
    near_ttl_s: int
    place: Place | str | None
    cut: tuple[int, ...]
    prompt: Prompt | None = None


class Before(NamedTuple):
    """What farthing recorded of the request itself: how it was answered, its money, tokens in as asked
    and as sent, tokens out. `retries`: attempts after the first."""

    cache: str
    money: Money
    tokens: tuple[int, int, int]
    retries: int = 0


class Fact(NamedTuple):
    """One request, without its prompt. `unfit`: why its answer may not be kept. `known`: its prompt was
    there. `parts`: one for each reading.

    `first_s`: until its answer began. `shortened`: tokens that the recorded request had been shortened by already.
    `answer`: the answer's body, where near duplicates are looked for; None where it was one's itself, which says
    nothing of what the model would have answered.
    """

    line: int
    ts: float | None
    tenant: str
    user: str
    tags: tuple[tuple[str, str], ...]
    endpoint: Endpoint
    model: str
    model_served: str
    stream: bool
    asks_usage: bool
    status: int
    latency_s: float | None
    first_s: float | None
    usage: Usage | None
    size: int
    unfit: str
    tidied: Tidied
    shortened: int
    answer: bytes | None
    before: Before | None
    known: bool
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """The part of a configuration that decides about a request without looking at others; equal ones are read once."""

    rules: Rules
    fresh: Freshness
    optimise: bool
    lossy: str
    upstream_url: str
    max_entry_bytes: int
    tidy: bool
    near: bool
    forms: tuple[Form, ...]
    marks: tuple[Marks, ...]
    provider: str
    one_account: bool

    def least_tokens(self, model: str) -> int:
        """Of a prompt that a provider would cache; 0: none caches any."""
        return provider_cache(model, self.provider).minimum_tokens


def reading_of(config: Config, *, near: bool, beyond: bool) -> Reading:
    """The reading that a configuration asks for. `near`: near-duplicates are looked for. `beyond`: what recode and
    squeeze would cut is counted. Raises ConfigFault."""
    cache, compress = config.cache, config.compress
    forms: tuple[Form, ...] = ()
    if beyond:
        forms = forms_of(
            recode=compress.recode != "off",
            squeeze_to=compress.squeeze_to if compress.squeeze != "off" else None,
            least_tokens=compress.squeeze_keeps_tokens,
            rules=rules_of(compress),
        )
    return Reading(
        Rules(cache.mode == "exact", cache.sampled, cache.remote_urls, cache.responses_never_chained),
        freshness(cache),
        not config.all_off,
        lossy(recode=compress.recode, squeeze=compress.squeeze, asked=""),
        config.upstream.identity,
        cache.max_entry_bytes,
        compress.tidy,
        near,
        forms,
        marks_of(compress),
        cache_behind(config.upstream, compress.provider_cache),
        bool(config.upstream.keys),
    )


def fact_of(line: int, one: Recorded, readings: Sequence[Reading], tokenizer: Tokenizer) -> Fact:
    """The fact of a recorded request. Cost: some 20 microseconds, and more where tokens have to be counted."""
    body, row = one.body, one.row or {}
    endpoint = one.endpoint
    model = _model(body, row)
    answer = orjson.dumps(one.response, default=str) if one.response is not None else None
    status = one.status or 200
    usage = one.usage
    if usage is None and body is not None and answer is not None and endpoint is not Endpoint.OTHER and status < 300:
        given = tokenizer.count_request(endpoint, body, model)
        output = tokenizer.count_text_out(endpoint, answer, model)
        usage = Usage(fresh=given, output=output, source=UsageSource.COUNTED)
    asked = _ASKED.get(str(row.get("cache_reason") or ""), _NOTHING_ASKED)
    tidies = not asked.off and any(reading.tidy and reading.optimise for reading in readings)
    shortened, was_short = _shortened(row, usage), bool(row.get("compress"))
    tokens_in = 0 if usage is None else usage.tokens_in + shortened
    caches = any(0 < reading.least_tokens(model) <= tokens_in for reading in readings)
    short = _short_texts(endpoint, body) if tidies or (was_short and caches) else {}
    reads = caches or (usage is not None and usage.cached > 0)
    tidied = _tidied(endpoint, body, model, short, tokenizer, reads=reads)
    prompts: dict[tuple[str, bool], Prompt | None] = {}
    if caches and body is not None and usage is not None and 200 <= status < 300 and endpoint is not Endpoint.OTHER:
        for whose in {(reading.provider, reading.one_account) for reading in readings}:
            prompts[whose] = prompt_of(
                endpoint,
                body,
                model,
                whose[0],
                "" if whose[1] else one.tenant,
                tokens_in=tokens_in,
                tokens_saved=tidied.saved,
                short=short,
                was_short=was_short,
            )
    stream = bool(row.get("stream")) if body is None else body.get("stream") is True
    return Fact(
        line,
        one.ts,
        one.tenant,
        one.user,
        one.tags,
        endpoint,
        model,
        one.model_served or model,
        stream,
        stream and _asks_usage(body),
        status,
        one.latency_s,
        one.latency_s if (first_ms := number(row.get("ttft_ms"))) is None else first_ms / 1000,
        usage,
        len(answer) if answer is not None else 0,
        _unfit(one, status),
        tidied,
        shortened,
        answer if row.get("cache") != CacheStatus.HIT_SEMANTIC and any(reading.near for reading in readings) else None,
        _before(row),
        body is not None or one.format != "ledger",
        tuple(_parts(one, model, answer, asked, readings, tokenizer, prompts)),
    )


def _model(body: Mapping[str, Any] | None, row: Mapping[str, Any]) -> str:
    model = row.get("model_requested") if body is None else body.get("model")
    return model if isinstance(model, str) else ""


def _asks_usage(body: Mapping[str, Any] | None) -> bool:
    options = (body or {}).get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _unfit(one: Recorded, status: int) -> str:
    """As `stage_exact.unfit` has it. An answer that isn't in the trace is taken for a good one."""
    if status != 200:
        return f"status {status}"
    if one.row is not None and one.row.get("outcome") not in (None, "completed"):
        return "answer broke off"
    if one.response is not None and not replay.is_complete_value(one.response, one.endpoint):
        return "answer is not well-formed"
    return ""


def _shortened(row: Mapping[str, Any], usage: Usage | None) -> int:
    """How many tokens more the client's prompt had than `usage` was billed for."""
    original, sent = row.get("tokens_in_original"), row.get("tokens_in_sent")
    if not isinstance(original, int) or not isinstance(sent, int):
        return 0
    if row.get("cache") in _ANSWERED:  # its answer's usage is that of the request it was written for, as it was sent
        return 0 if usage is None else max(0, original - usage.tokens_in)
    return original - sent if row.get("compress") and sent else 0


def _before(row: Mapping[str, Any]) -> Before | None:
    cache = row.get("cache")
    if not isinstance(cache, str):
        return None
    amounts = [one if isinstance(one := row.get(name), int) else None for name in MONEY_COLUMNS]
    counts = [row.get(name) for name in ("tokens_in_original", "tokens_in_sent", "tokens_out")]
    given, sent, made = (one if isinstance(one, int) else 0 for one in counts)
    tries = row.get("attempts")
    retries = max(0, tries - 1) if isinstance(tries, int) else 0
    return Before(cache, Money._make([*amounts, "", bool(row.get("modelled"))]), (given, sent, made), retries)


def _short_texts(endpoint: Endpoint, body: dict[str, Any] | None) -> dict[TextPlace, str]:
    """The texts that tidying puts in the places of others."""
    if body is None or is_plain(body):
        return {}
    return {
        place: text
        for place in places(endpoint, body)
        if place.kind == "tool" and not place.frozen and (text := tidied_text(place.text)) is not None
    }


def _tidied(
    endpoint: Endpoint,
    body: dict[str, Any] | None,
    model: str,
    short: Mapping[TextPlace, str],
    tokenizer: Tokenizer,
    *,
    reads: bool,
) -> Tidied:
    """Tokens that tidying saves, as the account counts them. A request's count is the sum of its texts', so only those
    that change are counted. `reads`: whether a provider's cache may have been read: only then it matters what stands
    in old turns."""
    if body is None or not short:
        return UNTOUCHED
    first = first_new(endpoint, turns_of(endpoint, body))
    saved, before = 0, 0
    for place, text in short.items():
        tokens = tokenizer.count(place.text, model) - tokenizer.count(text, model)
        saved += tokens
        before += tokens if place.turn < first else 0
    if not before or not reads:
        return Tidied(saved)
    return Tidied(saved, before, tokenizer.count_request(endpoint, up_to(endpoint, body, first), model) - before)


def _parts(
    one: Recorded,
    model: str,
    answer: bytes | None,
    asked: Controls,
    readings: Sequence[Reading],
    tokenizer: Tokenizer,
    prompts: Mapping[tuple[str, bool], Prompt | None],
) -> list[Part]:
    body = one.body
    if body is None:
        return [_part_of_row(one, reading, model) for reading in readings]
    plain = is_plain(body)
    keyed = str((one.row or {}).get("key_hash") or "").partition(".")[0]
    digest = b""
    found = []
    for reading in readings:
        verdict = _verdict(one.endpoint, body, asked, reading, plain)
        key, place = "", None
        whose = (one.tenant, one.endpoint, one.target, reading.upstream_url)
        scope = Scope(*whose, CIMultiDict(), asked, reading.lossy)
        if verdict.store:
            # farthing's own key knows what a trace doesn't: vendors' headers, namespaces, texts before redaction.
            digest = digest or (b"" if keyed else digest_of(body, one.endpoint, plain=plain))
            key = f"{keyed}{reading.lossy}" if keyed else key_of(scope.material(), digest)
            if reading.near and verdict.semantic:
                place = neighbourhood(scope, body)
        ttl_s, near_ttl_s = _lifetimes(one, model, answer, reading)
        oversize = answer is not None and len(answer) > reading.max_entry_bytes
        found.append(
            Part(
                key,
                verdict.reason,
                verdict.store,
                verdict.read,
                verdict.join,
                verdict.semantic,
                0 if oversize else ttl_s,
                near_ttl_s,
                place,
                _cut(one.endpoint, body, model, reading, tokenizer),
                prompts.get((reading.provider, reading.one_account)),
            )
        )
    return found


def _verdict(endpoint: Endpoint, body: dict[str, Any], asked: Controls, reading: Reading, plain: bool) -> Eligibility:
    if not reading.optimise:
        return Eligibility(False, False, False, False, "switched off")
    return eligible(endpoint, body, asked, reading.rules, plain=plain)


def _part_of_row(one: Recorded, reading: Reading, model: str) -> Part:
    """Of a ledger's row: whether it may be kept was decided then, and is taken over."""
    row = one.row or {}
    key, reason = str(row.get("key_hash") or "").partition(".")[0], str(row.get("cache_reason") or "")
    keeps = bool(key) and reading.optimise and reading.rules.enabled
    read = keeps and reason != "no-cache"
    ttl_s, near_ttl_s = _lifetimes(one, model, None, reading)
    return Part(key if keeps else "", reason, keeps, read, read, False, ttl_s, near_ttl_s, None, ())


def _lifetimes(one: Recorded, model: str, answer: bytes | None, reading: Reading) -> tuple[int, int]:
    """See policies.freshness. A rule that asks for a kind of answer matches none that isn't in the trace."""
    found = reading.fresh.of((model, one.model_served or model), one.endpoint, one.tags, answer or b"")
    return found.ttl_s, found.ttl_s if found.semantic_ttl_s is None else min(found.ttl_s, found.semantic_ttl_s)


def _cut(
    endpoint: Endpoint, body: dict[str, Any], model: str, reading: Reading, tokenizer: Tokenizer
) -> tuple[int, ...]:
    """Tokens that each form would save in the whole request: what was decided for a turn is sent in every later one."""
    if not reading.forms:
        return ()
    texts = Texts.of(endpoint, body, reading.marks)
    turns = [turn for turn in texts.by_turn if turn not in texts.frozen]
    if not turns or texts.chars(turns) > _MOST_CHARS:
        return (0,) * len(reading.forms)

    def count(text: str) -> int:
        return tokenizer.count(text, model)

    return tuple(sum(one.tokens_saved for one in decide(texts, turns, form, count)) for form in reading.forms)
