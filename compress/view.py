"""What the compressor does to one file, for `farthing compress`: figures and both sides. Pure; the caller does IO.

Token counts are those of the tool results' texts alone: what surrounds them in a prompt is the same on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from farthing.compress.decided import LEFT
from farthing.compress.forms import RECODE, Form, shorten
from farthing.compress.places import Marks, Place
from farthing.compress.request import Texts, decide, sent
from farthing.compress.rewrite import rewrite
from farthing.compress.tidy import tidied_text

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Change", "View", "inspect"]

Kind = Literal["chat", "responses", "messages", "tool result", "text"]


@dataclass(frozen=True, slots=True)
class Change:
    """One text that was looked at. `rule`: what was applied, joined by +, or '' with the `reason` why nothing was."""

    place: str
    rule: str
    reason: str
    before: str
    after: str
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True, slots=True)
class View:
    """Before and after. `kind`: what the file was taken for; `bytes_*`: the whole file in UTF-8."""

    kind: Kind
    model: str
    bytes_before: int
    bytes_after: int
    changes: tuple[Change, ...]

    @property
    def tokens_before(self) -> int:
        """Tokens of all texts that were looked at, as they came."""
        return sum(change.tokens_before for change in self.changes)

    @property
    def tokens_after(self) -> int:
        """Tokens of all texts that were looked at, as they would be sent."""
        return sum(change.tokens_after for change in self.changes)

    def to_json(self) -> dict[str, Any]:
        """The figures as plain values; no text of the file."""
        return {
            "kind": self.kind,
            "model": self.model,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "tokens_before": self.tokens_before,
            "tokens_after": self.tokens_after,
            "tool_results": [
                {
                    "place": change.place,
                    "rule": change.rule or None,
                    "reason": change.reason or None,
                    "bytes_before": _bytes(change.before),
                    "bytes_after": _bytes(change.after),
                    "tokens_before": change.tokens_before,
                    "tokens_after": change.tokens_after,
                }
                for change in self.changes
            ],
        }

    def render(self, *, diff: bool = False) -> RenderableType:
        """The figures as an aligned table; with `diff`, both sides of every text that changes below it."""
        from rich.console import Group

        parts: list[RenderableType] = [self._table()]
        if diff:
            parts += [_sides(change) for change in self.changes if change.rule]
        return Group(*parts)

    def _table(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=f"{self.kind}, counted for {self.model}",
            caption=_verdict(self),
            title_justify="left",
            caption_justify="left",
        )
        table.add_column("tool result", overflow="fold")
        table.add_column("rule")
        for name in ("tokens", "after", "saved", "bytes", "after"):
            table.add_column(name, justify="right", no_wrap=True)
        for change in self.changes:
            table.add_row(
                Text(change.place),
                Text(change.rule or change.reason, style="" if change.rule else "dim"),
                *_figures(change.tokens_before, change.tokens_after, _bytes(change.before), _bytes(change.after)),
            )
        if self.changes:
            table.add_section()
        table.add_row(
            "tokens of these, bytes of the file",
            "",
            *_figures(self.tokens_before, self.tokens_after, self.bytes_before, self.bytes_after),
        )
        return table


def inspect(
    text: str,
    model: str,
    count: Callable[[str, str], int],
    form: Form | None = RECODE,
    question: str = "",
    marks: Sequence[Marks] = (),
) -> View:
    """What the compressor makes of `text`: a request body, or else one tool result. `count(text, model)`: tokens.

    `form`: what may be done beyond tidy; None: nothing. `question`: what is asked about a text that is no request.
    `marks`: what the operator says was retrieved.
    """
    kind, payload = _kind(text)

    def counted(text: str) -> int:
        return count(text, model)

    if kind not in ("chat", "responses", "messages"):
        place = Place((), 0, len(text), text, 0, "tool", False)
        short = shorten(text, question, form, counted) if form is not None else None
        changes = (_change("the file", place, short.text if short else None, short.rules if short else (), counted),)
        return View(kind, model, _bytes(text), _bytes(changes[0].after), changes)
    texts = Texts.of(kind, payload, marks)
    free = [turn for turn in texts.by_turn if turn not in texts.frozen]
    made = decide(texts, free, form, counted) if form is not None else []
    decided = dict(zip(free, made, strict=False))
    after = sent(texts, decided, tidy=True)
    seen = []
    for turn, here in texts.by_turn.items():
        for number, place in enumerate(here):
            of_turn = decided.get(turn, LEFT)
            one = of_turn.texts[number] if number < len(of_turn.texts) else None
            seen.append(_change(_place(place), place, one, of_turn.rules, counted))
    body = text.encode("utf-8", "surrogatepass")
    return View(kind, model, _bytes(text), len(rewrite(body, payload, after).body), tuple(seen))


def _kind(text: str) -> tuple[Kind, dict[str, Any]]:
    """What the file is, and its payload where it is a request."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "text", {}
    if not isinstance(value, dict):
        return "tool result", {}
    if isinstance(turns := value.get("messages"), list):
        return ("messages" if _is_anthropic(value, turns) else "chat"), value
    if isinstance(value.get("input"), list) and "model" in value:
        return "responses", value
    return "tool result", {}


def _is_anthropic(value: dict[str, Any], turns: list[Any]) -> bool:
    """Anthropic's requests keep the system prompt outside of the messages, and tool results inside of blocks."""
    blocks = (
        block
        for turn in turns
        if isinstance(turn, dict) and isinstance(turn.get("content"), list)
        for block in turn["content"]
    )
    return "system" in value or any(
        isinstance(block, dict) and block.get("type") in ("tool_result", "tool_use") for block in blocks
    )


def _change(where: str, place: Place, short: str | None, rules: tuple[str, ...], count: Callable[[str], int]) -> Change:
    tidied = tidied_text(place.text) if place.kind == "tool" and not place.frozen else None
    after = short if short is not None else tidied
    before = count(place.text)
    if after is None:
        return Change(where, "", _reason(place), place.text, place.text, before, before)
    applied = (("tidy",) if tidied is not None else ()) + (rules if short is not None else ())
    return Change(where, "+".join(applied), "", place.text, after, before, count(after))


def _reason(result: Place) -> str:
    """Why a text is left as it is."""
    if result.frozen:
        return "at or before a cache breakpoint"
    if result.kind == "retrieval":
        return "no shorter form"
    if result.text.lstrip(" \t\r\n")[:1] not in ("{", "["):
        return "not a JSON object or array"
    try:
        json.loads(result.text)
    except (ValueError, RecursionError):
        return "not valid JSON"
    return "already compact, or ambiguous JSON" if _has_white_space(result.text) else "already compact"


def _has_white_space(text: str) -> bool:
    return any(gap in text for gap in " \t\r\n")


def _place(result: Place) -> str:
    """The path as a reader writes it: messages[3].content[0].text"""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in result.path).lstrip(".")


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _figures(tokens: int, tokens_after: int, size: int, size_after: int) -> tuple[str, ...]:
    saved = f"{(tokens - tokens_after) / tokens:.1%}" if tokens else "-"
    return f"{tokens:,}", f"{tokens_after:,}", saved, f"{size:,}", f"{size_after:,}"


def _verdict(view: View) -> str:
    if not view.changes:
        return "No tool results: the request goes upstream as it is."
    if not any(change.rule for change in view.changes):
        return "Nothing to save: the request goes upstream as it is."
    saved = f"{view.tokens_before - view.tokens_after:,} tokens saved"
    rules = {rule for change in view.changes for rule in change.rule.split("+")}
    if "squeeze" in rules:
        return f"{saved}. Squeezed texts leave things out; they are sent only where that is proved (compress.squeeze)."
    if rules - {"", "tidy"}:
        return f"{saved}; every value stays the same. Other forms than tidy are sent where proved (compress.recode)."
    return f"{saved}; every value stays the same."


def _sides(change: Change) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=change.place, title_justify="left", expand=True)
    table.add_column("before", ratio=1, overflow="fold")
    table.add_column("after", ratio=1, overflow="fold")
    table.add_row(Text(_shown(change.before)), Text(_shown(change.after)))
    return table


def _shown(text: str) -> str:
    """The text with control characters made visible, so that a file can't steer the terminal."""
    return "".join(
        char if char in "\n\t" or char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
