"""A stream that broke off, or that nobody can put together for certain, as far as it came. Pure.

What stands in a cache must be certain (cache/reshape.py); what a trace shows need not be, and says that it isn't: a
generation that told no end has the finish reason `error`, as the conventions ask.
"""

from __future__ import annotations

from typing import Any

from farthing.cache.exact_json import loads
from farthing.proxy.otlp_parts import FINISH, Message, Part, answered, call, reasoning, text
from farthing.proxy.sse import events

__all__ = ["as_far_as_it_came"]


class _Generation:
    """One choice in the making. A piece belongs to the part that is named, which begins with its first piece."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._kinds: dict[Any, tuple[str, Any, Any]] = {}
        self._pieces: dict[Any, list[str]] = {}

    def add(self, at: Any, kind: str, piece: Any, name: Any = None, identity: Any = None) -> None:
        if not isinstance(piece, str) and not name:
            return
        if at not in self._kinds or name:
            self._kinds[at] = (kind, name, identity)
        if isinstance(piece, str):
            self._pieces.setdefault(at, []).append(piece)

    def ends(self, reason: Any) -> None:
        if isinstance(reason, str):
            self.reason = reason

    def message(self) -> Message:
        parts: list[Part] = []
        for at, (kind, name, identity) in self._kinds.items():
            said = "".join(self._pieces.get(at, ()))
            if kind == "tool_call":
                parts.append(call(name, identity, said))
            elif said:
                parts.append(reasoning(said) if kind == "reasoning" else text(said))
        return {"role": "assistant", "parts": parts, "finish_reason": FINISH.get(self.reason) or self.reason}


def as_far_as_it_came(sse: bytes, endpoint: str) -> list[Message]:
    """One message for each generation that had begun. Never raises."""
    drafts: dict[int, _Generation] = {}
    for event in events(sse):
        try:
            told = loads(event.data)
        except (ValueError, RecursionError):  # [DONE], or where it was cut
            continue
        if not isinstance(told, dict):
            continue
        if told.get("type") in ("response.completed", "response.incomplete", "response.failed"):
            return answered(endpoint, told.get("response"))
        try:
            _take(drafts, told)
        except (AttributeError, LookupError, TypeError):  # a shape that isn't known
            continue
    return [drafts[at].message() for at in sorted(drafts)]


def _take(drafts: dict[int, _Generation], told: dict[str, Any]) -> None:
    for choice in told.get("choices") or ():
        at = choice.get("index") or 0
        _delta(drafts.setdefault(at if isinstance(at, int) else 0, _Generation()), choice)
    kind = told.get("type")
    if not isinstance(kind, str):
        return
    if kind == "message_start" or kind.startswith("response."):
        drafts.setdefault(0, _Generation())
    if 0 not in drafts:
        return
    draft = drafts[0]
    at = (told.get("output_index"), told.get("index"), told.get("content_index"))
    match kind:
        case "content_block_start" if told["content_block"].get("type") == "tool_use":
            block = told["content_block"]
            draft.add(at, "tool_call", None, block.get("name"), block.get("id"))
        case "content_block_delta":
            delta = told["delta"]
            draft.add(at, "text", delta.get("text"))
            draft.add(at, "tool_call", delta.get("partial_json"))
            draft.add((at, "thought"), "reasoning", delta.get("thinking"))
        case "message_delta":
            draft.ends(told["delta"].get("stop_reason"))
        case "response.output_text.delta" | "response.refusal.delta":
            draft.add(at, "text", told.get("delta"))
        case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
            draft.add((at, told.get("summary_index")), "reasoning", told.get("delta"))
        case "response.output_item.added" if told["item"].get("type") in ("function_call", "custom_tool_call"):
            item = told["item"]
            draft.add(("call", at[0]), "tool_call", None, item.get("name"), item.get("call_id"))
        case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
            draft.add(("call", at[0]), "tool_call", told.get("delta"))


def _delta(draft: _Generation, choice: dict[str, Any]) -> None:
    """A chunk's part of one choice, of a chat or a completion."""
    draft.ends(choice.get("finish_reason"))
    draft.add("text", "text", choice.get("text"))
    delta = choice.get("delta") or {}
    draft.add("thought", "reasoning", delta.get("reasoning_content") or delta.get("reasoning"))
    draft.add("text", "text", delta.get("content"))
    draft.add("text", "text", delta.get("refusal"))
    for each in delta.get("tool_calls") or ():
        inner = each.get("function") or each.get("custom") or {}
        piece = inner.get("arguments", inner.get("input"))
        draft.add(("call", each.get("index")), "tool_call", piece, inner.get("name"), each.get("id"))
