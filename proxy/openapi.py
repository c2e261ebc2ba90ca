"""farthing's own calls, and the proxied ones that it understands, as an OpenAPI 3.1 document.

Rules of this file: it says what is asked and which statuses come back; answers are told as far as others may rely on
them. A call that isn't listed here fails a test (tests/security/test_openapi.py). Proxied bodies are the upstream's
business, so they are any JSON. Source: OpenAPI Specification 3.1.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["document"]

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": 1000}
_SPAN: Schema = {"type": "string", "description": "a span of time (90m, 24h, 7d) or a date", "maxLength": 100}
_BUCKETS: Schema = {"type": "integer", "minimum": 1, "maximum": 500}
_WHY: Schema = {"type": "string", "maxLength": 200}
_YES: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 100_000}
_ANYTHING: Schema = {"type": "object"}
_ERROR = {"$ref": "#/components/schemas/Error"}
_SPANNED = {"since": _SPAN, "until": _SPAN}


def document(version: str) -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, Any] = {}
    for part in (_open(), _asked(), _changes(), _deferred(), _proxied()):
        for path, methods in part.items():
            paths[path] = paths.get(path, {}) | methods
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "farthing",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": (
                "Paths of the OpenAI API (and Anthropic's messages) are proxied; /farthing/api is the operator's. "
                "Without server.admin_token the operator's calls are for this machine alone."
            ),
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _error()},
            "securitySchemes": {
                "admin": {"type": "http", "scheme": "bearer"},
                "key": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _open() -> dict[str, Any]:
    health = _told("healthz", "Whether the process lives.", closed=False)
    ready = _told("readyz", "Whether all is well here; for the operator, also what is on.", closed=False)
    told = {"status": {"enum": ["ready", "degraded"]}, "degraded": {"type": "array", "items": {"type": "string"}}}
    schema = {"type": "object", "properties": told, "required": list(told)}
    ready["get"]["responses"]["200"]["content"] = {"application/json": {"schema": schema}}
    metrics = _told("metrics", "Prometheus metrics.")
    metrics["get"]["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return {"/healthz": health, "/readyz": ready, "/metrics": metrics}


def _asked() -> dict[str, Any]:
    page = {"limit": _COUNT, "before": {"type": "string", "maxLength": 200, "description": "`next` of the page before"}}
    filters = {name: {"type": "string", "maxLength": 256} for name in ("model", "cache", "answer", "tag", "endpoint")}
    filters |= {"text": {"type": "string", "maxLength": 256}, "failed": {"enum": ["", "1", "true"]}}
    by = {"by": {"type": "string", "maxLength": 200, "description": "groups, with commas between them"}}
    calls: Mapping[str, tuple[str, Mapping[str, Schema]]] = {
        "budgets": ("Each budget: its limit, what is spent and held.", {}),
        "capture": ("What the capture store holds.", {}),
        "compress": ("What compression does, by route and method.", {}),
        "experiments": ("Experiments and hold-outs, with their verdicts.", {}),
        "feedback": ("Each metric over a span, and the latest words.", {"since": _SPAN}),
        "gates": ("What gates said last.", {}),
        "health": ("What is wrong now.", {}),
        "incidents": ("The latest incidents, newest first.", {"limit": _COUNT}),
        "keys": ("Virtual keys, without their secrets.", {}),
        "levels": ("Service levels: targets, error budgets, burn rates.", {}),
        "names": ("Models, tags, tenants and users of a span.", _SPANNED),
        "openapi.json": ("This document.", {}),
        "policy": ("The version in force, the candidate, the ones before.", {}),
        "repeated": ("Prompts that came most often.", {**_SPANNED, "limit": _COUNT}),
        "replicas": ("The upstream's replicas and keys.", {}),
        "requests": ("Requests, newest first, a page at a time.", {**_SPANNED, **page, **filters}),
        "routes": ("What routes and their variants did.", _SPANNED),
        "semantic": ("What is proved of near-duplicates, by route.", {}),
        "semantic/lately": ("The latest candidates.", {"kind": _TEXT, "route": {"type": "string", "maxLength": 300}}),
        "series": (
            "Figures in slices of time.",
            {**_SPANNED, "buckets": {"type": "integer", "minimum": 1, "maximum": 500}},
        ),
        "students": ("Students: who serves, their checks, what comes after them.", {}),
        "summary": ("Figures of a span, by groups.", {**_SPANNED, **by}),
        "tradeoff": ("Cost, latency and quality of each way, and the Pareto front.", {**_SPANNED, **by}),
        "watch": ("What is watched, and what drifts.", {}),
    }
    found = {f"/farthing/api/{name}": _told(name, what, query) for name, (what, query) in calls.items()}
    found["/farthing/api/requests/{id}"] = _told("request", "One request's row.", path=("id",), more=(404,))
    return found


def _changes() -> dict[str, Any]:
    selector = dict.fromkeys(("key", "model", "tenant", "scope", "source"), _TEXT) | {"older_than": _SPAN}
    tags = {
        "type": "array",
        "items": {"type": "string", "pattern": "^[a-z]+=[a-z0-9-]+$"},
        "minItems": 1,
        "maxItems": 8,
    }
    outcome = {
        "id": _TEXT,
        "metric": _TEXT,
        "value": {"type": "number", "minimum": -1e9, "maximum": 1e9},
        "rating": {"enum": ["good", "bad"]},
        "comment": {"type": "string", "maxLength": 1000},
        "at": {"type": "number", "minimum": 0, "maximum": 4e9},
    }
    call = {"path": _TEXT, "body": _ANYTHING, "headers": {"type": "object", "additionalProperties": {"type": "string"}}}
    roll_out = {
        "version": _TEXT,
        "sections": _ANYTHING,
        "now": _YES,
        "note": _WHY,
        "gate": _WHY,
        "steps": {"type": "array", "items": {"type": "number"}, "maxItems": 10},
        "hold_s": {"type": "number"},
        "min_requests": {"type": "integer"},
        "unit": {"enum": ["user", "tenant", "session", "request"]},
    }
    changes: Mapping[str, tuple[str, Schema, Sequence[str]]] = {
        "cache/explain": ("Why a request would hit or miss; nothing is learnt.", call, ("body",)),
        "cache/purge": (
            "Remove answers: all that is named must be met, and {} is everything.",
            selector | {"tags": tags},
            (),
        ),
        "cache/stats": ("How much the exact cache holds.", {}, ()),
        "capture/erase": ("Remove captures.", {"user": _TEXT, "tenant": _TEXT, "older_than": _SPAN}, ()),
        "erase": (
            "Forget a user everywhere, and look again.",
            {"user": _TEXT, "texts": _YES},
            ("user",),
        ),
        "experiments/stop": (
            "Stop an experiment.",
            {"name": _TEXT, "why": _WHY},
            ("name",),
        ),
        "feedback": ("Say how an answer was, or `items` of many.", outcome, ("id",)),
        "policy/off": ("Turn all optimisation off.", {}, ()),
        "policy/on": ("Turn it on again.", {}, ()),
        "policy/promote": ("Roll a version out.", roll_out, ()),
        "policy/rollback": (
            "Go back to a version.",
            {"version": _TEXT, "why": _WHY},
            (),
        ),
        "replicas/drain": (
            "Send a replica nothing new.",
            {"replica": _TEXT, "drain": _YES},
            ("replica",),
        ),
        "watch/rebase": ("Learn references anew.", {"series": _TEXT, "slice": _TEXT}, ()),
    }
    found: dict[str, Any] = {}
    for name, (what, fields, required) in changes.items():
        found[f"/farthing/api/{name}"] = _change(name, what, fields, required)
    return found


def _deferred() -> dict[str, Any]:
    """The client's own, by its own credential."""
    own: dict[str, Any] = {"security": [{"key": []}]}
    listed = {"get": _operation("deferredList", "The client's deferred requests.", (200, 401, 403, 404, 503)) | own}
    one = {
        "get": _operation("deferredStatus", "How one stands.", (200, 401, 403, 404, 503), ("id",)) | own,
        "delete": _operation("deferredDelete", "Cancel it.", (200, 401, 403, 404, 503), ("id",)) | own,
    }
    cancel = {"post": _operation("deferredCancel", "Cancel it.", (200, 401, 403, 404, 503), ("id",)) | own}
    result = _operation("deferredResult", "Its answer.", (200, 202, 401, 403, 404, 410, 503), ("id",)) | own
    place = "/farthing/api/deferred"
    return {
        place: listed,
        f"{place}/{{id}}": one,
        f"{place}/{{id}}/cancel": cancel,
        f"{place}/{{id}}/result": {"get": result},
    }


def _proxied() -> dict[str, Any]:
    calls = {
        "chat/completions": "OpenAI chat completions.",
        "completions": "OpenAI completions.",
        "embeddings": "OpenAI embeddings, cached input by input.",
        "messages": "Anthropic messages.",
        "responses": "OpenAI responses.",
    }
    found = {}
    for name, what in calls.items():
        asked = _operation(f"proxied_{name}".replace("/", "_"), what, ()) | {"security": [{"key": []}]}
        asked["responses"] = {
            "default": {"description": "the upstream's answer, or a stored one; see x-farthing-cache"}
        }
        asked["requestBody"] = _body({"model": _TEXT, "stream": _YES}, ("model",))
        found[f"/v1/{name}"] = {"post": asked}
    return found


def _told(
    name: str,
    what: str,
    query: Mapping[str, Schema] | None = None,
    *,
    path: Sequence[str] = (),
    more: Sequence[int] = (),
    closed: bool = True,
) -> dict[str, Any]:
    statuses = (200, *((400, 401, 403, 503) if closed else ()), *more)
    call = _operation(f"get_{name}", what, statuses, path, query or {})
    return {"get": call | {"security": [{"admin": []}] if closed else []}}


def _change(name: str, what: str, fields: Schema, required: Sequence[str]) -> dict[str, Any]:
    call = _operation(f"post_{name}", what, (200, 400, 401, 403, 404, 409, 503))
    header = {"name": "x-farthing-admin", "in": "header", "required": True, "schema": {"const": "1", "type": "string"}}
    call["parameters"].append(header)
    call["requestBody"] = _body(fields, required)
    return {"post": call | {"security": [{"admin": []}]}}


def _operation(
    name: str, what: str, statuses: Sequence[int], path: Sequence[str] = (), query: Mapping[str, Schema] | None = None
) -> dict[str, Any]:
    parameters = [{"name": one, "in": "path", "required": True, "schema": _TEXT} for one in path]
    parameters += [{"name": one, "in": "query", "schema": schema} for one, schema in (query or {}).items()]
    return {
        "operationId": name.replace("/", "_").replace(".", "_"),
        "summary": what,
        "parameters": parameters,
        "responses": {str(status): _response(status) for status in statuses},
    }


def _response(status: int) -> dict[str, Any]:
    schema = _ANYTHING if status < 400 else _ERROR
    word = "the answer" if status < 300 else "why not"
    return {"description": word, "content": {"application/json": {"schema": schema}}}


def _body(fields: Schema, required: Sequence[str]) -> dict[str, Any]:
    schema: Schema = {"type": "object", "properties": fields}
    if required:
        schema["required"] = list(required)
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _error() -> Schema:
    """OpenAI's shape."""
    texts = {"message": {"type": "string"}, "type": {"type": "string"}}
    nullable = {name: {"type": ["string", "null"]} for name in ("param", "code")}
    inner = {"type": "object", "properties": texts | nullable, "required": ["message", "type"]}
    return {"type": "object", "properties": {"error": inner}, "required": ["error"]}
