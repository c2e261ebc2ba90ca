"""Where compression may touch a request: texts that programs wrote for the model to read, and nothing else. Pure.

Rules of this file:
1. A place is a text of a tool's result, of a search result or document that the API marks as one, or what stands
   between marks that the operator names. What people and models wrote, arguments of calls, schemas, ids, signatures and
   thinking stay as they are.
2. A document that is cited is never a place: its citations are offsets into it (Anthropic API reference, citations).
3. What stands at or before the client's own cache breakpoint (`cache_control`) is frozen: there, bytes are money.

Sources: OpenAI API reference (chat: messages with role tool or function; responses: function_call_output,
custom_tool_call_output), Anthropic API reference (messages: tool_result, search_result, document; prompt caching:
prefixes in the order tools, system, messages, and the top-level `cache_control`, a breakpoint on the last block).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

__all__ = ["Kind", "Marks", "Path", "Place", "places", "turns_of", "up_to"]

Path = tuple[str | int, ...]
Kind = Literal["tool", "retrieval"]

_LIST = {"chat": "messages", "messages": "messages", "responses": "input"}
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_TEXT_PARTS = ("text", "input_text")
_NOWHERE = (-1, -1)


class Marks(NamedTuple):
    """What stands between `begin` and the next `end` in messages of these roles is retrieved content."""

    begin: str
    end: str
    roles: tuple[str, ...] = ("user",)


class Place(NamedTuple):
    """A text that may be touched: `string[start:end]` of the string at `path`. `turn`: which one of the list's.

    `frozen`: a cache breakpoint keeps it as it is.
    """

    path: Path
    start: int
    end: int
    text: str
    turn: int
    kind: Kind
    frozen: bool


class _Found(NamedTuple):
    path: Path
    text: str
    kind: Kind
    start: int = 0


def turns_of(endpoint: str, payload: dict[str, Any]) -> list[Any]:
    """The conversation: its turns in their order; empty where the endpoint has none, or no list."""
    turns = payload.get(_LIST.get(endpoint, ""))
    return turns if isinstance(turns, list) else []


def up_to(endpoint: str, payload: dict[str, Any], turn: int) -> dict[str, Any]:
    """The request with nothing but the turns before this one."""
    return payload | {_LIST.get(endpoint, ""): turns_of(endpoint, payload)[:turn]}


def places(endpoint: str, payload: dict[str, Any], marks: Sequence[Marks] = ()) -> Iterator[Place]:
    """The places in the order of the request."""
    field, turns = _LIST.get(endpoint, ""), turns_of(endpoint, payload)
    frozen: tuple[int, int] | None = None
    for i, turn in enumerate(turns):
        if not isinstance(turn, dict):
            continue
        for found in _in_turn(endpoint, turn, marks):
            if frozen is None:
                frozen = _breakpoint(payload, turns)
            block = found.path[1] if len(found.path) > 1 else 0
            end = found.start + len(found.text)
            yield Place((field, i, *found.path), found.start, end, found.text, i, found.kind, (i, block) <= frozen)


def _in_turn(endpoint: str, turn: dict[str, Any], marks: Sequence[Marks]) -> Iterator[_Found]:
    role = turn.get("role")
    if role == "assistant":
        return
    if endpoint == "messages":
        if role == "user":
            yield from _anthropic(turn)
    elif endpoint == "chat":
        if role in ("tool", "function"):
            yield from _texts("content", turn.get("content"), "tool")
    elif turn.get("type") in _OUTPUTS:
        yield from _texts("output", turn.get("output"), "tool")
    fitting = [mark for mark in marks if role in mark.roles]
    if fitting:
        for path, text, _, _ in _texts("content", turn.get("content"), "retrieval"):
            yield from _apart([found for mark in fitting for found in _between(mark, path, text)])


def _apart(found: list[_Found]) -> Iterator[_Found]:
    """In their order, without those that begin inside of an earlier one: of two that overlap one can be replaced."""
    at = 0
    for one in sorted(found, key=lambda one: one.start):
        if one.start >= at:
            yield one
            at = one.start + len(one.text)


def _between(mark: Marks, path: Path, text: str) -> Iterator[_Found]:
    """What stands between the marks; one that isn't closed opens nothing."""
    at = 0
    while (begin := text.find(mark.begin, at)) >= 0:
        begin += len(mark.begin)
        end = text.find(mark.end, begin)
        if end < 0:
            return
        if end > begin:
            yield _Found(path, text[begin:end], "retrieval", begin)
        at = end + len(mark.end)


def _anthropic(turn: dict[str, Any]) -> Iterator[_Found]:
    content = turn.get("content")
    for i, block in enumerate(content if isinstance(content, list) else ()):
        if not isinstance(block, dict):
            continue
        if block.get("type") == "tool_result":
            inner = block.get("content")
            for found in _texts("content", inner, "tool"):
                yield found._replace(path=("content", i, *found.path))
            for j, part in enumerate(inner if isinstance(inner, list) else ()):
                if isinstance(part, dict):
                    yield from _document(("content", i, "content", j), part)
        else:
            yield from _document(("content", i), block)


def _document(path: Path, block: dict[str, Any]) -> Iterator[_Found]:
    """The texts of a search result or a document that nothing cites."""
    cited = block.get("citations")
    if cited is not None and not (isinstance(cited, dict) and cited.get("enabled") is False):
        return
    if block.get("type") == "search_result":
        for found in _texts("content", block.get("content"), "retrieval"):
            yield found._replace(path=(*path, *found.path))
    elif block.get("type") == "document":
        source = block.get("source")
        if isinstance(source, dict) and source.get("type") == "text" and isinstance(source.get("data"), str):
            yield _Found((*path, "source", "data"), source["data"], "retrieval")


def _texts(name: str, content: Any, kind: Kind) -> Iterable[_Found]:
    """A content's own text, or those of its parts that are text."""
    if isinstance(content, str):
        yield _Found((name,), content, kind)
    elif isinstance(content, list):
        for i, part in enumerate(content):
            if isinstance(part, dict) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str):
                yield _Found((name, i, "text"), part["text"], kind)


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
