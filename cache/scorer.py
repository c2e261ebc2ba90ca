"""Who says how safe a candidate is: the trained verifier, or the strict guard over a cosine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from farthing.cache.guard import disagreement
from farthing.cache.rarity import RouteWords
from farthing.cache.reading import Reading
from farthing.cache.verifier import Verifier
from farthing.proxy.text import Signals, signals

__all__ = ["GuardScorer", "Scorer", "VerifierScorer"]

R = TypeVar("R")


class Scorer(Protocol[R]):
    """Scores candidates in [0, 1], higher is safer. Lives on the semantic cache's thread.

    R: a text as it was read, which its owner keeps.
    """

    name: str

    def read(self, scope: str, text: str) -> R:
        """What there is to know of a normalised text; the dear part of scoring it, which no other scope is spared."""
        ...

    def scores(self, asked: R, candidates: Sequence[R], cosines: Sequence[float], words: RouteWords) -> list[float]:
        """For each candidate how safe its answer is for what is asked. `words`: of the route."""
        ...

    def learn(self, met: R, words: RouteWords) -> None:
        """A text that the route has met."""
        ...

    def explain(self, asked: R, candidate: R, cosine: float, words: RouteWords) -> dict[str, float | str]:
        """What told for and against one candidate, for people."""
        ...

    def against(self, asked: R, candidate: R, cosine: float, words: RouteWords) -> list[str]:
        """What spoke against it, in words, the most telling first."""
        ...


class GuardScorer:
    """The cosine where the strict lexical guard finds nothing against the pair, else 0. Learns nothing."""

    name = "guard"

    def read(self, scope: str, text: str) -> Signals:
        """See Scorer."""
        return signals(text)

    def scores(
        self, asked: Signals, candidates: Sequence[Signals], cosines: Sequence[float], words: RouteWords
    ) -> list[float]:
        """See Scorer. A cosine that is no number is no reason to serve."""
        return [
            min(cosine, 1.0) if cosine >= 0.0 and not disagreement(asked, one) else 0.0
            for one, cosine in zip(candidates, cosines, strict=True)
        ]

    def learn(self, met: Signals, words: RouteWords) -> None:
        """See Scorer."""

    def explain(self, asked: Signals, candidate: Signals, cosine: float, words: RouteWords) -> dict[str, float | str]:
        """See Scorer."""
        return {"cosine": cosine, "guard": disagreement(asked, candidate) or "passes"}

    def against(self, asked: Signals, candidate: Signals, cosine: float, words: RouteWords) -> list[str]:
        """See Scorer."""
        reason = disagreement(asked, candidate)
        return [reason] if reason else []


class VerifierScorer:
    """The trained verifier."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self.name = verifier.name

    def read(self, scope: str, text: str) -> Reading:
        """See Scorer."""
        return self._verifier.read(text, scope)

    def scores(
        self, asked: Reading, candidates: Sequence[Reading], cosines: Sequence[float], words: RouteWords
    ) -> list[float]:
        """See Scorer."""
        return self._verifier.scores(asked, candidates, cosines, words)

    def learn(self, met: Reading, words: RouteWords) -> None:
        """See Scorer."""
        words.learn(met.terms)

    def explain(self, asked: Reading, candidate: Reading, cosine: float, words: RouteWords) -> dict[str, float | str]:
        """See Scorer."""
        return dict(self._verifier.explain(asked, candidate, cosine, words))

    def against(self, asked: Reading, candidate: Reading, cosine: float, words: RouteWords) -> list[str]:
        """See Scorer."""
        return self._verifier.against(asked, candidate, cosine, words)
