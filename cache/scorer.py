"""Who says how safe a candidate is: the trained verifier, or the strict guard over a cosine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from farthing.cache.guard import disagreement
from farthing.cache.rarity import RouteWords
from farthing.cache.verifier import Verifier
from farthing.proxy.text import signals

__all__ = ["GuardScorer", "Scorer", "VerifierScorer"]


class Scorer(Protocol):
    """Scores candidates in [0, 1], higher is safer. Lives on the semantic cache's thread."""

    name: str

    def scores(self, text: str, candidates: Sequence[str], cosines: Sequence[float], words: RouteWords) -> list[float]:
        """For each candidate how safe its answer is for `text`. `words`: of the route."""
        ...

    def learn(self, text: str, words: RouteWords) -> None:
        """A text that the route has met."""
        ...

    def explain(self, text: str, candidate: str, cosine: float, words: RouteWords) -> dict[str, float | str]:
        """What told for and against one candidate, for people."""
        ...

    def against(self, text: str, candidate: str, cosine: float, words: RouteWords) -> list[str]:
        """What spoke against it, in words, the most telling first."""
        ...


class GuardScorer:
    """The cosine where the strict lexical guard finds nothing against the pair, else 0. Learns nothing."""

    name = "guard"

    def scores(self, text: str, candidates: Sequence[str], cosines: Sequence[float], words: RouteWords) -> list[float]:
        """See Scorer. A cosine that is no number is no reason to serve."""
        asked = signals(text)
        return [
            min(cosine, 1.0) if cosine >= 0.0 and not disagreement(asked, signals(one)) else 0.0
            for one, cosine in zip(candidates, cosines, strict=True)
        ]

    def learn(self, text: str, words: RouteWords) -> None:
        """See Scorer."""

    def explain(self, text: str, candidate: str, cosine: float, words: RouteWords) -> dict[str, float | str]:
        """See Scorer."""
        return {"cosine": cosine, "guard": disagreement(signals(text), signals(candidate)) or "passes"}

    def against(self, text: str, candidate: str, cosine: float, words: RouteWords) -> list[str]:
        """See Scorer."""
        reason = disagreement(signals(text), signals(candidate))
        return [reason] if reason else []


class VerifierScorer:
    """The trained verifier."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self.name = verifier.name

    def scores(self, text: str, candidates: Sequence[str], cosines: Sequence[float], words: RouteWords) -> list[float]:
        """See Scorer."""
        return self._verifier.scores(text, candidates, cosines, words)

    def learn(self, text: str, words: RouteWords) -> None:
        """See Scorer."""
        self._verifier.learn(text, words)

    def explain(self, text: str, candidate: str, cosine: float, words: RouteWords) -> dict[str, float | str]:
        """See Scorer."""
        return dict(self._verifier.explain(text, candidate, cosine, words))

    def against(self, text: str, candidate: str, cosine: float, words: RouteWords) -> list[str]:
        """See Scorer."""
        return self._verifier.against(text, candidate, cosine, words)
