"""The demo's traffic: questions that ship with the package, asked again and again as popular questions are.

Rules of this file: chance comes in as a `random.Random`, so a seed names a run; nothing here knows of HTTP.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import accumulate

__all__ = ["Question", "load_questions", "popularity", "sample"]


@dataclass(frozen=True, slots=True)
class Question:
    """A customer's question. `intent`: what the data set's authors say it asks for; it judges, it never decides."""

    text: str
    intent: str


def load_questions() -> tuple[Question, ...]:
    """The packaged questions, 200 of 25 intents in a fixed order.

    Source: BANKING77, PolyAI task-specific-datasets, CC BY 4.0 (workload/README.md). Effects: reads one file.
    """
    text = resources.files("farthing.proxy").joinpath("workload", "banking.jsonl").read_text("utf-8")
    return tuple(Question(**json.loads(line)) for line in text.splitlines())


def popularity(n: int, s: float) -> tuple[float, ...]:
    """The chance of each of `n` ranks, most popular first, under Zipf's law: rank r has weight r^-s.

    `s` = 0: all alike; s near 1 is what logs of questions and page views show (Breslau et al. 1999, "Web caching and
    Zipf-like distributions"). Raises ValueError: n < 1 or s < 0.
    """
    if n < 1 or s < 0:
        raise ValueError(f"need n >= 1 and s >= 0, not n = {n}, s = {s}")
    weights = [rank**-s for rank in range(1, n + 1)]
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def sample(questions: Sequence[Question], requests: int, rng: random.Random, s: float = 1.0) -> list[Question]:
    """`requests` questions in the order in which they are asked, drawn independently with Zipf's popularity.

    Which question is how popular is itself drawn from `rng`. The same arguments and seed give the same list.
    Raises ValueError: no questions.
    """
    ranked = rng.sample(questions, len(questions))
    return rng.choices(ranked, cum_weights=list(accumulate(popularity(len(ranked), s))), k=requests)
