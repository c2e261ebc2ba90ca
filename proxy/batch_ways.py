"""Which batch API an upstream has, in what bounds and on whose account: data, and the target that follows from it.

Sources: OpenAI API reference, Batch (50,000 requests, 200 MB, 24 hours); Azure OpenAI, "Getting started with batch
deployments" (100,000 requests, 200 MB, 24 hours aimed at; a batch needs a deployment of its own, so that it is used
only where it is asked for); Anthropic API reference, Message Batches (100,000 requests, 256 MB, 24 hours); Gemini
API, "Batch API" and "OpenAI compatibility" (files up to 2 GB, 24 hours aimed at; what its form of OpenAI's lines takes
beside chats isn't documented, so that only chats go there). vLLM's and Ollama's servers have none.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import quote, urlsplit

import orjson
from multidict import CIMultiDict, MultiMapping

from farthing.policies.defer import Rules
from farthing.proxy.batch_anthropic import MessageBatches
from farthing.proxy.batch_api import BatchApi
from farthing.proxy.batch_gemini import GeminiBatches
from farthing.proxy.batch_http import BatchHttp
from farthing.proxy.batch_openai import OpenAIBatches
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.config import Upstream
from farthing.proxy.config_defer import Defer
from farthing.proxy.exchange import Endpoint
from farthing.proxy.pool import Pool
from farthing.proxy.styles import STYLES, credential_of, shown_as, target_of
from farthing.proxy.wire import callers

__all__ = ["Kind", "Target", "kind_named", "kind_of"]

Kind = Literal["openai", "anthropic", "gemini"]
_VERSION = "anthropic-version"
_COMPATIBLE = "/v1beta/openai"


class Bounds(NamedTuple):
    """Of one batch. Bytes leave room for what stands round the bodies."""

    items: int
    bytes: int


_BOUNDS: Mapping[Kind, Bounds] = {
    "openai": Bounds(50_000, 190 * 10**6),
    "anthropic": Bounds(100_000, 230 * 10**6),
    "gemini": Bounds(50_000, 190 * 10**6),
}
_HOSTS: Mapping[str, Kind] = {"api.openai.com": "openai", "api.anthropic.com": "anthropic"}
_TAKEN: Mapping[Kind, frozenset[Endpoint]] = {
    "openai": frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS, Endpoint.RESPONSES}),
    "anthropic": frozenset({Endpoint.MESSAGES}),
    "gemini": frozenset({Endpoint.CHAT}),
}


def kind_named(name: str) -> Kind:
    """The kind that is kept under this name; OpenAI's where it is none."""
    return next((kind for kind in _BOUNDS if kind == name), "openai")


def kind_of(upstream: Upstream, endpoint: Endpoint) -> Kind | None:
    """The batch API that takes this call to this upstream; None: it has none, or it doesn't take such calls.

    By its own key `batch`; where that says nothing, the providers' own hosts have theirs.
    """
    here = _HOSTS.get(urlsplit(upstream.url).hostname or "")
    if upstream.batch is False or (upstream.batch is None and here is None):
        return None
    style = STYLES[upstream.style]
    called: Endpoint = endpoint
    if style.messages and endpoint is Endpoint.CHAT:
        called = Endpoint.MESSAGES  # the adapter's doing
    elif upstream.style != "any" and not style.messages and endpoint is Endpoint.MESSAGES:
        called = Endpoint.CHAT
    found: Kind = "anthropic" if called is Endpoint.MESSAGES else "gemini" if upstream.style == "gemini" else "openai"
    if upstream.batch is None and found != here:
        return None
    if upstream.style != "any" and (found == "anthropic") != style.messages:
        return None
    return found if called in _TAKEN[found] else None


@dataclass(frozen=True, slots=True)
class Target:
    """An upstream to which requests may wait. `foreign`: one of `upstreams`, to which clients' credentials mean
    nothing. `own_keys`: what clients show is farthing's own."""

    upstream: Upstream
    pool: Pool
    config: Defer
    foreign: bool = False
    own_keys: bool = False

    @property
    def key(self) -> str:
        """How requests that wait for it name it, also after a restart."""
        return f"{self.upstream.name} {self.upstream.identity}" if self.foreign else self.upstream.identity

    @property
    def price_times(self) -> float:
        """Of the standard price, where the prices know no tier `batch`."""
        own = self.upstream.batch_price_times
        return self.config.price_times if own is None else own

    def rules(self, kind: Kind) -> Rules:
        """When a batch of that kind is sent: what is configured, as far as the provider takes it."""
        bounds, own, rules = _BOUNDS[kind], self.upstream, self.config.rules
        return Rules(
            rules.min_s,
            rules.flush_s,
            min(rules.max_items, bounds.items, own.batch_max_items or bounds.items),
            min(rules.max_bytes, bounds.bytes, own.batch_max_bytes or bounds.bytes),
        )

    def account(self, headers: MultiMapping[str], secret: bytes) -> tuple[str, Sequence[tuple[str, str]]] | None:
        """On whose account a request with these headers is sent, and what shows that; None where nobody's.

        The operator's are named so, a client's by a digest of what it showed; each version of Anthropic's API apart.
        """
        version = headers.get(_VERSION, "") if self.upstream.style in ("any", "anthropic") else ""
        if self.operators:
            name = f"operator {version}" if version else "operator"
            return name, self.operators_pairs(name)
        if self.own_keys:
            return None
        if self.upstream.style == "any":
            pairs = list(callers(headers).items())
        else:
            key = credential_of(headers)
            pairs = [shown_as(self.upstream.style, key)] if key else []
        if not pairs:
            return None
        pairs += [(_VERSION, version)] if version else []
        return hmac.new(secret, orjson.dumps(pairs), "sha256").hexdigest()[:32], pairs

    @staticmethod
    def operators_pairs(account: str) -> Sequence[tuple[str, str]]:
        """What is shown beside the operator's key, on an account of that name (`account`): nothing of a client's but
        the version of the API that it speaks."""
        version = account.removeprefix("operator").strip()
        return ((_VERSION, version),) if version else ()

    @property
    def operators(self) -> bool:
        """Whether no client's credential is needed."""
        return self.foreign or bool(self.upstream.keys)

    def api(self, kind: Kind, pairs: Sequence[tuple[str, str]], clock: Clock, randomness: Randomness) -> BatchApi:
        """Its API of that kind, for whom `pairs` shows."""
        replica, upstream = self.pool.replicas[0], self.upstream
        style = "anthropic" if kind == "anthropic" else upstream.style
        if self.operators:
            pairs = [*(shown_as(style, key) for key in upstream.keys[:1]), *pairs]
        dated = upstream.style == "azure" and bool(upstream.api_version)
        base = target_of(upstream.style, replica.base, "/v1", "", upstream.api_version).partition("?")[0]
        query = f"api-version={quote(upstream.api_version, safe='')}" if dated else ""
        if kind == "anthropic":
            more = [pair for pair in STYLES["anthropic"].headers if pair[0] not in dict(pairs)]
            return MessageBatches(BatchHttp(replica.connections, base, [*pairs, *more]), clock)
        http = BatchHttp(replica.connections, base, pairs, query)
        if kind == "gemini":
            # Google's own calls know another header, and take a key under `Authorization` for a token.
            keys = [("x-goog-api-key", key) for key in [credential_of(CIMultiDict(pairs))] if key]
            return GeminiBatches(http, BatchHttp(replica.connections, base.removesuffix(_COMPATIBLE), keys))
        return OpenAIBatches(http, randomness, dated=dated, reads_files=upstream.style == "azure")
