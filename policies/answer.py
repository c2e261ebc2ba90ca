"""What an answer says, out of the bytes that a cache holds: chat completion, completion, message or response. Pure.

Rules of this file:
1. Whole answers and streams read alike. What isn't understood (audio, an unknown item) is marked, never dropped.
2. Ids, times, usage, log-probabilities and reasoning are not what an answer says.
3. Numbers keep all their digits.

Sources: OpenAI API reference ("The chat completion object", "chat completion chunk object", "The response object",
"Streaming events"); Anthropic API reference ("Messages", "Streaming messages").
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from farthing.proxy.sse import DONE, events

__all__ = ["Answer", "Call", "Finish", "exact_json", "read"]

Finish = Literal["stop", "length", "calls", "refusal", "unknown"]
_FINISH: dict[str, Finish] = {
    **dict.fromkeys(("stop", "end_turn", "stop_sequence", "completed"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"), "length"),
    **dict.fromkeys(("tool_calls", "function_call", "tool_use"), "calls"),
    **dict.fromkeys(("content_filter", "refusal"), "refusal"),
}
_SILENT = frozenset({"reasoning", "thinking", "redacted_thinking"})


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call. `arguments`: the JSON text as the model wrote it, or the value where the API gives a value."""

    name: str
    arguments: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice. `other`: it holds something that is neither text nor a call."""

    text: str
    calls: tuple[Call, ...] = ()
    refusal: str = ""
    finish: Finish = "stop"
    other: bool = False


def read(body: bytes) -> tuple[Answer, ...] | None:
    """The choices of an answer in their order; None where the bytes are no answer that is understood. Never raises."""
    try:
        if body.lstrip()[:1] == b"{":
            return _whole(_a(dict, exact_json(body)))
        return _stream(body)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def exact_json(text: str | bytes) -> Any:
    """The value; reals as decimals. Raises ValueError: not JSON, duplicate keys, NaN. RecursionError: too deep."""
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")  # as json.loads does
    try:
        return _EXACT.decode(text)
    except ArithmeticError:
        raise ValueError("a number beyond all bounds") from None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("duplicate keys")
    return table


# json.loads makes a decoder anew for each call with such options, which costs more than reading an event of a stream.
_EXACT = json.JSONDecoder(parse_float=Decimal, parse_constant=_no_number, object_pairs_hook=_unique)


@dataclass(slots=True)
class _Draft:
    """An answer in the making."""

    text: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    names: dict[int, list[str]] = field(default_factory=dict)
    arguments: dict[int, list[Any]] = field(default_factory=dict)
    finish: Finish = "unknown"
    other: bool = False

    def ends(self, reason: Any) -> None:
        if reason is not None:
            self.finish = _FINISH.get(_a(str, reason), "unknown")

    def calls(self, at: int, name: Any, arguments: Any) -> None:
        self.names.setdefault(at, []).append(_a(str, name or ""))
        self.arguments.setdefault(at, []).append("" if arguments is None else arguments)

    def says(self, content: Any) -> None:
        """Text, or a list of parts, of a chat or a message."""
        if isinstance(content, str):
            self.text.append(content)
        elif content is not None:
            for at, part in enumerate(_a(list, content)):
                self.part(at, _a(dict, part))

    def part(self, at: int, part: dict[str, Any]) -> None:
        kind = part.get("type")
        if kind in ("text", "output_text", "text_delta"):
            self.text.append(_a(str, part["text"]))
        elif kind == "refusal":
            self.refusal.append(_a(str, part["refusal"]))
        elif kind == "tool_use":
            self.calls(at, part["name"], part["input"])
        elif kind not in _SILENT:
            self.other = True

    def done(self) -> Answer:
        calls = tuple(Call("".join(self.names[at]), _joined(self.arguments[at])) for at in sorted(self.names))
        return Answer("".join(self.text), calls, "".join(self.refusal), self.finish, self.other)


def _joined(pieces: list[Any]) -> Any:
    """Pieces of text joined; a single value as it is. An empty value that pieces follow is a stream's beginning."""
    said = [piece for piece in pieces if piece not in ("", {})]
    if all(isinstance(piece, str) for piece in said):
        return "".join(said) if said else pieces[0]
    if len(said) != 1:
        raise ValueError("arguments in two forms")
    return said[0]


def _whole(value: dict[str, Any]) -> tuple[Answer, ...] | None:
    if isinstance(value.get("choices"), list):
        drafts: dict[int, _Draft] = {}
        for choice in value["choices"]:
            _choice(drafts, _a(dict, choice), "message")
        return _finished(drafts)
    if isinstance(value.get("output"), list) and value.get("object") == "response":
        return (_response(value),)
    if isinstance(value.get("content"), list) and value.get("type") == "message":
        draft = _Draft()
        draft.says(value["content"])
        draft.ends(value.get("stop_reason"))
        return (draft.done(),)
    return None


def _choice(drafts: dict[int, _Draft], choice: dict[str, Any], field_name: str) -> None:
    """Take note of a choice, or of a chunk's part of one (`delta`)."""
    draft = drafts.setdefault(_a(int, choice.get("index", 0)), _Draft())
    draft.ends(choice.get("finish_reason"))
    if isinstance(choice.get("text"), str):
        draft.text.append(choice["text"])
    message = _a(dict, choice.get(field_name) or {})
    draft.says(message.get("content"))
    draft.refusal.append(_a(str, message.get("refusal") or ""))
    draft.other |= bool(message.get("audio"))
    if legacy := message.get("function_call"):
        draft.calls(0, legacy.get("name"), legacy.get("arguments"))
    for at, call in enumerate(message.get("tool_calls") or ()):
        inner = _a(dict, call.get("function") or call.get("custom"))
        draft.calls(_a(int, call.get("index", at)), inner.get("name"), inner.get("arguments", inner.get("input")))


def _response(value: dict[str, Any]) -> Answer:
    draft = _Draft()
    for at, item in enumerate(value["output"]):
        kind = item.get("type")
        if kind == "message":
            draft.says(item["content"])
        elif kind in ("function_call", "custom_tool_call"):
            draft.calls(at, item["name"], item.get("arguments", item.get("input")))
        elif kind not in _SILENT:
            draft.other = True
    reason = (value.get("incomplete_details") or {}).get("reason") or value.get("status")
    draft.ends("tool_calls" if draft.names and reason == "completed" else reason)
    return draft.done()


def _stream(body: bytes) -> tuple[Answer, ...] | None:
    drafts: dict[int, _Draft] = {}
    for data in _told(body):
        kind = data.get("type")
        if kind in ("response.completed", "response.incomplete"):
            return (_response(_a(dict, data["response"])),)
        if "choices" in data:
            for choice in data["choices"]:
                _choice(drafts, _a(dict, choice), "delta")
        elif kind == "message_start":
            drafts[0] = _Draft()
        elif kind == "message_delta":
            drafts[0].ends(data["delta"].get("stop_reason"))
        elif kind == "content_block_start":
            drafts[0].part(data["index"], data["content_block"])
        elif kind == "content_block_delta":
            _block_delta(drafts[0], data["index"], data["delta"])
    return _finished(drafts)


def _block_delta(draft: _Draft, at: int, delta: dict[str, Any]) -> None:
    if delta["type"] == "input_json_delta":
        draft.arguments[at].append(_a(str, delta["partial_json"]))
    elif delta["type"] == "text_delta":
        draft.text.append(_a(str, delta["text"]))


def _told(body: bytes) -> Iterator[dict[str, Any]]:
    """Every event's value. Raises ValueError: an error among them."""
    for event in events(body):
        if event.data and event.data != DONE:
            value = _a(dict, exact_json(event.data))
            if value.get("error") is not None or value.get("type") in ("error", "response.failed"):
                raise ValueError("an error")
            yield value


def _finished(drafts: dict[int, _Draft]) -> tuple[Answer, ...] | None:
    """None for no choice, and for one without its end: what came of it may be a part."""
    answers = tuple(drafts[index].done() for index in sorted(drafts))
    ended = all(answer.finish != "unknown" for answer in answers)
    return answers if answers and ended else None


def _a(kind: type, value: Any) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"not a {kind.__name__}")
    return value
