"""The wire's vocabulary: paths, headers, bodies. Pure; no sockets. Leaf.

Rules of this file: nothing is dropped from a body or a header but what RFC 9110 calls hop-by-hop and what is
addressed to farthing itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from itertools import compress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson
from multidict import CIMultiDict, CIMultiDictProxy, MultiMapping

from farthing.proxy.errors import ClientFault
from farthing.proxy.exchange import CacheMode, Controls, Endpoint
from farthing.proxy.jsontext import MAX_DEPTH, members, too_deep

__all__ = [
    "Body",
    "controls",
    "credential",
    "endpoint_of",
    "forwardable",
    "forwarded",
    "is_plain",
    "lines_of",
    "read_body",
    "telling",
    "telling_who",
    "upstream_target",
    "vendor_headers",
]

_ENDPOINTS = {
    "/v1/chat/completions": Endpoint.CHAT,
    "/v1/embeddings": Endpoint.EMBEDDINGS,
    "/v1/completions": Endpoint.COMPLETIONS,
    "/v1/responses": Endpoint.RESPONSES,
    "/v1/messages": Endpoint.MESSAGES,
}

# RFC 9110, 7.6.1; Keep-Alive and Proxy-Connection are RFC 2068's.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
CREDENTIAL_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
_OURS = "x-farthing-"


def endpoint_of(method: str, path: str) -> Endpoint:
    """Which API call this is."""
    return _ENDPOINTS.get(path, Endpoint.OTHER) if method == "POST" else Endpoint.OTHER


def upstream_target(base_url: str, target: str) -> str:
    """The upstream's URL for a request target, which is kept undecoded.

    `/v1/x` goes to `<base>/x`; any other path goes beside the base's version segment.
    Raises ClientFault for a target in absolute form (RFC 9112, 3.2.2): farthing is no open proxy.
    """
    if not target.startswith("/") or target.startswith("//"):
        raise ClientFault("the request target must be a path", code="invalid_target")
    if target.startswith("/v1/") or target == "/v1" or target.startswith("/v1?"):
        return base_url + target[3:]
    return base_url.rpartition("/")[0] + target


def forwardable(headers: Iterable[tuple[str, str]], *, drop: frozenset[str] = frozenset()) -> CIMultiDict[str]:
    """`forwarded` as a table."""
    return CIMultiDict(forwarded(headers, drop=drop))


def forwarded(headers: Iterable[tuple[str, str]], *, drop: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    """The end-to-end headers, in order and with repeats; without hop-by-hop ones, those that `Connection` names,
    farthing's own, and `drop` (lower case)."""
    pairs = list(headers)
    named = ",".join([value for name, value in pairs if len(name) == 10 and name.lower() == "connection"])
    keep = _kept(tuple([name for name, _ in pairs]), named, drop)
    return list(compress(pairs, keep))


def lines_of(headers: Iterable[tuple[str, str]]) -> str:
    """Header lines. Raises ValueError: a line break inside one, which would make two of it (RFC 9112, 11.1)."""
    lines = [*map(": ".join, headers)]
    text = "\r\n".join([*lines, ""])
    if text.count("\n") != len(lines) or text.count("\r") != len(lines) or "\0" in text:
        raise ValueError("a header holds a line break")
    return text


# A client sends the same header names again and again, so what they mean is worked out once.
@lru_cache(maxsize=512)
def _kept(names: tuple[str, ...], named_by_connection: str, drop: frozenset[str]) -> tuple[bool, ...]:
    gone = HOP_BY_HOP | drop | {token.strip().lower() for token in named_by_connection.split(",")}
    return tuple(not (name.lower() in gone or name.lower().startswith(_OURS)) for name in names)


@lru_cache(maxsize=512)
def _asks(names: tuple[str, ...]) -> bool:
    """Whether any of these headers may be meant for farthing."""
    return any(name.lower() == "cache-control" or name.lower().startswith(_OURS) for name in names)


# Gateways have their own names for a key (Azure API Management's Ocp-Apim-Subscription-Key, cookies, X-Auth-Token).
# One header too many splits a tenant, which costs hits; one too few would show one caller another's answers.
_TELLING = ("auth", "key", "token", "cookie", "secret", "session", "credential", "signature", "assertion")
_NOT_TELLING = frozenset({"idempotency-key", "x-idempotency-key", "sec-websocket-key", "x-farthing-session"})


@lru_cache(maxsize=512)
def _credentials(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of these headers that may say who calls, the usual ones first."""
    lower = dict.fromkeys(name.lower() for name in names)
    usual = [name for name in CREDENTIAL_HEADERS if name in lower]
    telling = (name for name in lower if any(word in name for word in _TELLING) and name not in _NOT_TELLING)
    return tuple(usual + sorted(name for name in telling if name not in usual))


@lru_cache(maxsize=512)
def telling_who(names: tuple[str, ...]) -> frozenset[str]:
    """Those of these headers that say who calls, or on whose account (lower case)."""
    return frozenset((*_credentials(names), *_ACCOUNTS))


_ACCOUNTS = ("openai-organization", "openai-project")


@lru_cache(maxsize=512)
def vendor_headers(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of these headers that can change an answer, sorted: `openai-*` and `anthropic-*`."""
    return tuple(sorted({name.lower() for name in names if name.lower().startswith(("openai-", "anthropic-"))}))


_ALSO_TELLING = frozenset({"connection", "content-encoding", "content-type", "expect", "transfer-encoding"})


@lru_cache(maxsize=512)
def telling(names: tuple[bytes, ...], prefixes: tuple[str, ...] = ()) -> tuple[int, ...]:
    """Which of these headers (places in the list) can change how a request is answered from a cache: what says who
    calls, what is meant for farthing, what vendors let change an answer, how the body is to be read, and names that
    begin with one of `prefixes` (lower case).

    All others (traces, user agents, request ids) may differ between two requests that are the same.
    """
    lower = [name.decode("latin-1").lower() for name in names]
    usual = {*_credentials(tuple(lower)), *vendor_headers(tuple(lower)), *_ALSO_TELLING}
    return tuple(at for at, name in enumerate(lower) if name in usual or name.startswith(prefixes) or _asks((name,)))


def credential(headers: MultiMapping[str]) -> str:
    """Whatever the client shows to say who it is, '' if nothing: tenancy comes from this and from nothing else."""
    shown = [f"{name}:{value}" for name in _credentials(tuple(headers)) for value in headers.getall(name)]
    return "\n".join(shown)


def callers(headers: MultiMapping[str]) -> CIMultiDict[str]:
    """Who calls and on whose account, and no other header: for a call of farthing's own on the client's behalf."""
    names = (*_credentials(tuple(headers)), *_ACCOUNTS)
    return CIMultiDict((name, value) for name in names for value in headers.getall(name, ()))


def controls(headers: CIMultiDictProxy[str]) -> Controls:
    """What the request's headers ask of farthing. Raises ClientFault where one can't be understood."""
    if not _asks(tuple(headers)):
        return _NOTHING_ASKED
    directives = {}
    for part in ",".join(headers.getall("Cache-Control", ())).split(","):  # RFC 9110, 5.3
        name, _, value = part.strip().partition("=")
        directives[name.lower()] = value.strip('"')
    mode = headers.get("x-farthing-cache", "").lower()
    if mode not in ("", "off", "exact", "semantic"):
        raise ClientFault("x-farthing-cache must be off, exact or semantic", param="x-farthing-cache")
    squeeze = headers.get("x-farthing-compress", "").lower()
    if squeeze not in ("", "off", "tidy", "squeeze"):
        raise ClientFault("x-farthing-compress must be off, tidy or squeeze", param="x-farthing-compress")
    return Controls(
        off=_switch(headers.get("x-farthing-off", "0"), "x-farthing-off"),
        no_cache="no-cache" in directives,
        no_store="no-store" in directives,
        only_if_cached="only-if-cached" in directives,
        max_age_s=_max_age_s(directives),
        cache=CacheMode(mode) if mode else None,
        ttl_s=_seconds(headers["x-farthing-ttl"], "x-farthing-ttl") if "x-farthing-ttl" in headers else None,
        scope=_short(headers.get("x-farthing-scope", ""), "x-farthing-scope"),
        compress=squeeze,
        route=_short(headers.get("x-farthing-route", ""), "x-farthing-route"),
        user=_short(headers.get("x-farthing-user", ""), "x-farthing-user"),
        tags=_tags(headers.get("x-farthing-tags", "")),
        defer_s=_span_s(headers["x-farthing-defer"], "x-farthing-defer") if "x-farthing-defer" in headers else None,
    )


_NOTHING_ASKED = Controls()
_LONGEST_DEFER_S = 30 * 86_400


def _switch(text: str, where: str) -> bool:
    if text.lower() not in ("1", "true", "0", "false"):
        raise ClientFault(f"{where} must be 1 or 0", param=where)
    return text.lower() in ("1", "true")


def _max_age_s(directives: Mapping[str, str]) -> int | None:
    """`max-age` in seconds; one that can't be read is as good as none (RFC 9111, 4.2.1)."""
    text = directives.get("max-age", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def _seconds(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise ClientFault(f"{where}: {text[:20]!r} is not a number of seconds", param=where)
    return int(text)


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _span_s(text: str, where: str) -> int:
    """A span of time like 90m, 24h or 2d, in seconds."""
    number, unit = (text[:-1], text[-1:].lower()) if text[-1:].isalpha() else (text, "s")
    if not (number.isascii() and number.isdigit()) or len(number) > 7 or unit not in _UNITS_S:
        raise ClientFault(f"{where}: {text[:20]!r} is no span of time like 90m, 24h or 2d", param=where)
    return min(int(number) * _UNITS_S[unit], _LONGEST_DEFER_S)


def _short(text: str, where: str) -> str:
    if not text.isprintable():
        raise ClientFault(f"{where} holds what is no text", param=where)
    if len(text) > 256:
        raise ClientFault(f"{where} is longer than 256 characters", param=where)
    return text


def _tags(text: str) -> tuple[tuple[str, str], ...]:
    if not text:
        return ()
    if not text.isprintable():
        raise ClientFault("x-farthing-tags holds what is no text", param="x-farthing-tags")
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    if len(pairs) > 16 or any(not eq or not name or len(name) + len(value) > 256 for name, eq, value in pairs):
        raise ClientFault(
            "x-farthing-tags must look like team=search,feature=faq (at most 16)", param="x-farthing-tags"
        )
    return tuple(sorted((name.strip(), value.strip()) for name, _, value in pairs))


class Body(NamedTuple):
    """A JSON body, understood. `payload`: for reading. `exact`: the same value with every number exact, for the key;
    None where the body can't have a canonical form (`problem` says why), so that it must not be cached.
    `plain`: `is_plain(payload)`."""

    payload: dict[str, Any]
    exact: dict[str, Any] | None
    problem: str = ""
    plain: bool = False


_LISTS = ("messages", "input")
_GAPS = b" \t\n\r"


def is_plain(payload: dict[str, Any]) -> bool:
    """Whether all that is said in it is messages of exactly a role and a text, none of them a tool's.

    Most requests are like that, and then nobody need look into each message for parts, references or results.
    """
    for name in _LISTS:
        turns = payload.get(name)
        if turns is None or type(turns) is str:
            continue
        if type(turns) is not list:
            return False
        for turn in turns:
            if type(turn) is not dict or len(turn) != 2 or type(turn.get("content")) is not str:
                return False
            if type(role := turn.get("role")) is not str or role not in _SPEAKERS:
                return False
    return True


_SPEAKERS = frozenset({"system", "developer", "user", "assistant"})


def read_body(body: bytes) -> Body | str:
    """The body understood, or the reason why it isn't: then it is passed through as it came.

    Most clients send numbers in shortest form. Where encoding the decoded value again gives the same bytes, but for
    white space, no key was doubled and no number lost a digit, and the fast decoder's value is exact: what is left of a
    valid text without its white space, within strings too, is valid still, and has the same tokens but for strings.
    """
    try:
        payload = orjson.loads(body)
    except ValueError:
        return _read_slowly(body)
    if not isinstance(payload, dict):
        return "body is not a JSON object"
    plain = is_plain(payload)
    if not (plain and _is_flat(payload)) and body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper(payload):
        return Body(payload, None, _TOO_DEEP)
    again = orjson.dumps(payload)
    if again == body or again.translate(None, _GAPS) == body.translate(None, _GAPS):
        return Body(payload, payload, plain=plain)
    if too_deep(body):  # by what a name that comes twice hid
        return Body(payload, None, _TOO_DEEP)
    exact = _exact(body)
    return Body(payload, None, exact) if isinstance(exact, str) else Body(payload, exact, plain=plain)


def _is_flat(payload: dict[str, Any]) -> bool:
    """Whether nothing in it holds anything, but what `is_plain` has looked at."""
    for name, value in payload.items():
        if (type(value) is dict or type(value) is list) and name not in _LISTS:
            return False
    return True


def _deeper(payload: dict[str, Any]) -> bool:
    """Whether the value is nested more than `MAX_DEPTH` deep. Where hundreds of messages have as many brackets and
    three levels, the text would take far longer to look through."""
    level: list[Any] = [payload]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for one in level
            for child in (one.values() if type(one) is dict else one)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


def named_twice(body: bytes) -> bool:
    """Whether an object names its model more than once, so that it depends on the reader which one is asked for; or is
    nested so deep that we can't tell."""
    try:
        return sum(member.key == "model" for member in members(body)) > 1
    except ValueError:
        return True


def _read_slowly(body: bytes) -> Body | str:
    """What the fast decoder refuses may still be JSON: a number beyond a double's range, say."""
    exact = _exact(body, sure=False)
    if isinstance(exact, str):
        return "body is not JSON" if exact == _NOT_JSON else exact
    if too_deep(body):
        return _TOO_DEEP
    return Body(exact, exact) if isinstance(exact, dict) else "body is not a JSON object"


_NOT_JSON = "body has no canonical form"
_TOO_DEEP = "body is nested too deeply"


def _exact(body: bytes, *, sure: bool = True) -> Any:
    """The value with exact numbers, or (a string) why it has none. `sure`: the fast decoder has read its strings."""
    try:
        value = json.loads(
            body.decode(),  # from bytes it would guess at UTF-16, which nothing else here reads
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=Decimal,
            parse_constant=_no_constant,
        )
        if not sure:
            json.dumps(value, ensure_ascii=False, default=str).encode()  # a lone surrogate can't be written down
        return value
    except (ValueError, RecursionError, ArithmeticError) as error:
        return str(error) if isinstance(error, _BadJSON) else _NOT_JSON


class _BadJSON(ValueError):
    """JSON that parses but whose meaning depends on the parser."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise _BadJSON("duplicate keys")
    return table


def _integer(text: str) -> int | Decimal:
    return int(text) if len(text) < 19 else Decimal(text)


def _no_constant(name: str) -> Any:
    raise _BadJSON(f"{name} is not JSON")


def host_of(url: str) -> str:
    """The host (and port) of a URL, without credentials; for logs and records."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
