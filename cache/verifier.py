"""How probable it is that two texts get the same answer. A small boosted-trees model over `signals`; pure inference.

The model file is made by bench/train_verifier.py, which writes into it how, from what, and how good it is. Rules:
1. Texts that are equal when normalised score 1; texts that can't be compared score 0; all others lie between.
2. The trees are monotone: a mismatch may only lower the score (see signals.FEATURES).
3. Scores are symmetric in the two texts.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farthing.cache.differences import AS_A_WHOLE, KINDS, without
from farthing.cache.rarity import RouteWords
from farthing.cache.signals import FEATURES, Reading, comparable, compare, read
from farthing.cache.thesaurus import Thesaurus
from farthing.proxy.errors import FarthingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["VERSION", "Trees", "Verifier", "VerifierUnavailable"]

VERSION = 1
MODEL = Path(__file__).parent / "lexical" / "verifier.json"
_KEPT = 4_096
# Log-odds that distance as a whole must cost a pair before it is worth a word.
_TELLING = 0.5


class VerifierUnavailable(FarthingError):
    """The model can't be used; the message says why."""


class Trees:
    """Trees of one depth, laid out in arrays, and the scale that turns their sum into a probability.

    `feature`, `threshold`: [trees, 2**depth - 1], the children of node n are 2n+1 (value <= threshold) and 2n+2;
    `leaf`: [trees, 2**depth]; `linear`: [features]. Probability: 1 / (1 + exp(-(slope * sum + offset))), where the sum
    is start + the leaves + linear @ features.
    """

    def __init__(self, model: dict[str, Any]) -> None:
        """Raises VerifierUnavailable for a model of another version, or that isn't of the form."""
        import numpy as np

        if model.get("version") != VERSION or model.get("features") != list(FEATURES):
            raise VerifierUnavailable("the verifier's model is of another version: install farthing again")
        try:
            self.depth = int(model["depth"])
            self.feature = np.asarray(model["feature"], np.intp)
            self.threshold = np.asarray(model["threshold"], np.float64)
            self.leaf = np.asarray(model["leaf"], np.float64)
            self._linear = np.asarray(model["linear"], np.float64)
            self._start = float(model["start"])
            self._slope, self._offset = float(model["slope"]), float(model["offset"])
        except (KeyError, TypeError, ValueError) as error:
            raise VerifierUnavailable("the verifier's model is damaged: install farthing again") from error
        count, nodes = len(self.leaf), 2**self.depth - 1
        fits = self.feature.shape == self.threshold.shape == (count, nodes) and self.leaf.shape == (count, nodes + 1)
        inside = fits and 0 <= self.feature.min() <= self.feature.max() < len(FEATURES)
        sound = inside and self._linear.shape == (len(FEATURES),) and self._slope > 0
        numbers = [self.leaf, self._linear, np.array([self._start, self._slope, self._offset])]
        if not sound or not all(np.isfinite(part).all() for part in numbers):
            raise VerifierUnavailable("the verifier's model is damaged: install farthing again")
        self._flat = self.feature.ravel()
        self._thresholds = self.threshold.ravel()
        self._first = np.arange(count) * nodes
        self._leaves = self.leaf.ravel()
        self._first_leaf = np.arange(count) * (nodes + 1)

    def sums(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64 [n, features] to [n]: the uncalibrated log-odds."""
        import numpy as np

        right = (rows.take(self._flat, axis=1) > self._thresholds).ravel()
        first = np.arange(len(rows))[:, None] * len(self._flat) + self._first
        within = right.take(first).astype(np.intp)
        for level in range(1, self.depth):
            within = 2 * within + right.take(first + (within + (2**level - 1)))
        leaves = self._leaves.take(within + self._first_leaf).sum(axis=1)
        return np.asarray(leaves + rows @ self._linear + self._start)

    def probabilities(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64 [n, features] to [n], each in (0, 1)."""
        import numpy as np

        odds = np.minimum(np.maximum(self._slope * self.sums(rows) + self._offset, -30.0), 30.0)
        return np.asarray(1.0 / (1.0 + np.exp(-odds)))


class Verifier:
    """Reads texts, keeps what it read of the latest 4,096, and scores pairs. Not for two threads at once."""

    def __init__(self, trees: Trees, thesaurus: Thesaurus, *, name: str, kept: int = _KEPT) -> None:
        self.name = name
        self._trees = trees
        self._thesaurus = thesaurus
        self._kept = kept
        self._readings: OrderedDict[str, Reading] = OrderedDict()

    @classmethod
    def open(cls, path: Path = MODEL) -> Verifier:
        """The model and the thesaurus that ship. `name`: 'verifier-VERSION/HASH', for the ledger.

        Raises VerifierUnavailable. Takes some 60 ms.
        """
        try:
            content = path.read_bytes()
            model = json.loads(content)
            thesaurus = Thesaurus.load()
        except (OSError, ValueError) as error:
            raise VerifierUnavailable(f"the verifier can't be loaded: {type(error).__name__}") from error
        if not isinstance(model, dict):
            raise VerifierUnavailable("the verifier's model is damaged: install farthing again")
        return cls(Trees(model), thesaurus, name=f"verifier-{VERSION}/{hashlib.sha256(content).hexdigest()[:8]}")

    def read(self, text: str) -> Reading:
        """What `text` says; kept, so that a stored text is read once as long as it is in use."""
        found = self._readings.get(text)
        if found is None:
            found = self._readings[text] = read(text, self._thesaurus)
            if len(self._readings) > self._kept:
                self._readings.popitem(last=False)
        else:
            self._readings.move_to_end(text)
        return found

    def learn(self, text: str, words: RouteWords) -> None:
        """Count the words of a text that the route has met."""
        words.learn(self.read(text).terms)

    def rows(
        self, asked: Reading, candidates: Sequence[Reading], cosines: Sequence[float], words: RouteWords
    ) -> list[list[float]]:
        """The features of each candidate, [candidates][features]."""
        rarity = words.rarity
        return [compare(asked, one, cosine, rarity) for one, cosine in zip(candidates, cosines, strict=True)]

    def scores(self, text: str, candidates: Sequence[str], cosines: Sequence[float], words: RouteWords) -> list[float]:
        """For each candidate the probability that its answer answers `text`, in [0, 1].

        `cosines`: of the candidates' vectors with the text's; one that is no number counts as -1. `words`: the
        route's. Raises ValueError where there aren't as many cosines as candidates.
        """
        import numpy as np

        if not candidates:
            return []
        asked = self.read(text)
        others = [self.read(one) for one in candidates]
        near = [cosine if -1.0 <= cosine <= 1.0 else (1.0 if cosine > 1.0 else -1.0) for cosine in cosines]
        rows = self.rows(asked, others, near, words)
        table = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * len(FEATURES)).reshape(len(rows), -1)
        found = self._trees.probabilities(table).tolist()
        return [
            0.0 if comparable(asked, one) else 1.0 if asked.signals.text == one.signals.text else score
            for one, score in zip(others, found, strict=True)
        ]

    def explain(self, text: str, candidate: str, cosine: float, words: RouteWords) -> dict[str, float]:
        """The features of one pair that say something, by name, for people."""
        row = compare(self.read(text), self.read(candidate), cosine, words.rarity)
        return {
            name: value
            for (name, direction), value in zip(FEATURES.items(), row, strict=True)
            if direction >= 0 or value
        }

    def against(self, text: str, candidate: str, cosine: float, words: RouteWords) -> list[str]:
        """The pair's kinds of difference (see differences.KINDS), what lowers its score most first."""
        import numpy as np

        one, other = self.read(text), self.read(candidate)
        reason = comparable(one, other)
        if reason or one.signals.text == other.signals.text:
            return [reason] if reason else []
        row = compare(one, other, cosine, words.rarity)
        others = {kind: changed for kind, names in KINDS.items() if (changed := without(row, names)) != row}
        now, *then = self._trees.sums(np.asarray([row, *others.values()], np.float64)).tolist()
        gains = {kind: found - now for kind, found in zip(others, then, strict=True)}
        if gains.get(AS_A_WHOLE, 0.0) < _TELLING:
            gains.pop(AS_A_WHOLE, None)
        return sorted(gains, key=lambda kind: (kind == AS_A_WHOLE, -gains[kind]))
