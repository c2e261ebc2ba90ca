"""Whether two texts that look alike to an embedding ask for the same: a strict, lexical check. Pure.

It errs on the side of disagreement: a refused pair costs one upstream call, a passed one may cost a wrong answer.
What passes is not proved right either; see `SemanticCache`.
"""

from __future__ import annotations

from farthing.cache.unmatchable import unmatchable
from farthing.proxy.lexicon import STOP
from farthing.proxy.text import Signals, stem

__all__ = ["disagreement", "unmatchable"]

# Compared as ordered tuples: 'from 5 to 3' is not 'from 3 to 5'.
_EQUAL = (
    ("foreign", "words in another script differ"),
    ("mixed", "words of mixed scripts differ"),
    ("numbers", "numbers differ"),
    ("quantities", "quantities differ"),
    ("dates", "dates differ"),
    ("times", "times differ"),
    ("relative", "relative dates differ"),
    ("units", "units differ"),
    ("bounds", "bounds differ"),
    ("code", "identifiers differ"),
    ("quotes", "quotations differ"),
    ("symbols", "symbols differ"),
    ("negations", "negation differs"),
)
# Questions that ask for different things; 'what', 'which', 'how' and yes/no questions reword each other.
_OPEN_QUESTIONS = frozenset({"", "what", "which", "how", "yes/no"})
# Stop words that change what is asked when nothing else does: 'to Rome', 'from Rome'; 'my card', 'her card'.
_TELLING = frozenset(
    {"to", "from", "into", "on", "off", "in", "out", "up", "down", "over", "under", "by", "all", "some", "any", "my"}
    | {"your", "our", "his", "her", "their", "should", "must", "will", "did", "was", "were", "who", "when", "where"}
)
_PAST = frozenset({"was", "were", "did", "had"})
_PRESENT = frozenset({"is", "are", "am", "do", "does", "has", "have"})
_NEGATING = ("un", "in", "im", "il", "ir", "dis", "non", "non-", "de", "mis", "anti", "anti-")
_PLACE_WORDS = 4
_EDGES = ".,;:!?()[]\"'`"


def disagreement(a: Signals, b: Signals) -> str:
    """The first reason why an answer to one text may not answer the other; '' where none is found. Symmetric.

    Numbers, names and whatever may swap parts must come in the same order. Text whose language or script the word
    lists don't cover agrees only word for word.
    """
    if a.cut or b.cut:
        return "too long to compare"
    for field, reason in _EQUAL:
        if getattr(a, field) != getattr(b, field):
            return reason
    order = "word order differs" if _moved(a.content, b.content) or _moved(_sequence(a), _sequence(b)) else ""
    if a.words == b.words:
        return order
    if a.language and b.language and a.language != b.language:
        return "languages differ"
    if {a.language, b.language} - {"", "en"}:
        return "language not covered"
    return _names(a, b) or _meaning(a, b) or order or _one_place(a, b)


def _names(a: Signals, b: Signals) -> str:
    # A word that is capitalised as a name in either text is a name in both, so that lower case doesn't hide it.
    names = {*a.names, *b.names}
    same = [word for word in a.words if word in names] == [word for word in b.words if word in names]
    return "" if same else "names differ"


def _meaning(a: Signals, b: Signals) -> str:
    asked = {a.question, b.question}
    if (len(asked) == 2 and len(asked - _OPEN_QUESTIONS) == 2) or ("why" in asked and len(asked - {""}) == 2):
        return "questions differ"
    opposite = {"-" + pole[1:] if pole[0] == "+" else "+" + pole[1:] for pole in b.poles}
    if set(a.poles) != set(b.poles) and opposite & set(a.poles):
        return "direction differs"
    only_a, only_b = set(a.content) - set(b.content), set(b.content) - set(a.content)
    if _negates(only_a, only_b) or _negates(only_b, only_a):
        return "negation differs"
    return "roles differ" if _facing(a, b) != _facing(b, a) else ""


def _facing(a: Signals, b: Signals) -> set[tuple[str, str]]:
    """The pairs of `a` that `b` has too, either way round."""
    return {pair for pair in a.pairs if pair in b.pairs or pair[::-1] in b.pairs}


def _negates(these: set[str], those: set[str]) -> bool:
    return any(prefix + word in those for word in these for prefix in _NEGATING)


def _sequence(a: Signals) -> tuple[str, ...]:
    """All that isn't a stop word, numbers and identifiers included: 'is x over 5' is not 'is 5 over x'."""
    pieces = (piece.strip(_EDGES) for piece in a.text.split())
    folded = (piece.removesuffix("'s").casefold() if piece not in a.code else piece for piece in pieces)
    return tuple(stem(piece) for piece in folded if piece and piece not in STOP)


def _moved(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """The same words in another order, unless one part was moved to the other end ('In Java, how ...')."""
    if one == other or sorted(one) != sorted(other):
        return False
    return len(one) < 3 or all(one[at:] + one[:at] != other for at in range(1, len(one)))


def _one_place(a: Signals, b: Signals) -> str:
    """Texts alike but for one short place, where the words mean different things: a slot of one template."""
    one, other = a.words, b.words
    least = min(len(one), len(other))
    front = next((at for at in range(least) if one[at] != other[at]), least)
    left = least - front
    back = next((at for at in range(left) if one[-1 - at] != other[-1 - at]), left)
    mine, theirs = one[front : len(one) - back], other[front : len(other) - back]
    longest = max(len(mine), len(theirs))
    if longest > _PLACE_WORDS or 2 * (front + back) < max(len(one), len(other)):
        return ""
    told, other_told = ({word for word in place if word in _TELLING} for place in (mine, theirs))
    said, other_said = ({stem(word) for word in place if word not in STOP} for place in (mine, theirs))
    tensed = (_PAST & {*mine} and _PRESENT & {*theirs}) or (_PRESENT & {*mine} and _PAST & {*theirs})
    if said != other_said or (told and other_told and told != other_told) or tensed:
        return "one place differs"
    return ""
