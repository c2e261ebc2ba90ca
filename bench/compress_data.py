"""The compression data: items, which half of them one may tune on, and whether an item's needed strings still stand.

Source of the rules: the README beside the data. An item's half is that of sha256(id), even is 'train'.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

__all__ = ["SLICES", "Item", "Messages", "kept", "load", "texts", "with_texts"]

Messages = list[dict[str, Any]]

SLICES = (
    "json_tool_output",
    "tables_csv",
    "logs_and_stacktraces",
    "markdown_html_page",
    "rag_multidoc_qa",
    "near_duplicate_docs",
    "long_chat_history",
    "code_context",
    "verbose_system_prompt",
    "few_shot_cot",
)
_TOUCHED = ("system", "user", "tool")


@dataclass(frozen=True)
class Item:
    """One line of the data. `inline`: the question stands in the last user message itself."""

    id: str
    slice: str
    messages: Messages
    must_keep: tuple[str, ...]
    inline: bool
    kind: str

    @property
    def part(self) -> str:
        """'train' or 'test'."""
        return "train" if int(sha256(self.id.encode()).hexdigest(), 16) % 2 == 0 else "test"

    @cached_property
    def last_user(self) -> int:
        """The place of the last user message: the question."""
        return max((n for n, one in enumerate(self.messages) if one["role"] == "user"), default=-1)

    @property
    def question(self) -> str:
        """The last user message; where the question stands inside of it, what follows 'Question:'."""
        text = str(self.messages[self.last_user]["content"]) if self.last_user >= 0 else ""
        return text.rpartition("Question:")[2] if self.inline else text


def load(folder: Path, slices: tuple[str, ...] = SLICES) -> Iterator[Item]:
    """The items of the slices, in the order of their files."""
    for name in slices:
        for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines():
            told = json.loads(line)
            yield Item(
                told["id"],
                told["slice"],
                told["messages"],
                tuple(told["must_keep"]),
                bool(told.get("q_inline")),
                told.get("kind") or told.get("fmt") or "",
            )


def texts(item: Item) -> dict[int, str]:
    """The texts that a method may change: of each message but the last user one and what the assistant wrote.

    Wider than in production, where tables, pages and passages in user and system messages are only touched where the
    operator says that they are retrieved content.
    """
    return {
        place: message["content"]
        for place, message in enumerate(item.messages)
        if message["role"] in _TOUCHED and place != item.last_user and isinstance(message.get("content"), str)
    }


def with_texts(item: Item, changed: dict[int, str]) -> Messages:
    """The messages with other texts in their places."""
    return [
        {**message, "content": changed[place]} if place in changed else message
        for place, message in enumerate(item.messages)
    ]


def kept(item: Item, messages: Messages) -> bool:
    """Whether every needed string still stands in a message other than the last user one, white space aside."""
    last = max((n for n, one in enumerate(messages) if one["role"] == "user"), default=-1)
    whole = "\n".join(str(one.get("content") or "") for n, one in enumerate(messages) if n != last or item.inline)
    forms = [_spaced(form) for form in (whole, html.unescape(whole), _unescaped(whole))]
    return all(any(_spaced(needed) in form for form in forms) for needed in item.must_keep)


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _unescaped(text: str) -> str:
    """JSON's escapes undone, as far as a plain replacement does."""
    for escape, char in (("\\n", "\n"), ("\\t", "\t"), ('\\"', '"'), ("\\/", "/"), ("\\\\", "\\")):
        text = text.replace(escape, char)
    return text
