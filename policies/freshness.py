"""How long an answer may be given again: by model, endpoint, tag, and what kind of answer it is. Pure.

Rules of this file: the first rule that matches wins; what an answer is, its bytes alone decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

from farthing.policies.answer import Answer, exact_json, read

__all__ = ["KINDS", "Freshness", "Kind", "Lifetime", "Rule", "kinds_of"]

Kind = Literal["tool_call", "refusal", "json", "text", "figures", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Seconds. `semantic_ttl_s`: for near-duplicates; None: as long as the answer is kept."""

    ttl_s: int
    semantic_ttl_s: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """What it is for ('' is anything) and what it gives (None: as if there were no rule).

    `model`, `tag`: shell patterns (`gpt-4o*`, `doc=kb-*`); a tag's pattern is held against each value that it lists.
    """

    model: str = ""
    endpoint: str = ""
    tag: str = ""
    kind: Kind | Literal[""] = ""
    ttl_s: int | None = None
    semantic_ttl_s: int | None = None


class Freshness:
    """The rules, and what holds where none matches: `ttl_s` for exact hits and near-duplicates alike."""

    def __init__(self, ttl_s: int, rules: Sequence[Rule] = ()) -> None:
        self._rest = Lifetime(ttl_s)
        self._rules = tuple(rules)

    def of(self, models: Sequence[str], endpoint: str, tags: Sequence[tuple[str, str]], answer: bytes) -> Lifetime:
        """The lifetime of an answer. `models`: asked for, and served. `answer`: as the cache holds it.

        The answer is read only where a rule asks for its kind: milliseconds for a large one.
        """
        kinds: frozenset[Kind] | None = None
        for rule in self._rules:
            if rule.model and not any(fnmatchcase(model, rule.model) for model in models):
                continue
            if rule.endpoint and rule.endpoint != endpoint:
                continue
            if rule.tag and not any(
                fnmatchcase(f"{name}={one}", rule.tag) for name, value in tags for one in listed(value)
            ):
                continue
            if rule.kind:
                kinds = kinds_of(answer) if kinds is None else kinds
                if rule.kind not in kinds:
                    continue
            return Lifetime(self._rest.ttl_s if rule.ttl_s is None else rule.ttl_s, rule.semantic_ttl_s)
        return self._rest

    def ttl_s(self, models: Sequence[str], endpoint: str, tags: Sequence[tuple[str, str]], answer: bytes) -> int:
        """`of`, for the answer itself."""
        return self.of(models, endpoint, tags, answer).ttl_s


def listed(value: str) -> list[str]:
    """A tag's value, and what it lists between bars."""
    return [value, *value.split("|")] if "|" in value else [value]


def kinds_of(body: bytes) -> frozenset[Kind]:
    """What an answer is: one of `tool_call`, `refusal`, `json`, `text`, `other` (not understood, or without words), and
    `figures` besides where a digit stands in what it says. Of several choices each counts. Never raises."""
    answers = read(body)
    if not answers:
        return frozenset({"other"})
    found: set[Kind] = {_form(answer) for answer in answers}
    said = "".join(answer.text + "".join(str(call.arguments) for call in answer.calls) for answer in answers)
    if any(char.isdigit() for char in said):
        found.add("figures")
    return frozenset(found)


def _form(answer: Answer) -> Kind:
    from farthing.policies.agree import refuses  # which few configurations need

    if answer.calls:
        return "tool_call"
    if refuses(answer):
        return "refusal"
    text = answer.text.strip()
    if not text:
        return "other"
    if text[0] in "{[":
        try:
            exact_json(text)
        except (ValueError, RecursionError):
            return "text"
        return "json"
    return "text"
