"""What is asked about a text: the words by which squeeze tells what matters in it. Pure.

It depends on what stands before the text, and on the message that holds it, only: so a growing conversation asks the
same about an old text ever after.
"""

from __future__ import annotations

from typing import Any

from farthing.compress.places import Place, turns_of

__all__ = ["asked_about"]

_MOST_CHARS = 8_000
_CALLS = ("function_call", "custom_tool_call")


def asked_about(endpoint: str, payload: dict[str, Any], place: Place) -> str:
    """The latest words of a user up to the place, and, for a tool's result, how the tool was called.

    Of the message that holds the place itself only what is outside of it counts. At most 8,000 characters.
    """
    turns = turns_of(endpoint, payload)
    parts = [_asked(turns, place)]
    if place.kind == "tool":
        parts.append(_call(endpoint, turns, place))
    return "\n".join(filter(None, parts))[:_MOST_CHARS]


def _asked(turns: list[Any], place: Place) -> str:
    for i in range(min(place.turn, len(turns) - 1), -1, -1):
        turn = turns[i]
        if not isinstance(turn, dict) or turn.get("role") != "user":
            continue
        said = _said(turn, place if i == place.turn else None)
        if said.strip():
            return said
    return ""


def _said(turn: dict[str, Any], place: Place | None) -> str:
    """The words of a user's message; without what stands in the place."""
    content = turn.get("content")
    if isinstance(content, str):
        return content if place is None else f"{content[: place.start]}\n{content[place.end :]}"
    words = []
    for i, part in enumerate(content if isinstance(content, list) else ()):
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            continue
        if place is not None and place.path[2:] == ("content", i, "text"):
            text = f"{text[: place.start]}\n{text[place.end :]}"
        words.append(text)
    return "\n".join(words)


def _call(endpoint: str, turns: list[Any], place: Place) -> str:
    """Name and arguments of the call whose result this is."""
    turn = turns[place.turn] if place.turn < len(turns) else None
    if not isinstance(turn, dict):
        return ""
    wanted = _call_id(endpoint, turn, place)
    if not isinstance(wanted, str):
        return ""
    for earlier in reversed(turns[: place.turn]):
        for call in _calls(endpoint, earlier):
            if call.get("id") == wanted or call.get("call_id") == wanted:
                function = call.get("function")
                inner = function if isinstance(function, dict) else call
                given = inner.get("arguments", inner.get("input", ""))
                return f"{inner.get('name', '')} {given}"
    return ""


def _call_id(endpoint: str, turn: dict[str, Any], place: Place) -> Any:
    if endpoint == "chat":
        return turn.get("tool_call_id")
    if endpoint == "responses":
        return turn.get("call_id")
    content, number = turn.get("content"), place.path[3] if len(place.path) > 3 else 0
    if isinstance(content, list) and isinstance(number, int) and number < len(content):
        block = content[number]
        return block.get("tool_use_id") if isinstance(block, dict) else None
    return None


def _calls(endpoint: str, turn: Any) -> list[dict[str, Any]]:
    if not isinstance(turn, dict):
        return []
    if endpoint == "chat":
        calls = turn.get("tool_calls")
    elif endpoint == "responses":
        calls = [turn] if turn.get("type") in _CALLS else []
    else:
        calls = turn.get("content") if turn.get("role") == "assistant" else []
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
