"""A stored answer as the bytes of a new one: in the shape asked for, with a new identity. Pure.

Rules of this file:
1. An answer is served as it was stored, but for `id` and `created` (nothing can refer to those of a chat or a
   completion, which are not kept by the API) and for usage that this client didn't ask for. Bytes are spliced.
2. Turning an answer into the other shape is reshape's.
3. What isn't complete and well-formed isn't stored: `is_complete_stream`, `is_complete_whole`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from farthing.cache.entry import Entry, Shape
from farthing.proxy.exchange import Endpoint
from farthing.proxy.jsontext import Member, members, splice
from farthing.proxy.sse import DONE, Event, events

__all__ = [
    "Template",
    "is_complete_stream",
    "is_complete_value",
    "is_complete_whole",
    "prepare",
    "with_identity",
    "without_usage",
]

_RENAMED = (Endpoint.CHAT, Endpoint.COMPLETIONS)
_NULL_USAGE = b',"usage":null'
# A quote inside a JSON string is escaped, so these bytes are a member; with plain members after it and then the end,
# it is one of the outermost object. The short way for nearly all events of a stream.
_NULL_USAGE_NEAR_END = re.compile(
    _NULL_USAGE + rb'(?=(?:,"[a-z_]++":(?:"[^"\\]*+"|[a-z0-9.]++))*+\}\Z)',
)


# -- identity


@dataclass(frozen=True, slots=True)
class Template:
    """An answer cut where its identity stands. `pieces`: the bytes, b'' at each place in `ids` and `stamps`."""

    pieces: tuple[bytes, ...]
    ids: tuple[int, ...] = ()
    stamps: tuple[int, ...] = ()

    def render(self, new_id: str, created: int) -> bytes:
        """The answer with that id and that time (seconds since the epoch). Cost: a join."""
        if len(self.pieces) == 1:
            return self.pieces[0]
        pieces = list(self.pieces)
        name, stamp = orjson.dumps(new_id), b"%d" % created
        for place in self.ids:
            pieces[place] = name
        for place in self.stamps:
            pieces[place] = stamp
        return b"".join(pieces)


def prepare(entry: Entry) -> Template:
    """The entry cut into pieces once, for many hits; in one piece where its endpoint's answers keep their id."""
    if entry.endpoint not in _RENAMED:
        return Template((entry.body,))
    return _template(entry.body, entry.shape)


def with_identity(body: bytes, shape: Shape, new_id: str, created: int) -> bytes:
    """The chat or completion with another top-level `id` and `created`, every other byte as it was.

    In a stream, every event that carries the stream's id is changed; any other is left alone.
    """
    return _template(body, shape).render(new_id, created)


def _template(body: bytes, shape: Shape) -> Template:
    slots: list[tuple[int, int, bool]] = []
    if shape == "whole":
        slots = _identity(body, None)
    else:
        stream_id: bytes | None = None
        begin, known = b"", [(0, 0, False)]
        for event in events(body):
            at = _place(body, event)
            if at < 0:
                continue
            if begin and event.data.startswith(begin):  # nearly all events of a stream begin alike
                found = known
            else:
                found = _identity(event.data, stream_id)
                if found and stream_id is None:
                    stream_id = next(event.data[start:end] for start, end, is_id in found if is_id)
                if len(found) == 2:
                    # One byte more, so that a number that goes on is not taken for the same.
                    begin, known = event.data[: found[-1][1] + 1], found
            slots += [(at + start, at + end, is_id) for start, end, is_id in found]
    pieces: list[bytes] = []
    ids: list[int] = []
    stamps: list[int] = []
    at = 0
    for start, end, is_id in slots:
        pieces += (body[at:start], b"")
        (ids if is_id else stamps).append(len(pieces) - 1)
        at = end
    pieces.append(body[at:])
    return Template(tuple(pieces), tuple(ids), tuple(stamps))


def _identity(text: bytes, wanted: bytes | None) -> list[tuple[int, int, bool]]:
    """Where `id` (True) and `created` (False) stand, in order; nothing where it has no id, or another than `wanted`."""
    table = _members(text)
    name = table.get("id")
    if name is None or text[name.start : name.start + 1] != b'"' or name.end - name.start <= 2:
        return []
    if wanted is not None and text[name.start : name.end] != wanted:
        return []
    slots = [(name.start, name.end, True)]
    stamp = table.get("created")
    if stamp is not None and text[stamp.start : stamp.end].isdigit():
        slots.append((stamp.start, stamp.end, False))
    return sorted(slots)


def _members(text: bytes) -> dict[str, Member]:
    """The top-level members; none where it isn't a well-formed object."""
    try:
        return {member.key: member for member in members(text)}
    except ValueError:
        return {}


def _place(stream: bytes, event: Event) -> int:
    """Where the event's data stand in the stream; -1 where they aren't in one piece."""
    return stream.find(event.data, event.start, event.end) if event.data.startswith(b"{") else -1


# -- usage


def without_usage(sse: bytes) -> bytes:
    """A chat or completion stream as a client gets it that didn't ask for usage.

    The event that carries nothing but usage goes, and so does `"usage": null` in all others. Source: OpenAI API
    reference, chat/create, `stream_options.include_usage`.
    """
    edits: list[tuple[int, int, bytes]] = []
    for event in events(sse):
        if b"usage" not in event.data:
            continue
        at = _place(sse, event)
        if at >= 0 and (null := _NULL_USAGE_NEAR_END.match(event.data, max(0, event.data.rfind(_NULL_USAGE)))):
            edits.append((at + null.start(), at + null.end(), b""))
            continue
        ordered = list(_members(event.data).values()) if at >= 0 else []
        table = {member.key: member for member in ordered}
        usage = table.get("usage")
        if usage is None:
            continue
        counted = event.data[usage.start : usage.end] != b"null"
        choices = table.get("choices")
        if counted and choices is not None and b"".join(event.data[choices.start : choices.end].split()) == b"[]":
            edits.append((event.start, event.end, b""))
        elif not counted:
            i = ordered.index(usage)
            start = ordered[i - 1].end if i else usage.key_start
            end = ordered[1].key_start if not i and len(ordered) > 1 else usage.end
            edits.append((at + start, at + end, b""))
    return splice(sse, edits) if edits else sse


# -- complete or not


def is_complete_stream(sse: bytes, endpoint: str) -> bool:
    """Whether the stream ended as its endpoint's streams end, every event is well-formed, and none is an error.

    Chat and completions: `[DONE]` comes last, and every choice has a finish reason. Responses: `response.completed`
    comes last, with that status. Messages: `message_stop` comes last, and a stop reason came before. Source: the API
    references of OpenAI (streaming events) and Anthropic (streaming messages).
    """
    last: dict[str, Any] = {}
    unfinished: dict[Any, bool] = {}
    stop_reason = None
    done = False
    for event in events(sse):
        if done or event.name == "error":
            return False
        if not event.data:
            continue
        if event.data == DONE:
            done = True
            continue
        value = _object(event.data)
        if value is None or value.get("error") is not None or value.get("type") == "error":
            return False
        if value.get("type") == "ping":
            continue
        last = value
        if endpoint in _RENAMED and not _note_choices(value.get("choices"), unfinished):
            return False
        if value.get("type") == "message_delta" and isinstance(delta := value.get("delta"), dict):
            stop_reason = delta.get("stop_reason") or stop_reason
    if endpoint in _RENAMED:
        return done and bool(unfinished) and not any(unfinished.values())
    if endpoint == Endpoint.RESPONSES:
        response = last.get("response")
        return (
            last.get("type") == "response.completed"
            and isinstance(response, dict)
            and response.get("status") == "completed"
            and response.get("error") is None
        )
    return endpoint == Endpoint.MESSAGES and last.get("type") == "message_stop" and stop_reason is not None


def _note_choices(choices: Any, unfinished: dict[Any, bool]) -> bool:
    """Take note of which choices have begun and ended; False where they are malformed or ended in an error."""
    if not isinstance(choices, list):
        return False
    for choice in choices:
        if not isinstance(choice, dict) or type(index := choice.get("index")) is not int:
            return False
        reason = choice.get("finish_reason")
        if reason == "error" or choice.get("error") is not None:
            return False
        unfinished[index] = unfinished.get(index, True) and reason is None
    return True


def is_complete_whole(body: bytes, endpoint: str) -> bool:
    """Whether the body is one complete answer of its endpoint, and no error.

    Chat and completions: a choice or more, each with its message or text and a finish reason. Embeddings: one vector
    or more. Responses: status completed. Messages: content and a stop reason.
    """
    value = _object(body)
    return value is not None and is_complete_value(value, endpoint)


def is_complete_value(value: dict[str, Any], endpoint: str) -> bool:
    """`is_complete_whole` of an answer that was read before."""
    if value.get("error") is not None:
        return False
    match endpoint:
        case Endpoint.CHAT | Endpoint.COMPLETIONS:
            choices = value.get("choices")
            kind, inner = (dict, "message") if endpoint == Endpoint.CHAT else (str, "text")
            unfinished: dict[Any, bool] = {}
            return (
                isinstance(choices, list)
                and _note_choices(choices, unfinished)
                and bool(unfinished)
                and True not in unfinished.values()
                and all(isinstance(choice.get(inner), kind) for choice in choices)
            )
        case Endpoint.EMBEDDINGS:
            vectors = value.get("data")
            return (
                isinstance(vectors, list)
                and bool(vectors)
                and all(isinstance(one, dict) and one.get("embedding") for one in vectors)
            )
        case Endpoint.RESPONSES:
            return value.get("status") == "completed" and isinstance(value.get("output"), list)
        case Endpoint.MESSAGES:
            return (
                value.get("type") == "message"
                and isinstance(value.get("content"), list)
                and value.get("stop_reason") is not None
            )
        case _:
            return False


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
