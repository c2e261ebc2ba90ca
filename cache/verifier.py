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
from farthing.cache.reading import Reading, read
from farthing.cache.signals import FEATURES, Asked, comparable, compare
from farthing.cache.thesaurus import Thesaurus
from farthing.cache.verifier_model import MODEL, VERSION
from farthing.proxy.errors import FarthingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MODEL", "VERSION", "Trees", "Verifier", "VerifierUnavailable"]

_KEPT = 4_096
# A tree's answers must fit a byte.
_MOST_DEPTH = 3
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
        sound = inside and 1 <= self.depth <= _MOST_DEPTH and self._linear.shape == (len(FEATURES),) and self._slope > 0
        numbers = [self.leaf, self._linear, np.array([self._start, self._slope, self._offset])]
        if not sound or not all(np.isfinite(part).all() for part in numbers):
            raise VerifierUnavailable("the verifier's model is damaged: install farthing again")
        # A tree's answers, one bit a node, are the row of a table of its leaves: no walk from node to node.
        spare = ((0, 0), (0, 8 - nodes))
        self._flat = np.pad(self.feature, spare).ravel()
        self._thresholds = np.pad(self.threshold, spare, constant_values=np.inf).ravel()
        self._leaves = self.leaf[:, _leaf_of_answers(self.depth)].ravel()
        self._first_leaf = np.arange(count) * 256

    def sums(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64 [n, features] to [n]: the uncalibrated log-odds."""
        import numpy as np

        answers = np.packbits(rows.take(self._flat, axis=1) > self._thresholds, axis=1)
        leaves = self._leaves.take(answers + self._first_leaf).sum(axis=1)
        return np.asarray(leaves + rows @ self._linear + self._start)

    def probabilities(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64 [n, features] to [n], each in (0, 1)."""
        import numpy as np

        odds = np.minimum(np.maximum(self._slope * self.sums(rows) + self._offset, -30.0), 30.0)
        return np.asarray(1.0 / (1.0 + np.exp(-odds)))


def _leaf_of_answers(depth: int) -> list[int]:
    """Which leaf a tree of that depth ends at, by its nodes' answers (node 0's is the highest of eight bits)."""
    leaves = []
    for answers in range(256):
        node = 0
        for _ in range(depth):
            node = 2 * node + 1 + (answers >> (7 - node) & 1)
        leaves.append(node - (2**depth - 1))
    return leaves


class Verifier:
    """Reads texts, remembers the latest 4,096 (a miss is read once for its look-up and its entry), and scores pairs.

    Not for two threads at once.
    """

    def __init__(self, trees: Trees, thesaurus: Thesaurus, *, name: str, kept: int = _KEPT) -> None:
        self.name = name
        self._trees = trees
        self._thesaurus = thesaurus
        self._kept = kept
        self._readings: OrderedDict[tuple[str, str], Reading] = OrderedDict()

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

    def read(self, text: str, scope: str = "") -> Reading:
        """What `text` says. What was read for one scope is read anew for another, or its time would tell of it; '' is
        for those who read texts of their own alone."""
        key = (scope, text)
        found = self._readings.get(key)
        if found is None:
            found = self._readings[key] = read(text, self._thesaurus)
            if len(self._readings) > self._kept:
                self._readings.popitem(last=False)
        else:
            self._readings.move_to_end(key)
        return found

    def rows(
        self, asked: Reading, candidates: Sequence[Reading], cosines: Sequence[float], words: RouteWords
    ) -> list[list[float]]:
        """The features of each candidate, [candidates][features]."""
        prepared = Asked(asked, words)
        return [compare(prepared, one, cosine) for one, cosine in zip(candidates, cosines, strict=True)]

    def scores(
        self, asked: Reading, candidates: Sequence[Reading], cosines: Sequence[float], words: RouteWords
    ) -> list[float]:
        """For each candidate the probability that its answer answers what is asked, in [0, 1].

        `cosines`: of the candidates' vectors with its own; one that is no number counts as -1. `words`: the
        route's. Raises ValueError where there aren't as many cosines as candidates.
        """
        import numpy as np

        if not candidates:
            return []
        near = [cosine if -1.0 <= cosine <= 1.0 else (1.0 if cosine > 1.0 else -1.0) for cosine in cosines]
        rows = self.rows(asked, candidates, near, words)
        table = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * len(FEATURES)).reshape(len(rows), -1)
        found = self._trees.probabilities(table).tolist()
        return [
            0.0 if comparable(asked, one) else 1.0 if asked.text == one.text else score
            for one, score in zip(candidates, found, strict=True)
        ]

    def explain(self, asked: Reading, candidate: Reading, cosine: float, words: RouteWords) -> dict[str, float]:
        """The features of one pair that say something, by name, for people."""
        row = compare(Asked(asked, words), candidate, cosine)
        return {
            name: value
            for (name, direction), value in zip(FEATURES.items(), row, strict=True)
            if direction >= 0 or value
        }

    def against(self, asked: Reading, candidate: Reading, cosine: float, words: RouteWords) -> list[str]:
        """The pair's kinds of difference (see differences.KINDS), what lowers its score most first."""
        import numpy as np

        reason = comparable(asked, candidate)
        if reason or asked.text == candidate.text:
            return [reason] if reason else []
        row = compare(Asked(asked, words), candidate, cosine)
        others = {kind: changed for kind, names in KINDS.items() if (changed := without(row, names)) != row}
        now, *then = self._trees.sums(np.asarray([row, *others.values()], np.float64)).tolist()
        gains = {kind: found - now for kind, found in zip(others, then, strict=True)}
        if gains.get(AS_A_WHOLE, 0.0) < _TELLING:
            gains.pop(AS_A_WHOLE, None)
        return sorted(gains, key=lambda kind: (kind == AS_A_WHOLE, -gains[kind]))
