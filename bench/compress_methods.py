"""What the compression bench compares: ours, and simple baselines. A new method is one line in `methods`.

A method takes an item and a token counter and gives the changed texts. Tokens are counted with the same counter that
decides, so that its cost can be told apart.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.compress_data import Item, texts
from farthing.compress.forms import RULES, Form, rules_with, shorten
from farthing.compress.json_part import same_json
from farthing.compress.removed import Handles
from farthing.compress.tidy import tidied_text

__all__ = ["Method", "methods", "restored"]

Count = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Method:
    """A way to make an item's texts shorter. `lossless`: it claims that the equal value can be read back."""

    name: str
    shorten: Callable[[str, str, Count], tuple[str, tuple[str, ...]]]
    lossless: bool = False

    def __call__(self, item: Item, count: Count) -> dict[int, tuple[str, tuple[str, ...]]]:
        """For each text that changes, what it becomes and by which rules."""
        found = {}
        for place, text in texts(item).items():
            short, rules = self.shorten(text, item.question, count)
            if short != text:
                found[place] = short, rules
        return found


def methods() -> list[Method]:
    """All that run inside of this process, in the order of the tables' rows."""
    return [
        Method("tidy", _tidy, lossless=True),
        Method("tidy + recode", _formed(Form("recode")), lossless=True),
        Method("+ HTML reduced", _formed(Form("recode", rules_with(html=True)), Handles(b"bench", "bench"))),
        Method("squeeze .5", _formed(Form("squeeze", keep=0.5))),
        Method("squeeze .4", _formed(Form("squeeze", keep=0.4))),
        Method("squeeze .3", _formed(Form("squeeze", keep=0.3))),
        Method("cut the middle .5", _cut_middle),
        Method("BM25 .5", _bm25(0.5)),
        Method("BM25 .3", _bm25(0.3)),
    ]


def restored(text: str, short: str, rules: Sequence[str]) -> bool:
    """Whether the short text, by the decoders of the rules that made it, is equal to the text.

    The steps are made once more: each rule's form of the text is decoded by itself and compared, and the last must be
    `short`.
    """
    known = {rule.name: rule for rule in RULES}
    for name in rules:
        if name == "tidy":
            step = tidied_text(text)
            equal = step is not None and same_json(text.strip(" \t\r\n"), step)
        else:
            step = known[name].encode(text)
            equal = step is not None and known[name].restores(text, step)
        if not equal or step is None:
            return False
        text = step
    return text == short


def _tidy(text: str, question: str, count: Count) -> tuple[str, tuple[str, ...]]:
    short = tidied_text(text)
    return (text, ()) if short is None else (short, ("tidy",))


def _formed(form: Form, names: Handles | None = None) -> Callable[[str, str, Count], tuple[str, tuple[str, ...]]]:
    """As it is served: tidied, and in this form; with `names` where the model can ask for what was left out."""

    def formed(text: str, question: str, count: Count) -> tuple[str, tuple[str, ...]]:
        tidied, first = _tidy(text, question, count)
        found = shorten(text, question, form, count, names=names)
        return (tidied, first) if found is None else (found.text, first + found.rules)

    return formed


def _cut_middle(text: str, question: str, count: Count) -> tuple[str, tuple[str, ...]]:
    """A quarter of the characters at each end."""
    if len(text) < 200:
        return text, ()
    return f"{text[: len(text) // 4]} ... {text[-(len(text) // 4) :]}", ("cut",)


_UNIT = re.compile(r"[^\n]*?(?:\n+|(?<=[.!?]) +|\Z)")
_WORD = re.compile(r"\w+")


def _bm25(ratio: float) -> Callable[[str, str, Count], tuple[str, tuple[str, ...]]]:
    """Lines, sentences or JSON records by their BM25 score for the question (k1 1.2, b .75), in their order."""

    def shorten(text: str, question: str, count: Count) -> tuple[str, tuple[str, ...]]:
        units = _units(text)
        if len(units) < 4 or len(text) < 400:
            return text, ()
        words = [Counter(_WORD.findall(unit.lower())) for unit in units]
        asked = set(_WORD.findall(question.lower()))
        average = sum(map(Counter.total, words)) / len(words) or 1.0
        holds = {word: sum(word in bag for bag in words) for word in asked}
        weight = {word: math.log(1 + (len(words) - n + 0.5) / (n + 0.5)) for word, n in holds.items()}

        def score(bag: Counter[str]) -> float:
            norm = 1.2 * (0.25 + 0.75 * bag.total() / average)
            return sum(weight[word] * bag[word] * 2.2 / (bag[word] + norm) for word in asked if bag[word])

        scores = [score(bag) for bag in words]
        chosen: set[int] = set()
        left = ratio * len(text)
        for place in sorted(range(len(units)), key=lambda place: (-scores[place], place)):
            if len(units[place]) <= left:
                chosen.add(place)
                left -= len(units[place])
        return "".join(unit for place, unit in enumerate(units) if place in chosen), ("bm25",)

    return shorten


def _units(text: str) -> list[str]:
    """Records of the longest list of a JSON text; else lines and sentences."""
    try:
        value = json.loads(text)
    except ValueError:
        return [unit for unit in _UNIT.findall(text) if unit]
    lists = [value, *(value.values() if isinstance(value, dict) else ())]
    records = max((one for one in lists if isinstance(one, list)), key=len, default=[])
    return [json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n" for record in records]
