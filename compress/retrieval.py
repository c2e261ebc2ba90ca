"""A model's calls of the retrieval tool: found in an answer, answered, and kept from the client's sight. Pure.

Rules of this file:
1. The client never sees a call of ours: it has no such tool.
2. A client's own calls win: an answer that has both goes to the client without ours, and the model may ask again.
3. What the model is told of a handle is the piece, a part of it with a word on how to go on, or that there is nothing.

Sources: OpenAI API reference (chat: tool_calls, role tool), Anthropic API reference (messages: tool_use, tool_result).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from farthing.compress.marker import TOOL
from farthing.compress.offer import FROM_CHAR, HANDLE
from farthing.proxy.jsontext import element_spans, find, splice

__all__ = [
    "NOTHING",
    "NO_MORE",
    "Asked",
    "Spoken",
    "Wanted",
    "continued",
    "part",
    "read_answer",
    "shown",
    "summed",
    "wanted",
]

NOTHING = "Nothing is kept under this handle."
NO_MORE = "No more can be given for this answer. Answer with what there is, and say what is missing."
_NO_CALL = f'The arguments must be an object with "{HANDLE}", as the note names it.'
_NOT_SPOKEN = ("annotations", "audio", "refusal", "function_call")


class Asked(NamedTuple):
    """A call of ours. `given`: its arguments, as JSON text or decoded."""

    id: str
    given: Any


class Spoken(NamedTuple):
    """An answer. `turn`: as it stands in the conversation; `asked`: the calls of ours in it; `others`: it calls
    something of the client's too."""

    turn: dict[str, Any]
    asked: tuple[Asked, ...] = ()
    others: bool = False


class Wanted(NamedTuple):
    """What a call asks for. `refusal`: '' or why it can't be understood."""

    handle: str = ""
    from_char: int = 0
    refusal: str = ""


def read_answer(endpoint: str, value: dict[str, Any]) -> Spoken | None:
    """A whole answer; None where it isn't one that could be gone on from."""
    if endpoint == "messages":
        blocks = value.get("content")
        return spoken_blocks(blocks) if isinstance(blocks, list) else None
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
    message = choice.get("message") if isinstance(choice, dict) else None
    return spoken_message(message) if isinstance(message, dict) else None


def spoken_message(message: dict[str, Any]) -> Spoken:
    """A chat completion's message."""
    calls = message.get("tool_calls")
    calls = calls if isinstance(calls, list) else []
    own = [call for call in calls if is_own(call)]
    turn = {name: item for name, item in message.items() if item is not None and name not in _NOT_SPOKEN}
    asked = tuple(Asked(str(call.get("id", "")), call["function"].get("arguments")) for call in own)
    return Spoken({"content": None} | turn, asked, len(own) < len(calls))


def spoken_blocks(blocks: list[Any]) -> Spoken:
    """A message's content blocks. Empty texts are left out: they may come, but not be sent."""
    own = [block for block in blocks if is_own(block)]
    said = [block for block in blocks if not (isinstance(block, dict) and block.get("text") == "")]
    others = any(isinstance(block, dict) and block.get("type") == "tool_use" and not is_own(block) for block in blocks)
    asked = tuple(Asked(str(block.get("id", "")), block.get("input")) for block in own)
    return Spoken({"role": "assistant", "content": said}, asked, others)


def is_own(call: Any) -> bool:
    """Whether it calls our tool: a chat's tool call, or a block."""
    if not isinstance(call, dict):
        return False
    function = call.get("function")
    if isinstance(function, dict):
        return function.get("name") == TOOL
    return call.get("type") == "tool_use" and call.get("name") == TOOL


def wanted(asked: Asked) -> Wanted:
    """What the call asks for."""
    given = asked.given
    if isinstance(given, str):
        try:
            given = orjson.loads(given)
        except ValueError:
            given = None
    handle = given.get(HANDLE) if isinstance(given, dict) else None
    if not isinstance(handle, str):
        return Wanted(refusal=_NO_CALL)
    start = given.get(FROM_CHAR)
    return Wanted(handle.strip(), start if type(start) is int and start > 0 else 0)


def part(piece: str, from_char: int, most_chars: int) -> str:
    """As much of the piece from there as may be given, and how to have the rest."""
    from_char = min(from_char, len(piece))
    given = piece[from_char : from_char + most_chars]
    end = from_char + len(given)
    if end >= len(piece) and not from_char:
        return given
    more = f"; go on with {FROM_CHAR} {end}" if end < len(piece) else ""
    return f"{given}\n[characters {from_char} to {end} of {len(piece)}{more}]"


def continued(endpoint: str, body: bytes, spoken: Spoken, told: list[str]) -> bytes:
    """The request with the answer and what its calls were told behind its last turn; every other byte as it was.

    `told`: for each of `spoken.asked`. Raises ValueError: there is no list of turns.
    """
    turns: list[dict[str, Any]] = [spoken.turn]
    if endpoint == "messages":
        results = [
            {"type": "tool_result", "tool_use_id": asked.id, "content": text}
            for asked, text in zip(spoken.asked, told, strict=True)
        ]
        turns.append({"role": "user", "content": results})
    else:
        turns += [
            {"role": "tool", "tool_call_id": asked.id, "content": text}
            for asked, text in zip(spoken.asked, told, strict=True)
        ]
    span = find(body, ("messages",))
    if span is None:
        raise ValueError("no turns to go on from")
    comma = b"," if element_spans(body, span) else b""
    return splice(body, [(span[1] - 1, span[1] - 1, comma + b",".join(map(_dumps, turns)))])


def shown(endpoint: str, value: dict[str, Any], usage: dict[str, Any] | None) -> dict[str, Any]:
    """A whole answer as the client sees it: without our calls, with this usage; one that only called ours is at its
    end."""
    seen = dict(value)
    if usage is not None:
        seen["usage"] = usage
    if endpoint == "messages":
        blocks = [block for block in value.get("content") or () if not is_own(block)]
        seen["content"] = blocks
        calls = any(isinstance(block, dict) and block.get("type") == "tool_use" for block in blocks)
        if value.get("stop_reason") == "tool_use" and not calls:
            seen["stop_reason"] = "end_turn"
        return seen
    choices = value.get("choices")
    seen["choices"] = [_shown_choice(choice) for choice in choices] if isinstance(choices, list) else choices
    return seen


def _shown_choice(choice: Any) -> Any:
    if not isinstance(choice, dict):
        return choice
    message = choice.get("message")
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(calls, list) or not any(map(is_own, calls)):
        return choice
    rest = [call for call in calls if not is_own(call)]
    if rest:
        return choice | {"message": message | {"tool_calls": rest}}
    bare = {name: item for name, item in message.items() if name != "tool_calls"}
    if bare.get("content") is None:
        bare["content"] = ""
    return choice | {"message": bare, "finish_reason": "stop"}


def summed(usages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Usage objects of a provider added up, member by member; what is no number is the last one's. None for none."""
    total: dict[str, Any] | None = None
    for usage in usages:
        total = usage if total is None else _added(total, usage)
    return total


def _added(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    both = a | {name: item for name, item in b.items() if item is not None or name not in a}
    for name in a.keys() & b.keys():
        one, two = a[name], b[name]
        if isinstance(one, dict) and isinstance(two, dict):
            both[name] = _added(one, two)
        elif _is_number(one) and _is_number(two):
            both[name] = one + two
    return both


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # lone surrogates, in what a program wrote
        import json

        return json.dumps(value).encode()
