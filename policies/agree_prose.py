"""Do two longer texts say the same? Facts first, meaning second. Pure.

Rules of this file:
1. Same needs all of it: the same numbers, dates, names, code and negations, and for each sentence one of like meaning
   on the other side, both ways. Different needs a fact that stands against another one. All else is Unsure.
2. A sentence that differs from its like in a word or two holds a synonym or another fact: those words are compared.
3. Cost is bounded: 120 sentences, 8,000 characters each.

Sentence by sentence and both ways, since a text's mean vector hides one changed sentence; compare BERTScore (Zhang et
al., 2020), which matches tokens both ways. The thresholds were chosen on one half of the pairs of bench/comparators.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from farthing.policies.opinion import Embed, Opinion, different, same, unsure
from farthing.proxy.lexicon import STOP
from farthing.proxy.text import READ_CHARS, Signals, normalise, signals, stem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["compare_prose", "sentences"]

# Cosine of all-MiniLM-L6-v2: the least of any sentence's best match, and the mean over all sentences.
EACH_AT_LEAST = 0.80
MEAN_AT_LEAST = 0.90
# Cosine of the replaced words alone: 'often' and 'frequently' .92, 'denver' and 'syria' .42.
WORDS_AT_LEAST = 0.75
# Below this mean the texts speak of other things.
MEAN_APART = 0.35
_LIKE = 0.75
_MOST_SENTENCES = 120
_SLOT_WORDS = 2
_SLOT_REST = 0.6

_SPLIT = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[*_]*[^\Wa-z_])|\n+")
_BULLET = re.compile(r"^[ \t]*(?:[-*+•>]|#{1,6}|\(?\d{1,2}[.)])[ \t]+")
_EMPHASIS = re.compile(r"\*\*|__|`|(?<!\w)[*_]|[*_](?!\w)")
_FILLER = re.compile(
    r"(?:sure|certainly|of course|absolutely|great question|you're welcome)(?: thing)?[,.!:]?"
    r"|(?:sure|certainly|of course)?[,.!]? ?here(?:'s| is| are) (?:the |your |an? )?\w{1,12}(?: \w{1,12})?:"
    r"|i hope (?:this|that) (?:helps|answers your question)[.!]?"
    r"|(?:please )?(?:let me know if|feel free to ask if|is there anything) [a-z' ]{1,60}[.!?]",
    re.I,
)
# Small words that turn a sentence's direction: 'opt in', 'opt out'.
_TELLING = frozenset(
    {"to", "from", "in", "out", "on", "off", "up", "down", "over", "under", "with", "all", "some", "any"}
)
_NEGATING = ("un", "in", "im", "il", "ir", "dis", "non", "non-", "de", "mis", "anti", "anti-")
# What a fact is, and what to call it when it differs. Multisets: order is the sentences' business.
_FACTS = ("numbers", "quantities", "dates", "times", "code", "symbols", "foreign")


@dataclass(frozen=True, slots=True)
class _Sentence:
    """One sentence, with what it says."""

    text: str
    said: Signals


def compare_prose(a: str, b: str, embed: Embed | None) -> Opinion:
    """Two texts of any length. Without `embed` only the same words in the same order are Same."""
    one, other = sentences(a), sentences(b)
    if not one or not other:
        return unsure("prose", "no words")
    if max(len(one), len(other)) > _MOST_SENTENCES or max(map(len, (*one, *other))) > READ_CHARS:
        return unsure("prose", "too long to compare")
    mine, theirs = ([_Sentence(text, signals(text)) for text in texts] for texts in (one, other))
    if _words(mine) == _words(theirs) and not _facts_apart(mine, theirs):
        return same("prose", "the same words")
    if embed is None:
        return unsure("prose", "other words, and nothing to compare their meaning")
    try:
        vectors = embed([*one, *other])
    except ValueError:
        return unsure("prose", "a sentence beyond the model's window")
    found = _judge(mine, theirs, vectors[: len(one)] @ vectors[len(one) :].T)
    if isinstance(found, Opinion):
        return found
    words = embed([words for slot in found for words in slot]) if found else None
    if words is not None and float((words[::2] * words[1::2]).sum(axis=1).min()) < WORDS_AT_LEAST:
        return unsure("prose", "a word differs")
    return same("prose", "the same facts, and every sentence has its like")


def sentences(text: str) -> list[str]:
    """The sentences and list items, without markdown, bullets and phrases of politeness."""
    found = []
    for piece in _SPLIT.split(_shortened(text)):
        bare = _EMPHASIS.sub("", _BULLET.sub("", piece)).strip()
        # Politeness that denies something isn't only that.
        if bare and not (_FILLER.fullmatch(bare) and " not" not in bare and "n't" not in bare):
            found.append(bare)
    return found


def _shortened(text: str) -> str:
    """The text normalised, in parts that `normalise` reads whole."""
    return "\n".join(normalise(text[at : at + READ_CHARS]) for at in range(0, len(text), READ_CHARS))


def _words(texts: list[_Sentence]) -> list[str]:
    """All words in order, without punctuation, articles and case; 'it's' as 'it is'."""
    return [word for one in texts for word in _expanded(one.text.casefold()) if word not in ("a", "an", "the")]


_WORD = re.compile(r"\w++(?:[.,]\d++)*+")
_CONTRACTIONS = re.compile(r"\b(can|won|\w+)(?:'t|n't)\b|'(s|re|ve|ll|d|m)\b")
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_FULL = {"re": " are", "ve": " have", "ll": " will", "m": " am", "s": " is", "d": " would"}


def _expanded(text: str) -> list[str]:
    def full(match: re.Match[str]) -> str:
        if match[2]:
            return _FULL[match[2]]
        stem = match[1].removesuffix("n") if match[0].endswith("n't") else match[1]
        return {"ca": "can", "can": "can", "wo": "will", "won": "will"}.get(stem, stem) + " not"

    plain = _CONTRACTIONS.sub(full, _GROUPED.sub("", text))
    return _WORD.findall(plain.replace("cannot", "can not"))


def _facts_apart(mine: list[_Sentence], theirs: list[_Sentence]) -> str:
    """The first kind of fact of which each side has one that the other hasn't ('!…'), or only one side has more."""
    extra = ""
    for name in _FACTS:
        ours, others = (Counter(fact for one in texts for fact in getattr(one.said, name)) for texts in (mine, theirs))
        more, less = set(ours) - set(others), set(others) - set(ours)
        if more and less:
            return f"!{name} differ"
        if more or less:
            extra = extra or f"{name} differ"
    return extra


def _judge(
    mine: list[_Sentence], theirs: list[_Sentence], cosines: NDArray[np.float32]
) -> Opinion | list[tuple[str, str]]:
    """An opinion, or the replaced words on whose likeness it depends. `cosines`: [len(mine), len(theirs)]."""
    best, back = cosines.max(axis=1), cosines.max(axis=0)
    mean = float((best.sum() + back.sum()) / (len(best) + len(back)))
    pairs = [(one, theirs[int(cosines[at].argmax())], float(best[at])) for at, one in enumerate(mine)]
    pairs += [(other, mine[int(cosines[:, at].argmax())], float(back[at])) for at, other in enumerate(theirs)]
    against = next((found for one, other, cosine in pairs if cosine >= _LIKE and (found := _against(one, other))), "")
    if against:
        return different("prose", against)
    apart = _facts_apart(mine, theirs)
    if mean < MEAN_APART:
        return different("prose", "about other things")
    if apart:
        return unsure("prose", apart.lstrip("!"))
    doubt = next((found for one, other, _ in pairs if (found := _doubt(one, other))), "")
    if doubt:
        return unsure("prose", doubt)
    if float(min(best.min(), back.min())) < EACH_AT_LEAST or mean < MEAN_AT_LEAST:
        return unsure("prose", "other words")
    slots = [slot for one, other, _ in pairs if (slot := _slot(one, other)) is not None]
    return slots if all(ours and others for ours, others in slots) else unsure("prose", "a word more or less")


def _against(one: _Sentence, other: _Sentence) -> str:
    """What of two sentences that are about the same thing stands against each other."""
    for name in ("numbers", "quantities", "dates", "times"):
        ours, others = Counter(getattr(one.said, name)), Counter(getattr(other.said, name))
        if ours - others and others - ours and sum((ours & others).values()) + 1 >= max(ours.total(), others.total()):
            return f"{name} differ"
    if bool(one.said.negations % 2) != bool(other.said.negations % 2) and _overlap(one, other) >= _LIKE:
        return "negation differs"
    names = {stem(name) for name in (*one.said.names, *other.said.names)}
    if _overlap(one, other, names) >= _LIKE:
        ours, others = (Counter(word for word in x.said.names if word not in y.said.words) for x, y in
                        ((one, other), (other, one)))  # fmt: skip
        if ours and ours.total() == others.total():
            return "names differ"
    return ""


def _doubt(one: _Sentence, other: _Sentence) -> str:
    """What keeps a sentence and its like from surely meaning the same."""
    if bool(one.said.negations % 2) != bool(other.said.negations % 2):
        return "negation differs"
    opposite = {("-" if pole[0] == "+" else "+") + pole[1:] for pole in other.said.poles}
    if set(one.said.poles) != set(other.said.poles) and opposite & set(one.said.poles):
        return "direction differs"
    if set(one.said.bounds) != set(other.said.bounds):
        return "bounds differ"
    if _negated(one, other) or _negated(other, one):
        return "negation differs"
    if {*one.said.words} & _TELLING != {*other.said.words} & _TELLING and _overlap(one, other) >= _LIKE:
        return "direction differs"
    names = {*one.said.names, *other.said.names}
    if Counter(w for w in one.said.words if w in names) != Counter(w for w in other.said.words if w in names):
        return "names differ"
    if names and [w for w in one.said.words if w in names] != [w for w in other.said.words if w in names]:
        return "names in another order"
    return ""


def _negated(one: _Sentence, other: _Sentence) -> bool:
    """Whether one denies a word of the other by a prefix: 'members', 'non-members'."""
    ours, others = {*one.said.content} - {*other.said.content}, {*other.said.content} - {*one.said.content}
    return any(prefix + word in others for word in ours for prefix in _NEGATING)


def _slot(one: _Sentence, other: _Sentence) -> tuple[str, str] | None:
    """The words of each that the other lacks, where two sentences are one template with a word or two replaced."""
    ours, others = Counter(one.said.content), Counter(other.said.content)
    common = (ours & others).total()
    most = max((ours - others).total(), (others - ours).total())
    if not 0 < most <= _SLOT_WORDS or common < _SLOT_REST * max(ours.total(), others.total()):
        return None
    return _only(one, others), _only(other, ours)


def _only(sentence: _Sentence, others: Counter[str]) -> str:
    return " ".join(word for word in sentence.said.words if word not in STOP and stem(word) not in others)


def _overlap(one: _Sentence, other: _Sentence, but: Set[str] = frozenset()) -> float:
    """Which share of their words, without those of `but`, two sentences have in common."""
    ours, others = {*one.said.content} - but, {*other.said.content} - but
    return len(ours & others) / max(len(ours | others), 1)
