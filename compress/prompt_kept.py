"""Did a shorter prompt keep what the long one binds its reader to? Pure. Every draft is checked here, whoever wrote it.

Kept means: every number, name, address, quotation, placeholder and block of code stands somewhere in the draft, and for
every sentence that denies or binds there is one in the draft that does so too and shares most of its words. That is
necessary, not sufficient: whether the answers stay the same is for the trial to show.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from farthing.compress.prompt_text import BOLD, PLACEHOLDER, Piece, obliges, pieces
from farthing.compress.protected import code_blocks
from farthing.proxy.text import READ_CHARS, Signals, signals

__all__ = ["Loss", "lost"]

# Of a rule's content words that one sentence of the draft must hold. Fewer, and another rule would pass for it.
_SHARED = 0.6
_URL = re.compile(r"\b(?:https?|ftp)://[^\s)>\]\"']{1,2048}|\bwww\.[^\s)>\]\"']{1,2048}", re.I)
_DIGITS = re.compile(r"\d+(?:[.,:]\d+)*")
_HASHES = re.compile(r"^[ ]{0,3}#{1,6}[ \t]+|[ \t]#+[ \t]*$", re.MULTILINE)
_SHOWN = 80


class Loss(NamedTuple):
    """Something that the draft lacks. `kind`: number, name, address, quotation, placeholder, code or rule."""

    kind: str
    text: str


class _Rule(NamedTuple):
    text: str
    denies: bool
    binds: bool
    content: frozenset[str]


def lost(long: str, short: str) -> tuple[Loss, ...]:
    """What `short` lacks of `long`, each once, in the order of the kinds."""
    if long == short:
        return ()
    found: dict[Loss, None] = {}
    for block in code_blocks(long):
        code = long[block.start : block.end].strip()
        if code not in short:
            found[Loss("code", _brief(code))] = None
    rules = _unruly(long, short)
    long, short = _undecorated(long), _undecorated(short)
    for pattern, kind in ((PLACEHOLDER, "placeholder"), (_URL, "address")):
        for match in pattern.finditer(long):
            if match.group().rstrip(".,;") not in short:
                found[Loss(kind, match.group())] = None
    flat = _flat(short)
    folded = flat.casefold()
    said = [signals(part) for part in _parts(long)]
    kept = [signals(part) for part in _parts(short)]
    for missing in sorted(_numbers(said, long) - _numbers(kept, short)):
        found[Loss("number", missing)] = None
    for one in said:
        for kind, words in (("code", one.code), ("quotation", one.quotes)):
            found |= {Loss(kind, _brief(word)): None for word in words if _flat(word) not in flat}
        found |= {Loss("name", name): None for name in one.names if name.casefold() not in folded}
    found |= {Loss("rule", _brief(rule)): None for rule in rules}
    return tuple(found)


def _undecorated(text: str) -> str:
    """Bold words and headings as their words."""
    return _HASHES.sub("", BOLD.sub(r"\1", text))


def _parts(text: str) -> Iterator[str]:
    """The text in parts that `signals` reads whole, cut at lines."""
    part = ""
    for line in text.splitlines(keepends=True):
        if len(part) + len(line) > READ_CHARS:
            yield part
            part = ""
        part += line[:READ_CHARS]
    yield part


def _numbers(said: list[Signals], text: str) -> set[str]:
    """All numbers: in digits as they stand, in words as digits."""
    words = {number for one in said for number in (*one.numbers, *one.quantities, *one.dates, *one.times)}
    return {digits for word in words for digits in _DIGITS.findall(word)} | set(_DIGITS.findall(text))


def _unruly(long: str, short: str) -> list[str]:
    """The sentences that deny or bind and have none like them in the draft."""
    after = [_rule(piece) for piece in pieces(short)]
    by_word: dict[str, list[int]] = {}
    for number, rule in enumerate(after):
        for word in rule.content:
            by_word.setdefault(word, []).append(number)
    found = []
    for rule in dict.fromkeys(_rule(piece) for piece in pieces(long)):
        if not (rule.denies or rule.binds) or not rule.content:
            continue
        shared = Counter(number for word in rule.content for number in by_word.get(word, ()))
        least = _SHARED * len(rule.content)
        alike = (after[number] for number, count in shared.items() if count >= least)
        if not any(one.denies == rule.denies and one.binds >= rule.binds for one in alike):
            found.append(rule.text)
    return found


def _rule(piece: Piece) -> _Rule:
    denies, binds = obliges(piece.text)
    return _Rule(piece.text, denies, binds, frozenset(signals(piece.text).content))


def _flat(text: str) -> str:
    return " ".join(text.split())


def _brief(text: str) -> str:
    flat = _flat(text)
    return flat if len(flat) <= _SHOWN else flat[: _SHOWN - 1] + "…"
