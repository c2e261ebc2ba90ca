"""A whole request's texts: which there are, what is decided for each turn, what is sent. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from farthing.compress.asked import asked_about
from farthing.compress.decided import FROZEN, LEFT, Decision, first_new
from farthing.compress.forms import Count, Form, shorten
from farthing.compress.marker import handles
from farthing.compress.places import Marks, Place, places, turns_of
from farthing.compress.removed import Handles, named_pieces
from farthing.compress.tidy import tidied_text

__all__ = [
    "Texts",
    "before_turns",
    "decide",
    "marked_turns",
    "pieces_of",
    "route_name",
    "rules_of",
    "sent",
    "tidied",
]

_SAID = ("system", "developer")
_MOST_SAID = 400_000
NOTHING_KNOWN: Mapping[int, Decision] = MappingProxyType({})


class Texts(NamedTuple):
    """What may be touched in one request: its places by turn, in order. `frozen`: the turns of which some place is."""

    endpoint: str
    payload: dict[str, Any]
    by_turn: dict[int, list[Place]]
    frozen: frozenset[int]

    @classmethod
    def of(cls, endpoint: str, payload: dict[str, Any], marks: Sequence[Marks] = ()) -> Texts:
        """Those of the request."""
        by_turn: dict[int, list[Place]] = {}
        for place in places(endpoint, payload, marks):
            by_turn.setdefault(place.turn, []).append(place)
        frozen = frozenset(turn for turn, here in by_turn.items() if any(place.frozen for place in here))
        return cls(endpoint, payload, by_turn, frozen)

    def chars(self, turns: Iterable[int]) -> int:
        """How long the texts of these turns are."""
        return sum(len(place.text) for turn in turns for place in self.by_turn[turn])

    def new(self) -> list[int]:
        """The turns whose form may be chosen freely: those that weren't sent before, and aren't frozen."""
        first = first_new(self.endpoint, turns_of(self.endpoint, self.payload))
        return [turn for turn in self.by_turn if turn >= first and turn not in self.frozen]


def decide(
    texts: Texts,
    turns: Iterable[int],
    form: Form,
    count: Count,
    known: Mapping[int, Decision] = NOTHING_KNOWN,
    names: Handles | None = None,
) -> list[Decision]:
    """What is done to these turns in this form, for each in the order given, which is the conversation's.

    `known`: what was decided for others. `names`: given where the model can ask for what is left out. Cost: that of
    counting tokens, mostly.
    """
    said, found = _Said(texts, known), []
    for turn in turns:
        found.append(_decide_turn(texts, turn, form, count, said, names))
        said.learn(turn, found[-1])
    return found


def tidied(texts: Texts, turns: Iterable[int], count: Count) -> list[Decision]:
    """The decision to do nothing but tidy, with what that saves, for each turn."""
    return [_only_tidied(sum(_tidied(place, count) for place in texts.by_turn[turn])) for turn in turns]


def _tidied(place: Place, count: Count) -> int:
    """Tokens that tidying saves."""
    short = tidied_text(place.text) if place.kind == "tool" else None
    return count(place.text) - count(short) if short is not None else 0


def _decide_turn(texts: Texts, turn: int, form: Form, count: Count, said: _Said, names: Handles | None) -> Decision:
    made: list[str | None] = []
    saved: dict[str, int] = {}
    tidied = 0
    for place in texts.by_turn[turn]:
        question = asked_about(texts.endpoint, texts.payload, place) if form.keep is not None else ""
        short = shorten(place.text, question, form, count, said.before(turn), names)
        made.append(short.text if short is not None else None)
        if short is None:
            tidied += _tidied(place, count)
        else:
            tidied += count(place.text) - short.tokens_before
            for rule, tokens in zip(short.rules, short.saved, strict=True):
                saved[rule] = saved.get(rule, 0) + tokens
    return Decision(tuple(made), tuple(saved), (*saved.values(), tidied), form.name) if saved else _only_tidied(tidied)


def _only_tidied(tokens: int) -> Decision:
    return Decision(tokens=(tokens,)) if tokens else LEFT


def sent(texts: Texts, decided: Mapping[int, Decision], *, tidy: bool) -> dict[Place, str]:
    """What stands in each place's stead; places that stay as they are are left out."""
    found: dict[Place, str] = {}
    for turn, here in texts.by_turn.items():
        decision = decided.get(turn, LEFT)
        if decision == FROZEN:
            continue
        made = decision.texts
        for number, place in enumerate(here):
            if place.frozen and turn not in decided:
                continue  # as tidy alone has it: what stands behind the mark may be touched
            text = made[number] if number < len(made) else None
            if text is None and tidy and place.kind == "tool":
                text = tidied_text(place.text)
            if text is not None:
                found[place] = text
    return found


def pieces_of(texts: Texts, decided: Mapping[int, Decision], names: Handles) -> tuple[dict[str, str], list[int]]:
    """What the markers in these turns' decided texts name, by handle; and the turns of which a marker can't be
    followed."""
    found: dict[str, str] = {}
    unclear: list[int] = []
    for turn, decision in decided.items():
        for place, text in zip(texts.by_turn[turn], decision.texts, strict=False):
            named = {} if text is None else named_pieces(place.text, text, names)
            if named is None:
                unclear.append(turn)
            else:
                found |= named
    return found, unclear


def marked_turns(texts: Texts, decided: Mapping[int, Decision]) -> list[int]:
    """The turns whose decided texts have markers of ours."""
    return [
        turn
        for turn, decision in decided.items()
        if any(
            text is not None and set(handles(text)) - set(handles(place.text))
            for place, text in zip(texts.by_turn[turn], decision.texts, strict=False)
        )
    ]


def rules_of(decided: Iterable[Decision]) -> tuple[str, ...]:
    """The names of all rules that did something, each once."""
    return tuple(dict.fromkeys(rule for decision in decided if any(decision.texts) for rule in decision.rules))


def before_turns(endpoint: str, payload: dict[str, Any]) -> Any:
    """What stands before the first turn and is none."""
    return payload.get({"messages": "system", "responses": "instructions"}.get(endpoint, ""))


def route_name(endpoint: str, payload: dict[str, Any], model: str) -> str:
    """What shares evidence: an app's requests, known by model, standing instructions and tools. No text of theirs."""
    said = [before_turns(endpoint, payload)]
    said += [turn.get("content") for turn in turns_of(endpoint, payload) if _instructs(turn)]
    tools = payload.get("tools")
    names = sorted(map(_tool_name, tools)) if isinstance(tools, list) else []
    try:
        raw = orjson.dumps([endpoint, said, names], option=orjson.OPT_SORT_KEYS)
    except TypeError:  # lone surrogates, nesting
        raw = repr((endpoint, names)).encode("utf-8", "replace")
    return f"{model} {hashlib.blake2b(raw, digest_size=4).hexdigest()}"


def _instructs(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("role") in _SAID


def _tool_name(tool: Any) -> str:
    if not isinstance(tool, dict):
        return ""
    function = tool.get("function")
    named = function if isinstance(function, dict) else tool
    return str(named.get("name", named.get("type", "")))


class _Said:
    """The texts of a conversation as the model sees them, one a turn, for references to what was said before.

    Only what is sent as the client sent it is referred to: a turn in another form may be sent in its own form again,
    should its decision be lost.
    """

    def __init__(self, texts: Texts, known: Mapping[int, Decision]) -> None:
        self._turns = turns_of(texts.endpoint, texts.payload)
        self._by_turn = texts.by_turn
        self._texts = ["" if i in texts.by_turn else _text(turn) for i, turn in enumerate(self._turns)]
        for turn, decision in known.items():
            self.learn(turn, decision)

    def learn(self, turn: int, decision: Decision) -> None:
        """What was decided for a turn that holds places."""
        here = self._by_turn.get(turn, ())
        if not any(decision.texts) and all(tidied_text(place.text) is None for place in here):
            self._texts[turn] = _text(self._turns[turn])

    def before(self, turn: int) -> list[str]:
        """Those of the turns before it; none where they are so many that looking through them takes too long."""
        earlier = self._texts[:turn]
        return earlier if sum(map(len, earlier)) <= _MOST_SAID else []


def _text(turn: Any) -> str:
    content = turn.get("content") if isinstance(turn, dict) else None
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))
