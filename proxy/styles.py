"""What kinds of upstream there are, as data: paths, credentials, names of fields. Pure.

`any` is the default: an upstream that takes every request as the client means it; nothing is touched.

Sources: Azure OpenAI REST API reference (deployment paths and `api-version` of the dated API, `api-key`; the v1 API is
OpenAI's own paths under `/openai/v1`); Gemini API, "OpenAI compatibility" (`/v1beta/openai`); Anthropic API reference,
"Versions" and "Authentication" (OAuth tokens as `Authorization: Bearer`); vLLM and Ollama, "OpenAI compatibility".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple
from urllib.parse import quote

from farthing.proxy.adapt_shared import Options
from farthing.proxy.exchange import Endpoint
from farthing.proxy.jsontext import find, insert_member, without

__all__ = ["STYLES", "Style", "StyleName", "base_of", "credential_of", "shown_as", "suited", "target_of"]

StyleName = Literal["any", "openai", "azure", "anthropic", "gemini", "vllm", "ollama"]


class Style(NamedTuple):
    """One kind of upstream.

    `messages`: whether it speaks Anthropic's messages instead of OpenAI's chats. `key_header`, `key_prefix`: where its
    key is shown. `headers`: what it needs besides, unless the client sends it. `foreign`: headers that mean nothing to
    it. `versioned`: whether its base ends in `/v1`, so that one may be added. `left_out`: fields of a chat that it
    would refuse, and that change no answer. `renamed`: fields that it calls otherwise. `options`: see adapt_shared.
    """

    messages: bool = False
    key_header: str = "Authorization"
    key_prefix: str = "Bearer "
    headers: tuple[tuple[str, str], ...] = ()
    foreign: tuple[str, ...] = ("anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access")
    versioned: bool = True
    left_out: frozenset[str] = frozenset()
    renamed: tuple[tuple[str, str], ...] = ()
    options: Options = Options()


# OpenAI's own book-keeping and hints: no answer depends on them.
_OPENAIS_OWN = frozenset(
    {"metadata", "prediction", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
    | {"safety_identifier", "user"}
)
STYLES: Mapping[StyleName, Style] = {
    "any": Style(foreign=()),
    "openai": Style(),
    "azure": Style(key_header="api-key", key_prefix="", versioned=False),
    "anthropic": Style(
        messages=True,
        key_header="x-api-key",
        key_prefix="",
        headers=(("anthropic-version", "2023-06-01"),),
        foreign=("openai-organization", "openai-project", "openai-beta"),
    ),
    "gemini": Style(versioned=False, left_out=_OPENAIS_OWN, options=Options(max_tokens_field="max_tokens")),
    "vllm": Style(options=Options(top_k=True, tool_images=True)),
    "ollama": Style(
        renamed=(("max_completion_tokens", "max_tokens"),),
        options=Options(max_tokens_field="max_tokens", tool_images=True),
    ),
}
_VERSION = "/v1"
# Where these APIs are on their own hosts.
_BASES: Mapping[StyleName, str] = {"azure": "/openai/v1", "gemini": "/v1beta/openai"}


def base_of(url: str, style: StyleName) -> str:
    """The API's base: with `/v1` where an SDK would have it and it is missing."""
    url = url.rstrip("/")
    last = url.rpartition("/")[2]
    has = last.startswith("v") and last[1:2].isdigit()
    return url if has or not STYLES[style].versioned else url + _VERSION


def target_of(style: StyleName, base_path: str, target: str, model: str, api_version: str) -> str:
    """The upstream's path and query for a request under `/v1/`.

    Azure's dated API (`api_version` is given) has the model, which is a deployment's name, in the path.
    """
    path, _, query = target.removeprefix(_VERSION).partition("?")
    base_path = base_path or _BASES.get(style, "")
    if style == "azure" and api_version:
        root = base_path.removesuffix("/v1").removesuffix("/openai")
        base_path = f"{root}/openai/deployments/{quote(model, safe='')}" if model else f"{root}/openai"
        query = "&".join(part for part in (query, f"api-version={quote(api_version, safe='')}") if part)
    return base_path + path + (f"?{query}" if query else "")


_TOKENS: Mapping[StyleName, str] = {"azure": "eyJ", "anthropic": "sk-ant-oat"}
"""How tokens begin that aren't keys."""


def shown_as(style: StyleName, key: str) -> tuple[str, str]:
    """The header that shows a key. Tokens, the other credential of Azure (Entra ID) and of Anthropic (OAuth), are shown
    as others show a key.
    """
    kind = STYLES["openai" if key.startswith(_TOKENS.get(style, ())) else style]
    return kind.key_header, kind.key_prefix + key


_SHOWN_IN = ("authorization", "x-api-key", "api-key", "x-goog-api-key")


def credential_of(headers: Mapping[str, str]) -> str:
    """The key that a client shows, in whichever header; '' where there is none, or no key (Basic)."""
    for name in _SHOWN_IN:
        value = headers.get(name, "").strip()
        scheme, _, rest = value.partition(" ")
        if value and not rest and scheme.lower() != "bearer":
            return value
        if scheme.lower() == "bearer" and rest.strip():
            return rest.strip()
    return ""


def suited(style: StyleName, endpoint: Endpoint, body: bytes) -> bytes:
    """A chat's body as this kind of upstream takes it; every other byte stays. One that can't be read stays whole."""
    kind = STYLES[style]
    if endpoint is not Endpoint.CHAT or not (kind.left_out or kind.renamed):
        return body
    try:
        for old, new in kind.renamed:
            place = find(body, (old,))
            if place is None:
                continue
            value = body[slice(*place)]
            body = without(body, {old})
            if find(body, (new,)) is None:
                body = insert_member(body, new, value)
        return without(body, kind.left_out) if kind.left_out else body
    except ValueError:
        return body
