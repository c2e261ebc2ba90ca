"""The tool that gives back what was left out: how it is defined, and in which conversations it is offered. Pure.

Rules of this file:
1. It is offered from a conversation's first request or never: a provider's prompt cache begins with the tools.
2. Its definition is always the same bytes, behind the client's own tools.
3. Where it couldn't be called, or a call of it couldn't be answered unseen, it isn't there, and then no marker is.

Sources: OpenAI API reference (chat: tools, tool_choice, n), Anthropic API reference (messages: tools, tool_choice,
extended thinking).
"""

from __future__ import annotations

from typing import Any

import orjson

from farthing.compress.decided import Decision, by_model, chain
from farthing.compress.decided_store import Decisions
from farthing.compress.marker import TOOL
from farthing.compress.places import turns_of
from farthing.proxy.errors import StoreFault
from farthing.proxy.jsontext import element_spans, find, insert_member, splice

__all__ = ["FROM_CHAR", "HANDLE", "TOOL_TOKENS", "is_offered", "offer_keys", "unfit_for_tool", "with_tool"]

HANDLE, FROM_CHAR = "handle", "from_char"
_SAYS = (
    "Gives back text that was left out to save space. Where something was left out, a note says so and names a handle. "
    "Call this only if the answer needs that text."
)
_TAKES = {
    "type": "object",
    "properties": {
        HANDLE: {"type": "string", "description": "as the note names it"},
        FROM_CHAR: {"type": "integer", "description": "where to begin in a text that is given in parts"},
    },
    "required": [HANDLE],
}
_DEFINITIONS = {
    "chat": orjson.dumps({"type": "function", "function": {"name": TOOL, "description": _SAYS, "parameters": _TAKES}}),
    "messages": orjson.dumps({"name": TOOL, "description": _SAYS, "input_schema": _TAKES}),
}
_OFFERED, _WITHOUT = Decision(rules=("tool",)), Decision(rules=("no tool",))
# Requests that take no tools, or answers that aren't turns of a conversation.
_AGAINST = ("functions", "prediction", "audio")


TOOL_TOKENS = 78
"""Of its definition, by gpt-4o-mini's tokenizer."""


def unfit_for_tool(endpoint: str, payload: dict[str, Any]) -> str:
    """Why this request can't have the tool; '' where it can."""
    if endpoint not in _DEFINITIONS:
        return "the endpoint's tools aren't known here"
    if payload.get("n") not in (None, 1):
        return "more than one answer is asked for"
    tools = payload.get("tools")
    if tools is not None and not isinstance(tools, list):
        return "its tools can't be read"
    if any(_name(tool) == TOOL for tool in tools or ()):
        return "the client has a tool of that name"
    choice = payload.get("tool_choice")
    if (choice.get("type") if isinstance(choice, dict) else choice) not in (None, "auto"):
        return "the client says which tools are called"
    if not tools and payload.get("response_format") is not None:
        return "the answer's form is given"  # some providers take tools or a form, but not both
    if any(payload.get(name) is not None for name in _AGAINST):
        return "it goes by other rules than tools"
    thinking = payload.get("thinking")
    if endpoint == "messages" and isinstance(thinking, dict) and thinking.get("type") != "disabled":
        return "thinking is signed, and belongs to its own turn"
    return ""


def with_tool(endpoint: str, body: bytes) -> bytes:
    """The body with the tool behind the client's own, every other byte as it was.

    Raises ValueError for a body that `unfit_for_tool` refuses.
    """
    definition = _DEFINITIONS[endpoint]
    span = find(body, ("tools",))
    if span is None:
        return insert_member(body, "tools", b"[" + definition + b"]")
    start, end = span
    if body[start:end] == b"null":
        return splice(body, [(start, end, b"[" + definition + b"]")])
    comma = b"," if element_spans(body, span) else b""
    return splice(body, [(end - 1, end - 1, comma + definition)])


def offer_keys(tenant: str, endpoint: str, payload: dict[str, Any], before: Any) -> tuple[bytes | None, bytes | None]:
    """Under which keys it is kept whether a conversation has the tool: one of its beginning, up to the first answer,
    and one of the beginning with that answer, None while there is none. Both None: it can't be known again."""
    turns = turns_of(endpoint, payload)
    first = next((i for i, turn in enumerate(turns) if by_model(endpoint, turn)), None)
    if not turns or first == 0:
        return None, None
    known = turns if first is None else turns[: first + 1]
    keys = chain(tenant, "tool", known, before)
    if len(keys) < len(known):
        return None, None
    return (keys[-1], None) if first is None else (keys[-2], keys[-1])


async def is_offered(store: Decisions, keys: tuple[bytes | None, bytes | None], *, wanted: bool, unfit: bool) -> bool:
    """Whether the conversation has the tool; decided now where it has no answer yet. Never raises.

    `wanted`: it may begin now. `unfit`: this request can't have it; a conversation that begins so never has it.
    What isn't known of a conversation that goes on is lost: it goes on without.
    """
    beginning, answered = keys
    if beginning is None:
        return False
    asked = [beginning] if answered is None else [answered, beginning]
    found = await store.get_many(asked)
    kept = next((decision for decision in found.decisions if decision is not None), None)
    if found.away:
        return kept == _OFFERED
    if answered is None:
        if kept is not None or not (wanted or unfit):
            return kept == _OFFERED
        key, decision = beginning, _WITHOUT if unfit else _OFFERED
    else:
        if found.decisions[0] is not None:
            return found.decisions[0] == _OFFERED
        key, decision = answered, kept or _WITHOUT
    try:
        return (await store.put_many([(key, decision)]))[0] == _OFFERED
    except StoreFault:
        return False


def _name(tool: Any) -> Any:
    """A tool's name, of a chat completion's or of Anthropic's."""
    if not isinstance(tool, dict):
        return None
    function = tool.get("function")
    return (function if isinstance(function, dict) else tool).get("name")
