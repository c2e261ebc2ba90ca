"""A student: a linear head over an embedding that says what its teacher would, as plain data. Pure.

Rules of this file:
1. A student is numbers and texts, never code: JSON, with matrices as base64 of little-endian float32. Its hash covers
   all of it; one whose hash differs isn't loaded.
2. It says a label of those that it was taught, in the teacher's own words, or nothing.
3. What two answers are compared by is `sense`: spelling counts, white space at the ends and Unicode forms don't.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from farthing.proxy.text import normalise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Said", "Student", "Unfit", "agreeing", "dumped", "loaded", "sense"]

_FORM = "farthing-student-1"


class Unfit(ValueError):
    """The bytes are no student, or not the one that they say they are."""


class Said(NamedTuple):
    """What a student would say. `confidence`: its highest probability, 0 to 1."""

    label: str
    confidence: float


@dataclass(frozen=True)
class Student:
    """`template`: hash of all that a request must share with those it was taught by (distill_template.py).

    `labels`: the teacher's words, one for each row of `weights` (float32 [labels, dim]) and `bias` (float32 [labels]).
    `threshold`: below it the student abstains. `bound`: of the share of its answers that aren't the teacher's; it was
    kept with probability 1 - `level`. `about`: figures and dates, for people.
    """

    name: str
    template: str
    endpoint: str
    teacher: str
    embedder: str
    labels: tuple[str, ...]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    threshold: float
    bound: float
    level: float
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count, dim = len(self.labels), self.weights.shape[1] if self.weights.ndim == 2 else 0
        if count < 2 or self.weights.shape != (count, dim) or self.bias.shape != (count,):
            raise Unfit("labels, weights and bias don't fit together")
        import numpy as np

        if not (np.isfinite(self.weights).all() and np.isfinite(self.bias).all()):
            raise Unfit("weights must be finite")

    def say(self, vector: NDArray[np.float32]) -> Said:
        """What it says of a text's vector (float32 [dim], of length 1), whether or not it is sure enough."""
        found = self.confidences(vector[None, :])[0]
        best = int(found.argmax())
        return Said(self.labels[best], float(found[best]))

    def confidences(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities by softmax: float64 [n, labels]. ValueError: vectors of another length."""
        import numpy as np

        logits = (vectors @ self.weights.T).astype(np.float64) + self.bias
        odds: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
        return shares

    @property
    def hash(self) -> str:
        """16 hex digits over all that decides what it says."""
        return hashlib.sha256(orjson.dumps(self._plain(), option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]

    def _plain(self) -> dict[str, Any]:
        return {
            "form": _FORM,
            "name": self.name,
            "template": self.template,
            "endpoint": self.endpoint,
            "teacher": self.teacher,
            "embedder": self.embedder,
            "labels": list(self.labels),
            "dim": int(self.weights.shape[1]),
            "weights": _packed(self.weights),
            "bias": _packed(self.bias),
            "threshold": self.threshold,
            "bound": self.bound,
            "level": self.level,
        }


def sense(text: str) -> str:
    """What of an answer's text is compared."""
    return normalise(text).strip()


def dumped(student: Student) -> bytes:
    """The student as JSON."""
    plain = student._plain() | {"hash": student.hash, "about": dict(student.about)}
    return orjson.dumps(plain, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def loaded(body: bytes) -> Student:
    """The student of `dumped`. Raises Unfit."""
    try:
        plain = orjson.loads(body)
        if plain["form"] != _FORM:
            raise Unfit(f"another form: {plain['form']!r}"[:80])
        labels = _texts(plain["labels"])
        weights = _unpacked(plain["weights"]).reshape(len(labels), int(plain["dim"]))
        name, template, endpoint = str(plain["name"]), str(plain["template"]), str(plain["endpoint"])
        teacher, embedder = str(plain["teacher"]), str(plain["embedder"])
        threshold, bound, level = float(plain["threshold"]), float(plain["bound"]), float(plain["level"])
        student = Student(
            name, template, endpoint, teacher, embedder, labels, weights, _unpacked(plain["bias"]), threshold, bound,
            level, dict(plain["about"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise Unfit(str(error) or type(error).__name__) from None
    if student.hash != plain.get("hash"):
        raise Unfit("its hash differs: it was changed by hand, or is damaged")
    return student


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Unfit("labels must be texts")
    return tuple(value)


def _packed(matrix: NDArray[np.float32]) -> str:
    import numpy as np

    return base64.b64encode(np.ascontiguousarray(matrix, "<f4").tobytes()).decode()


def _unpacked(text: str) -> NDArray[np.float32]:
    import numpy as np

    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)


def agreeing(labels: Sequence[str], answers: Sequence[str]) -> NDArray[np.bool_]:
    """Where the label says what the teacher's answer says."""
    import numpy as np

    return np.array([sense(one) == sense(other) for one, other in zip(labels, answers, strict=True)], bool)
