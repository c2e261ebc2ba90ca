"""`farthing distill train`: a student out of what its teacher said. Needs scikit-learn, which serving doesn't.

Parts follow each other in time: on the first the head is fitted, and chosen by what it says of folds that it wasn't
fitted on; on the second its threshold is proved; of the third, which nothing was chosen on, it is told what the student
would have done. A text, or one nearly the same, stands in one part only, and in one fold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from farthing.cache.embedder import Embedder
from farthing.policies.selective import Chosen, Scored, chosen, least_cases, outcome
from farthing.policies.splits import groups_of, in_time
from farthing.policies.student import Student, agreeing, sense
from farthing.proxy.config_routes import target_of
from farthing.proxy.distill_near import near_pairs, vectors_of
from farthing.proxy.distill_rows import TeacherRow
from farthing.proxy.distill_template import divided
from farthing.proxy.errors import ConfigFault
from farthing.proxy.exchange import Endpoint

__all__ = ["Cases", "Held", "Recipe", "Trained", "cases_of", "scored", "train"]

_SERVED = (Endpoint.CHAT, Endpoint.MESSAGES)
_STRENGTHS = (3.0, 30.0)  # of the head's fit: the inverse of scikit-learn's regularisation
_FOLDS = 3
_MOST_LABELS = 1000
_LONGEST_CHARS = 500
_COVERED = 0.5


@dataclass(frozen=True, slots=True)
class Recipe:
    """`bound`: of the share of the student's answers that aren't the teacher's. `level`: how often it may be broken,
    over all students ever made. `least`: examples that make a label. `shares`: for fitting, proving, telling."""

    name: str
    bound: float = 0.02
    level: float = 0.05
    least: int = 3
    shares: tuple[float, float, float] = (0.55, 0.3, 0.15)
    cosine: float = 0.95


class Cases(NamedTuple):
    """Requests of one template. `rows` and `texts` are of one length; `left_out`: why others aren't there."""

    template: str
    endpoint: str
    rows: tuple[TeacherRow, ...]
    texts: tuple[str, ...]
    left_out: Counter[str]


class Held(NamedTuple):
    """Requests that the head wasn't fitted on: float32 [n, dim], and what the teacher said."""

    vectors: NDArray[np.float32]
    rows: tuple[TeacherRow, ...]


class Trained(NamedTuple):
    """`student` None: nothing may be answered, `why` says so. `facts`: counts and figures, as plain values. `held`:
    what another student may be compared on."""

    student: Student | None
    why: str
    facts: dict[str, Any]
    held: Held | None = None


def cases_of(rows: Sequence[TeacherRow], aliases: Mapping[str, str], template: str = "") -> Cases:
    """The cases of that template; where there are none, or it is '', of the commonest one. `aliases`: what names of
    models stand for. Raises ConfigFault: none."""
    found: dict[tuple[str, str], list[tuple[TeacherRow, str]]] = {}
    left_out: Counter[str] = Counter()
    for row in rows:
        if row.endpoint not in _SERVED:
            left_out[f"of the endpoint {row.endpoint}, which no student answers"] += 1
            continue
        if row.body.get("logprobs"):
            left_out["asks for log-probabilities, which a student has none of"] += 1
            continue
        body = dict(row.body) | ({"model": target_of(aliases, row.model)} if row.model else {})
        parts = divided(Endpoint(row.endpoint), body)
        if isinstance(parts, str):
            left_out[parts] += 1
        else:
            found.setdefault((parts.template, row.endpoint), []).append((row, parts.text))
    if not found:
        why = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        raise ConfigFault(f"there is nothing to learn from{': ' + why if why else ''}")
    (template, endpoint), cases = max(found.items(), key=lambda one: (one[0][0] == template, len(one[1])))
    left_out["of another template (system prompt, parameters or earlier turns differ)"] += sum(
        len(other) for place, other in found.items() if place != (template, endpoint)
    )
    return Cases(template, endpoint, tuple(row for row, _ in cases), tuple(text for _, text in cases), left_out)


def train(
    cases: Cases,
    recipe: Recipe,
    embedder: Embedder,
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Trained:
    """Fit, choose, prove, tell. Raises ConfigFault: the answers are no closed set, or there are too few."""
    vectors, fits = vectors_of(cases.texts, embedder, lambda done, total: tell("embedding", done, total))
    parts, groups, left_out = _parts(cases, recipe, vectors, fits)
    fitting, proving, telling = parts
    rows = cases.rows
    labels = _labels([rows[at] for at in fitting], recipe.least)
    known = {sense(label): place for place, label in enumerate(labels)}
    taught = [at for at in fitting if sense(rows[at].answer) in known and not rows[at].refused]
    if len(taught) < _COVERED * len(fitting):
        raise ConfigFault(
            f"the answers are no closed set: {len(labels)} answers that come {recipe.least} times or more are "
            f"{len(taught):,} of {len(fitting):,}"
        )
    given, wanted = vectors[taught], np.array([known[sense(rows[at].answer)] for at in taught])
    folds = np.array([groups[at] for at in taught]) % _FOLDS
    drafts = {}
    for done, strength in enumerate(_STRENGTHS):
        tell("fitting", done, len(_STRENGTHS))
        drafts[strength] = _unseen(given, wanted, folds, len(labels), strength)
    strength = max(drafts, key=lambda one: _worth(drafts[one], recipe.bound))
    weights, bias = _head(given, wanted, len(labels), strength)
    teacher = Counter(row.teacher for row in rows).most_common(1)[0][0]
    draft = Student(
        recipe.name, cases.template, cases.endpoint, teacher, embedder.name, labels, weights, bias, 1.0, recipe.bound,
        recipe.level,
    )  # fmt: skip
    proof = scored(draft, vectors[proving], [rows[at] for at in proving])
    passed = chosen(drafts[strength], proof, recipe.bound, recipe.level)
    facts: dict[str, Any] = {
        "requests": len(rows),
        "left_out": {reason: count for reason, count in (cases.left_out + left_out).most_common() if count},
        "parts": dict(zip(("fitted", "proved", "told"), map(len, parts), strict=True)),
        "labels": len(labels),
        "strength": strength,
        "from_s": min(row.ts for row in rows),
        "to_s": max(row.ts for row in rows),
    }
    if passed is None:
        return Trained(None, _hopeless(proof, recipe), facts)
    facts["proved"] = _told(passed)
    if telling:
        last = scored(draft, vectors[telling], [rows[at] for at in telling])
        facts["told"] = _told(outcome(last, passed.threshold, recipe.level)) | {
            "accuracy": 1 - float(last.wrong.mean())
        }
    unseen = [*proving, *telling]
    held = Held(vectors[unseen], tuple(rows[at] for at in unseen))
    return Trained(replace(draft, threshold=passed.threshold, about=facts), "", facts, held)


def _parts(
    cases: Cases, recipe: Recipe, vectors: NDArray[np.float32], fits: NDArray[np.bool_]
) -> tuple[list[list[int]], list[int], Counter[str]]:
    first: dict[str, int] = {}
    equal = [(first.setdefault(sense(text), at), at) for at, text in enumerate(cases.texts)]
    groups = groups_of(len(cases.texts), [*equal, *near_pairs(vectors, recipe.cosine)])
    usable = [at for at in range(len(cases.texts)) if fits[at]]
    parted = in_time([cases.rows[at].ts for at in usable], [groups[at] for at in usable], recipe.shares)
    fitting, *others = ([usable[at] for at in part] for part in parted.parts)
    fair = [[at for at in part if not cases.rows[at].picked] for part in others]
    left_out = Counter(
        {
            "longer than the model's window": len(cases.texts) - len(usable),
            "like one of an earlier part": len(parted.left_out),
            "no fair sample: an earlier student abstained from them": sum(map(len, others)) - sum(map(len, fair)),
        }
    )
    if min(len(fitting), len(fair[0])) < 10:
        sizes = ", ".join(str(len(part)) for part in (fitting, *fair))
        raise ConfigFault(f"there is too little to learn from: parts of {sizes} requests")
    return [fitting, *fair], groups, left_out


def _labels(rows: Sequence[TeacherRow], least: int) -> tuple[str, ...]:
    """What is answered often enough, in the commonest spelling. Raises ConfigFault."""
    spelled: dict[str, Counter[str]] = {}
    for row in rows:
        if not row.refused and len(row.answer) <= _LONGEST_CHARS:
            spelled.setdefault(sense(row.answer), Counter())[row.answer] += 1
    often = {key: words for key, words in spelled.items() if words.total() >= least}
    if not 2 <= len(often) <= _MOST_LABELS:
        raise ConfigFault(
            f"the answers are no closed set: {len(often):,} different ones come {least} times or more; a student needs "
            f"2 to {_MOST_LABELS:,}"
        )
    return tuple(often[key].most_common(1)[0][0] for key in sorted(often))


def _regression(vectors: NDArray[np.float32], labels: NDArray[np.int64], strength: float) -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise ConfigFault(
            "training needs scikit-learn, which isn't installed here: pip install 'farthing[distill]'"
        ) from None
    with threadpool_limits(1):  # such small products are slower on several threads, and the proxy may need the others
        return LogisticRegression(C=strength, max_iter=1000).fit(vectors, labels)


def _head(
    vectors: NDArray[np.float32], labels: NDArray[np.int64], count: int, strength: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights and bias: float32 [labels, dim], [labels]."""
    head = _regression(vectors, labels, strength)
    weights, bias = head.coef_, head.intercept_
    if count == 2:  # scikit-learn gives one row for two labels; two rows say the same by softmax
        weights, bias = np.vstack([np.zeros_like(weights[0]), weights[0]]), np.array([0.0, bias[0]])
    return weights.astype(np.float32), bias.astype(np.float32)


def _unseen(
    vectors: NDArray[np.float32], labels: NDArray[np.int64], folds: NDArray[np.int64], count: int, strength: float
) -> Scored:
    """What heads say of the folds that they weren't fitted on."""
    found = np.zeros((labels.size, count))
    for fold in range(_FOLDS):
        rest, own = folds != fold, folds == fold
        if not own.any() or np.unique(labels[rest]).size < 2:
            continue
        head = _regression(vectors[rest], labels[rest], strength)
        found[np.ix_(own, head.classes_)] = head.predict_proba(vectors[own])
    return Scored(found.max(axis=1), found.argmax(axis=1) != labels)


def scored(student: Student, vectors: NDArray[np.float32], rows: Sequence[TeacherRow]) -> Scored:
    """What a student would say of requests, beside what the teacher said."""
    found = student.confidences(vectors)
    said = [student.labels[at] for at in found.argmax(axis=1)]
    refused = np.array([row.refused for row in rows], bool)
    return Scored(found.max(axis=1), ~agreeing(said, [row.answer for row in rows]) | refused)


def _worth(part: Scored, bound: float) -> float:
    """Of the part, the largest share that could be answered with at most `bound` of it wrong, as if it were known."""
    order = np.argsort(-part.confidence, kind="stable")
    rates = np.cumsum(part.wrong[order]) / np.arange(1, order.size + 1)
    good = np.nonzero(rates <= bound)[0]
    return float(good[-1] + 1) / order.size if good.size else 0.0


def _told(found: Chosen) -> dict[str, float]:
    return found._asdict() | {"share": found.share, "rate": found.rate}


def _hopeless(part: Scored, recipe: Recipe) -> str:
    return (
        f"no threshold is proved to differ from the teacher in at most {recipe.bound:.1%} of what it lets answer: "
        f"there were {part.wrong.size:,} requests to prove it on, and without a threshold {part.wrong.mean():.1%} of "
        f"them differ. A proof takes {least_cases(recipe.bound, recipe.level):,} answers without a difference at "
        "least: more traffic, or a higher --max-disagree"
    )
