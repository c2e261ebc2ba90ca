"""What common English words mean: how frequent they are, which mean the same, are of a kind, or are opposites.

Reads `lexical/words.tsv` (see bench/make_thesaurus.py and NOTICE): about 16,000 words. A word that isn't there is rare
and related to nothing. Nothing is read at import.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from farthing.cache.rarity import prior_of
from farthing.proxy.text import stem

__all__ = ["NOTHING", "Sense", "Thesaurus"]

_FILE = Path(__file__).parent / "lexical" / "words.tsv"
_ENDINGS = (("ies", "y"), ("ied", "y"), ("es", ""), ("ing", ""), ("ed", ""), ("s", ""), ("ing", "e"), ("ed", "e"))
_RAREST = 40_000


@dataclass(frozen=True, slots=True)
class Sense:
    """A word's `rank` by frequency (0 is 'the'), its `meanings`, the `kinds` one step above, its `opposites`' stems.

    `prior`: rarity.prior_of(rank).
    """

    rank: int
    meanings: frozenset[int]
    kinds: frozenset[int]
    opposites: frozenset[str]
    prior: float


NOTHING = Sense(_RAREST, frozenset(), frozenset(), frozenset(), prior_of(_RAREST))
# Inflected forms whose senses are kept: an entry's reading then shares them with all others'.
_KEPT_FORMS = 16_384


class Thesaurus:
    """Looks words up, inflected or not. About 14 MB; reading it takes some 50 ms."""

    def __init__(self, senses: dict[str, Sense]) -> None:
        self._senses = senses
        self._forms: dict[str, Sense] = {}

    @classmethod
    def load(cls, path: Path = _FILE) -> Thesaurus:
        """Raises OSError where the file is missing, ValueError where it isn't of the form."""
        lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
        return cls({word: sense for rank, line in enumerate(lines) for word, sense in [_parsed(rank, line)]})

    def __len__(self) -> int:
        return len(self._senses)

    def __iter__(self) -> Iterator[str]:
        """The words, the most frequent first."""
        return iter(self._senses)

    def sense(self, word: str) -> Sense:
        """The word's, lower case; an inflected form that means nothing by itself gets its base form's meanings."""
        found = self._forms.get(word)
        if found is None:
            found = self._sense(word)
            if found is not NOTHING:
                if len(self._forms) >= _KEPT_FORMS:
                    self._forms.clear()
                self._forms[word] = found
        return found

    def _sense(self, word: str) -> Sense:
        own = self._senses.get(word, NOTHING)
        if own.meanings or own.kinds or own.opposites:
            return own
        for ending, instead in _ENDINGS:
            if word.endswith(ending) and len(word) - len(ending) > 2:
                bare = word.removesuffix(ending)
                doubled = bare[:-1] if not instead and bare[-1] == bare[-2] else bare
                base = self._senses.get(bare + instead) or self._senses.get(doubled)
                if base is not None:
                    nearer = own if own.rank < base.rank else base
                    return Sense(nearer.rank, base.meanings, base.kinds, base.opposites, nearer.prior)
        return own


def _parsed(rank: int, line: str) -> tuple[str, Sense]:
    word, meanings, kinds, opposites, *_ = (*line.split("\t"), "", "", "")
    stems = frozenset(map(stem, opposites.split()))
    return word, Sense(rank, _numbers(meanings), _numbers(kinds), stems, prior_of(rank))


def _numbers(listed: str) -> frozenset[int]:
    return frozenset(map(int, listed.split(","))) if listed else frozenset()
