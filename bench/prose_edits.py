"""Edits of English prose whose effect on its meaning is known: those that keep it, and those that change one fact.

Each returns None where the text offers no place for it. The lists are written for this purpose and general; they share
nothing with the comparators' own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

__all__ = ["FACTS", "SURFACE", "names_of"]

Surface = Callable[[str, Random], str | None]
Break = Callable[[str, Random, list[str]], str | None]

_SENTENCES = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_SAFE = {
    r"\bbecause\b": "since", r"\balso\b": "additionally", r"\bFor example\b": "For instance", r"\bsuch as\b": "like",
    r"\bin order to\b": "to", r"\bapproximately\b": "about", r"\bbegan\b": "started", r"\blarge\b": "big",
    r"\bHowever\b": "Nevertheless", r"\bhowever\b": "nevertheless", r"\bmany\b": "numerous", r"\boften\b": "frequently",
    r"\bpurchase\b": "buy", r"\bassist\b": "help", r"\bprovide\b": "give", r"\bwould like\b": "want",
    r"\bTherefore\b": "Thus", r"\btherefore\b": "thus", r"\bbuild\b": "construct", r"\bshow\b": "demonstrate",
    r"\blocated\b": "situated", r"\bpeople\b": "persons", r"\bespecially\b": "particularly", r"\bchose\b": "picked",
    r"\bcolour\b": "color", r"\bcentre\b": "center", r"\borganised\b": "organized", r"\brequires\b": "needs",
}  # fmt: skip
_SHORT = {
    r"\bit is\b": "it's", r"\bIt is\b": "It's", r"\bdo not\b": "don't", r"\bdoes not\b": "doesn't",
    r"\bis not\b": "isn't", r"\bare not\b": "aren't", r"\bcannot\b": "can't", r"\bwas not\b": "wasn't",
    r"\bI am\b": "I'm", r"\bI have\b": "I've", r"\bI will\b": "I'll", r"\bthey are\b": "they're",
    r"\byou are\b": "you're", r"\bdid not\b": "didn't", r"\bwould not\b": "wouldn't", r"\bcould not\b": "couldn't",
}  # fmt: skip
_DIGITS = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "ten": "10"}
_OPPOSITE = {
    "increase": "decrease", "increased": "decreased", "before": "after", "first": "last", "higher": "lower",
    "larger": "smaller", "more": "less", "most": "least", "north": "south", "eastern": "western", "above": "below",
    "early": "late", "major": "minor", "always": "never", "won": "lost", "included": "excluded", "older": "newer",
    "best": "worst", "strong": "weak", "all": "none", "open": "closed", "able": "unable", "allowed": "forbidden",
    "greater": "smaller", "positive": "negative", "success": "failure", "begin": "end", "rich": "poor",
    "northern": "southern", "public": "private", "earlier": "later", "possible": "impossible", "long": "short",
}  # fmt: skip
_NEGATABLE = re.compile(r"\b(is|are|was|were|can|could|will|would|has been|have been|had been)\b(?! not|n't)")
_NUMBER = re.compile(r"(?<![\w.,-])\d[\d,]*(?:\.\d+)?(?![\w.,-]*\w)")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{3,}\b")


def names_of(text: str) -> list[str]:
    """Words that are capitalised though no sentence begins with them."""
    return _NAME.findall(text)


def _replaced(text: str, table: dict[str, str]) -> str | None:
    other = text
    for pattern, word in table.items():
        other = re.sub(pattern, word, other)
    return other if other != text else None


def _contracted(text: str, chance: Random) -> str | None:
    return _replaced(text, _SHORT)


def _synonyms(text: str, chance: Random) -> str | None:
    return _replaced(text, _SAFE)


def _markdown(text: str, chance: Random) -> str | None:
    parts = _SENTENCES.split(text)
    bold = [re.sub(r"^([A-Z][a-z]+)", r"**\1**", part) for part in parts]
    return "\n".join(f"- {part}" for part in bold) if len(parts) > 1 else None


def _framed(text: str, chance: Random) -> str | None:
    return f"Sure! Here's the answer:\n\n{text}\n\nI hope this helps!"


def _reordered(text: str, chance: Random) -> str | None:
    """The last sentence first, framed. Sentences that point back ('He', 'This') would lose their sense: not those."""
    parts = _SENTENCES.split(text)
    if len(parts) < 2 or re.match(
        r"(?:He|She|It|They|This|These|That|Those|However|Also|But|And|His|Her|Its)\b", parts[-1]
    ):
        return None
    return _framed(" ".join([parts[-1], *parts[:-1]]), chance)


def _digits(text: str, chance: Random) -> str | None:
    spelled = {rf"\b{word}\b": digit for word, digit in _DIGITS.items()}
    return _replaced(text, spelled | {r"(?<=\d),(?=\d{3}\b)": "", r"(?<=\d) percent\b": "%"})


def _all_at_once(text: str, chance: Random) -> str | None:
    other = _replaced(text, _SHORT | _SAFE)
    return _markdown(other, chance) if other else None


def _openers(text: str, chance: Random) -> str | None:
    return _reordered(text, chance) or _framed(text, chance)


SURFACE: dict[str, Surface] = {
    "contractions": _contracted,
    "synonyms": _synonyms,
    "markdown": _markdown,
    "openers and order": _openers,
    "digits": _digits,
    "all at once": _all_at_once,
}


def _number(text: str, chance: Random, pool: list[str]) -> str | None:
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    at = chance.choice(found)
    digits = at[0].replace(",", "")
    changed = f"{float(digits) + 1:g}" if "." in digits else str(int(digits) + chance.choice([1, 2, 10]))
    return f"{text[: at.start()]}{changed}{text[at.end() :]}"


def _name(text: str, chance: Random, pool: list[str]) -> str | None:
    found = list(_NAME.finditer(text))
    others = [name for name in pool if name not in text]
    if not found or not others:
        return None
    at = chance.choice(found)
    return f"{text[: at.start()]}{chance.choice(others)}{text[at.end() :]}"


def _names_swapped(text: str, chance: Random, pool: list[str]) -> str | None:
    """Two names change places, in one sentence with a verb between them."""
    for sentence in _SENTENCES.split(text):
        names = list(dict.fromkeys(_NAME.findall(sentence)))
        if len(names) == 2 and re.search(rf"{names[0]}.* (?:to|than|by|over|from|defeated|led) .*{names[1]}", sentence):
            swapped = sentence.replace(names[0], "\0").replace(names[1], names[0]).replace("\0", names[1])
            return text.replace(sentence, swapped)
    return None


def _negation(text: str, chance: Random, pool: list[str]) -> str | None:
    found = list(_NEGATABLE.finditer(text))
    if not found:
        return None
    at = chance.choice(found)
    word, _, rest = at[0].partition(" ")
    return f"{text[: at.start()]}{word} not{' ' + rest if rest else ''}{text[at.end() :]}"


def _opposite(text: str, chance: Random, pool: list[str]) -> str | None:
    found = [match for match in re.finditer(r"[a-z]+", text) if match[0] in _OPPOSITE]
    if not found:
        return None
    at = chance.choice(found)
    return f"{text[: at.start()]}{_OPPOSITE[at[0]]}{text[at.end() :]}"


def _noun(text: str, chance: Random, pool: list[str]) -> str | None:
    """The head of 'the X of' becomes another text's, in lower case."""
    found = list(re.finditer(r"(?<=\bthe )[a-z]{5,}(?= of\b)", text))
    if not found:
        return None
    at = chance.choice(found)
    other = chance.choice(["capital", "failure", "inventor", "colour", "weight", "birthplace", "temperature", "owner"])
    return f"{text[: at.start()]}{other}{text[at.end() :]}" if other != at[0] else None


FACTS: dict[str, Break] = {
    "number": _number,
    "name": _name,
    "names swapped": _names_swapped,
    "negation": _negation,
    "opposite": _opposite,
    "noun": _noun,
}
