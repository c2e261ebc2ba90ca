"""Tidy: JSON white space inside tool results. Lossless, since the model reads the same value. Pure.

Rules of this file:
1. Only a tool's result is touched: text that a program wrote for the model to read. What people and models wrote,
   arguments of calls, schemas and system prompts stay as they are.
2. Each result is decided alone, from itself only, so the earlier turns of a growing conversation keep the same bytes
   and the provider's own prompt cache keeps matching.
3. Nothing at or before the client's own cache breakpoint (`cache_control`) is touched: there, bytes are money.
4. In the body only the string literals that change are replaced. A literal that doesn't decode to the string that the
   payload holds means that body and payload disagree: then nothing at all is changed.

Sources: OpenAI API reference (chat: messages with role tool or function; responses: function_call_output),
Anthropic API reference (messages: tool_result; prompt caching: prefixes in the order tools, system, messages, and the
top-level `cache_control`, which puts a breakpoint on the last block).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from farthing.proxy.jsontext import element_spans, has_gaps, members, minify, splice

__all__ = ["Result", "Tidied", "results", "tidied_text", "tidy"]

Path = tuple[str | int, ...]
Span = tuple[int, int]

_LIST = {"chat": "messages", "messages": "messages", "responses": "input"}
_NOWHERE = (-1, -1)


class Result(NamedTuple):
    """A text of a tool's result: its path in the payload, and whether a cache breakpoint keeps it as it is."""

    path: Path
    text: str
    frozen: bool


@dataclass(frozen=True, slots=True)
class Tidied:
    """`chars_saved`: characters of the decoded strings. `spans`: of the replaced literals in the original body."""

    body: bytes
    edits: int = 0
    chars_saved: int = 0
    spans: tuple[Span, ...] = ()


def tidy(endpoint: str, payload: dict[str, Any], body: bytes) -> Tidied:
    """The body with the JSON in its tool results made compact; the same object where there is nothing to do.

    `payload`: the body decoded. Idempotent; never raises for a body that a JSON decoder takes. Cost: about a
    microsecond where there are no tool results; else linear in the body.
    """
    short: dict[Path, tuple[str, str]] = {}
    for result in results(endpoint, payload):
        if not result.frozen and (text := tidied_text(result.text)) is not None:
            short[result.path] = (result.text, text)
    if not short:
        return Tidied(body)
    edits: list[tuple[int, int, bytes]] = []
    try:
        places = _places(body, list(short))
        for path, (before, after) in short.items():
            start, end = places[path]
            literal = body[start:end]
            if json.loads(literal) != before:
                return Tidied(body)
            edits.append((start, end, _literal(after, raw=not literal.isascii())))
    except (ValueError, KeyError):
        return Tidied(body)
    return Tidied(
        splice(body, edits),
        len(edits),
        sum(len(before) - len(after) for before, after in short.values()),
        tuple((start, end) for start, end, _ in edits),
    )


def tidied_text(text: str) -> str | None:
    """The compact form of a text that is one JSON object or array with white space to spare; else None."""
    if text.lstrip(" \t\r\n")[:1] not in ("{", "[") or not has_gaps(text):
        return None
    return minify(text)


def results(endpoint: str, payload: dict[str, Any]) -> Iterator[Result]:
    """The texts of tool results in the order of the request."""
    field = _LIST.get(endpoint)
    turns = payload.get(field) if field else None
    if not isinstance(turns, list) or field is None:
        return
    frozen: tuple[int, int] | None = None
    for i, turn in enumerate(turns):
        if not isinstance(turn, dict):
            continue
        found: Iterable[tuple[Path, str]]
        if endpoint == "messages":
            found = _anthropic(turn) if turn.get("role") == "user" else ()
        elif endpoint == "chat":
            found = _texts("content", turn.get("content")) if turn.get("role") in ("tool", "function") else ()
        else:
            is_result = turn.get("type") == "function_call_output"
            output = turn.get("output") if is_result else None
            found = _texts("output", output) if isinstance(output, str) else ()
        for path, text in found:
            if frozen is None:
                frozen = _breakpoint(payload, turns)
            block = path[1] if len(path) > 1 else 0
            yield Result((field, i, *path), text, (i, block) <= frozen)


def _anthropic(turn: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    content = turn.get("content")
    if isinstance(content, list):
        for i, block in enumerate(content):
            if isinstance(block, dict) and block.get("type") == "tool_result":
                for path, text in _texts("content", block.get("content")):
                    yield ("content", i, *path), text


def _texts(name: str, content: Any) -> Iterator[tuple[Path, str]]:
    """A content's own text, or those of its parts of type text."""
    if isinstance(content, str):
        yield (name,), content
    elif isinstance(content, list):
        for i, part in enumerate(content):
            if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
                yield (name, i, "text"), part["text"]


def _breakpoint(payload: dict[str, Any], turns: list[Any]) -> tuple[int, int]:
    """(turn, block) of the last cache breakpoint; before the first turn where there is none among the turns."""
    if payload.get("cache_control") is not None:
        return len(turns), 0
    for i in range(len(turns) - 1, -1, -1):
        turn = turns[i]
        if not isinstance(turn, dict):
            continue
        content = turn.get("content")
        blocks = content if isinstance(content, list) else []
        calls = turn.get("tool_calls")
        if turn.get("cache_control") is not None or (isinstance(calls, list) and any(map(_marked, calls))):
            return i, len(blocks)
        for j in range(len(blocks) - 1, -1, -1):
            if _marked(blocks[j]):
                return i, j
    return _NOWHERE


def _marked(block: Any) -> bool:
    """Whether a block, or a part inside it, carries a breakpoint."""
    if not isinstance(block, dict):
        return False
    inner = block.get("content")
    return block.get("cache_control") is not None or (isinstance(inner, list) and any(map(_marked, inner)))


def _places(body: bytes, paths: list[Path], depth: int = 0, start: int = 0) -> dict[Path, Span]:
    """The spans in `body` of the values at `paths`, which share their first `depth` steps, in one pass.

    Raises ValueError or KeyError: body and payload disagree.
    """
    groups: dict[str | int, list[Path]] = {}
    for path in paths:
        groups.setdefault(path[depth], []).append(path)
    spans: dict[str | int, Span]
    if isinstance(paths[0][depth], int):
        spans = dict(enumerate(element_spans(body, (start, len(body)))))
    else:
        spans = {member.key: (member.start, member.end) for member in members(body, start)}
    places: dict[Path, Span] = {}
    for step, group in groups.items():
        if len(group[0]) == depth + 1:
            places[group[0]] = spans[step]
        else:
            places |= _places(body, group, depth + 1, spans[step][0])
    return places


def _literal(text: str, *, raw: bool) -> bytes:
    """`text` as a JSON string; `raw`: other characters than ASCII as they are, else escaped."""
    return orjson.dumps(text) if raw or text.isascii() else json.dumps(text).encode()
