"""An optional second stage: somebody who reads both texts together, for the few candidates that the verifier doubts.

It is asked only about a candidate whose score lies in a band, and moves it within that band and no further: `combined`.
There are two: a model upstream (proxy/judge.py) and, here, a cross-encoder of sentence-transformers, which is an extra;
nothing is downloaded while serving.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from farthing.proxy.errors import FarthingError

__all__ = ["Band", "CrossEncoderOpinion", "OpinionUnavailable", "SecondOpinion", "combined"]


class OpinionUnavailable(FarthingError):
    """The model can't be had; the message says what is missing."""


class SecondOpinion(Protocol):
    """`name` identifies the model, for the ledger."""

    @property
    def name(self) -> str: ...

    def scores(self, text: str, candidates: Sequence[str]) -> list[float]:
        """For each candidate the probability in [0, 1] that both texts get the same answer; 0 where it can't tell."""
        ...


@dataclass(frozen=True, slots=True)
class Band:
    """The first scores that are doubted: from `low` up to, not including, `high`. ValueError: not within [0, 1]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.low < self.high <= 1.0:
            raise ValueError("a band lies within 0 and 1, its lower end first")

    def holds(self, score: float) -> bool:
        """Whether somebody must be asked."""
        return self.low <= score < self.high


def combined(first: float, second: float, band: Band) -> float:
    """The score for the policy. Outside the band the first score; within it, of its place there and of `second`, the
    mean: a plain yes lies above a plain no, and of two yeses the one that the first stage liked better.

    Never falls when either score rises, and never leaves the band, so that what nobody was asked about keeps its place
    above or below. What is no probability counts as no.
    """
    if not band.holds(first):
        return first
    width = band.high - band.low
    sure = second if math.isfinite(second) and 0.0 <= second <= 1.0 else 0.0
    return min(band.low + width * ((first - band.low) / width + sure) / 2, band.high)


class CrossEncoderOpinion:
    """A CrossEncoder with one output (as duplicate-question models have), by name or folder, from this machine only.

    Not for two threads at once. Raises OpinionUnavailable.
    """

    def __init__(self, model: str) -> None:
        try:
            from sentence_transformers import CrossEncoder
        except ImportError:
            raise OpinionUnavailable(
                "sentence-transformers is not installed: pip install 'farthing[sentence-transformers]'"
            ) from None
        try:
            self._model = cast("Any", CrossEncoder)(model, device="cpu", local_files_only=True)
        except Exception as error:
            raise OpinionUnavailable(
                f"sentence-transformers can't load {model!r} as a cross-encoder: {type(error).__name__}"
            ) from error
        if int(self._model.config.num_labels) != 1:
            raise OpinionUnavailable(f"{model!r} has {self._model.config.num_labels} outputs; one is needed")
        self.name = f"cross-encoder:{model}"
        # Renamed within version 5.
        window = getattr(self._model, "max_seq_length", None) or getattr(self._model, "max_length", None)
        self._window = int(window or 512)

    def scores(self, text: str, candidates: Sequence[str]) -> list[float]:
        """See SecondOpinion. Both orders are asked and the lesser counts, so that it's symmetric. A pair beyond the
        window scores 0: a text is never silently cut."""
        plain = _plain(text)
        pairs = [(plain, _plain(one)) for one in candidates]
        fits = [pair for pair in pairs if self._count(pair) <= self._window]
        if not fits:
            return [0.0] * len(pairs)
        import torch

        asked = [*fits, *((b, a) for a, b in fits)]
        found = self._model.predict(asked, activation_fn=torch.nn.Sigmoid(), show_progress_bar=False)
        values = [float(value) for value in found]
        least = {pair: min(values[at], values[at + len(fits)]) for at, pair in enumerate(fits)}
        return [least.get(pair, 0.0) for pair in pairs]

    def _count(self, pair: tuple[str, str]) -> int:
        return len(self._model.tokenizer(*pair, truncation=False, verbose=False)["input_ids"])


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
