"""What a second stage gains: `python -m bench.second_stage [--part learn]`.

Three things, on requests whose best candidate has a doubtful score:
1. A real judge: SmolLM2-135M behind its own server, asked the way the proxy asks; how well it ranks, what it costs.
2. A scripted judge that errs at a known rate, in the place of a better model: a simulation, and labelled so. How many
   more requests could be answered at a given share of wrong hits, and how many more hits that is for each pair judged.
3. The same through verified reuse, in many orders: the bound must hold whatever the judge is worth.

Rules of this file: the part kept apart (verifier_data.parted) is what is reported; band and wording of the question
were settled before it was looked at; `--part learn` is for looking.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import httpx
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from bench.hit_pool import Place, Pool, verifier
from bench.hit_rate import DOCUMENT, RESULTS, processor
from bench.hit_replay import MISS, WRONG, policy_on
from bench.hit_traffic import Traffic, held_out, made, orders
from bench.report import Report, markdown, replace_section, save, show
from bench.same_prompt import served
from bench.verifier_data import Vectors, parted, replayed, requests_of
from bench.verifier_report import REFUSED, best_of
from farthing.cache.embedder import open_embedder
from farthing.cache.second_opinion import Band, combined
from farthing.cache.verifier import Verifier
from farthing.policies.judge import probability, question
from farthing.policies.reuse import Bound
from farthing.policies.verified import Settings, Verified
from farthing.proxy.config import Semantic
from farthing.proxy.small_model import MODEL

__all__ = ["Candidates", "JudgedPool", "auc", "scripted", "within"]

STREAMS = ("adv", "qa", "intent", "math", "long")
BAND = Band(*Semantic().judge_band)
ACCURACIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
DRAWS = 50
WRONG_AT_MOST = (0.01, 0.05)
TEXTS, ASKED = 4_400, 4_000


@dataclass(frozen=True, slots=True)
class Candidates:
    """The best candidate of each request of a stream: first `score` and whether it is `right` [n], and both texts.
    `requests`: how many there were, those without a candidate too."""

    stream: str
    requests: int
    score: NDArray[np.float64]
    right: NDArray[np.int8]
    texts: list[tuple[str, str]]

    @property
    def doubtful(self) -> NDArray[np.int64]:
        """Places of those that are put to the second stage."""
        return np.flatnonzero([BAND.holds(score) for score in self.score.tolist()])

    def judged(self, second: NDArray[np.float64]) -> NDArray[np.float64]:
        """Combined scores [n]; `second` [doubtful]: what was said of those."""
        both = self.score.copy()
        for place, said in zip(self.doubtful.tolist(), second.tolist(), strict=True):
            both[place] = combined(float(both[place]), said, BAND)
        return both


def candidates(folder: Path, stream: str, part: str, vectors: Vectors, scorer: Verifier) -> Candidates:
    """A stream's part, replayed by itself."""
    requests = requests_of(folder, stream)
    chosen = [one for one, (_, which) in zip(requests, parted(requests, vectors), strict=True) if which == part]
    pairs = replayed(chosen, vectors, Verifier.open())
    scores = np.where(pairs.verbatim == 1, 1.0, scorer._trees.probabilities(pairs.features))
    scores = np.where(pairs.verbatim == -1, REFUSED, scores)
    score, right, number = best_of(scores, pairs)
    at: dict[int, int] = {}
    for place, query in enumerate(pairs.query.tolist()):
        if query not in at or scores[place] > scores[at[query]]:
            at[query] = place
    return Candidates(stream, len(chosen), score, right, [pairs.texts[at[query]] for query in number.tolist()])


def auc(score: Sequence[float], right: Sequence[int]) -> float:
    """The chance that a right one is scored above a wrong one, ties counted half; NaN where either kind is missing."""
    good = np.array([s for s, r in zip(score, right, strict=True) if r])
    bad = np.array([s for s, r in zip(score, right, strict=True) if not r])
    if not len(good) or not len(bad):
        return float("nan")
    above = (good[:, None] > bad[None, :]).mean() + (good[:, None] == bad[None, :]).mean() / 2
    return float(above)


def within(score: NDArray[np.float64], right: NDArray[np.int8], requests: int, wrong: float) -> float:
    """The largest hit rate at any threshold with at most that share of wrong hits; chosen in hindsight."""
    order = np.argsort(-score, kind="stable")
    ranked, bad = score[order], np.cumsum(1 - right[order])
    hits = np.arange(1, len(ranked) + 1)
    last = np.append(ranked[1:] < ranked[:-1], True)
    fits = np.flatnonzero((bad <= wrong * hits + 1e-9) & last)
    return float(hits[fits[-1]] / requests) if len(fits) else 0.0


def scripted(right: NDArray[np.int8], accuracy: float, seed: int) -> NDArray[np.float64]:
    """A judge's yes (1) and no (0) [n] that is right about each pair with that probability, independently."""
    chance = np.random.default_rng(seed)
    told = chance.random(len(right)) < accuracy
    return np.where(told, right, 1 - right).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a real judge said of some pairs: `said` [n], and what that took."""

    said: NDArray[np.float64]
    ms: list[float]
    tokens: list[int]
    yes_or_no: int


def asked(pairs: Sequence[tuple[str, str]], client: httpx.Client) -> Asked:
    """Ask the real model about each pair, one after the other, with the proxy's own question."""
    said, ms, tokens, plain = [], [], [], 0
    for one, other in pairs:
        began = time.perf_counter()
        answer = client.post("/v1/chat/completions", json=question(MODEL, one, other)).raise_for_status().json()
        ms.append((time.perf_counter() - began) * 1000)
        tokens.append(answer["usage"]["total_tokens"])
        plain += answer["choices"][0]["message"]["content"].strip().lower() in ("yes", "no")
        said.append(probability(answer))
    return Asked(np.array(said), ms, tokens, plain)


def real_judge(found: Sequence[Candidates], most: int, tell: Console) -> Report:
    """AUC on doubtful pairs, first score against judge against both; what a judgement costs."""
    columns = [
        "stream",
        "doubtful pairs",
        "right",
        "AUC score",
        "AUC judge",
        "AUC both",
        "yes or no",
        "tokens",
        "ms p50",
    ]
    table = Report("second_stage_real", "A real small judge on doubtful pairs", columns)
    rows: list[tuple[str, NDArray[np.float64], NDArray[np.int8], Asked]] = []
    with served() as url, httpx.Client(base_url=url, timeout=300) as client:
        for one in found:
            places = one.doubtful
            if len(places) > most:
                places = np.array(sorted(Random(one.stream).sample(places.tolist(), most)))
            tell.print(f"{one.stream}: {len(places)} of {len(one.doubtful)} doubtful pairs", highlight=False)
            rows.append(
                (one.stream, one.score[places], one.right[places], asked([one.texts[p] for p in places], client))
            )
    rows.append(
        (
            "all",
            np.concatenate([score for _, score, _, _ in rows]),
            np.concatenate([right for _, _, right, _ in rows]),
            Asked(
                np.concatenate([a.said for *_, a in rows]),
                [ms for *_, a in rows for ms in a.ms],
                [count for *_, a in rows for count in a.tokens],
                sum(a.yes_or_no for *_, a in rows),
            ),
        )
    )
    for name, score, right, heard in rows:
        both = [combined(s, p, BAND) for s, p in zip(score.tolist(), heard.said.tolist(), strict=True)]
        areas = [auc(figures, right.tolist()) for figures in (score.tolist(), heard.said.tolist(), both)]
        table.rows.append(
            [name, str(len(score)), f"{right.mean():.2f}", *(f"{area:.3f}" for area in areas),
             f"{heard.yes_or_no / len(score):.2f}", f"{np.mean(heard.tokens):.0f}", f"{np.median(heard.ms):.0f}"]
        )  # fmt: skip
    table.notes.append(
        f"Judge: {MODEL}, Q4_1, one thread, shared core; temperature 0, one token, log-probabilities. Tokens: of a "
        "judgement, prompt and answer, what the server's own prefix cache held included."
    )
    return table


def simulated(found: Sequence[Candidates]) -> Report:
    """What a judge of known accuracy would gain, at a fixed share of wrong hits; mean over draws."""
    columns = ["stream", "judge (simulated)", "judged / request"]
    columns += [f"hit rate at ≤ {wrong:.0%} wrong" for wrong in WRONG_AT_MOST]
    columns += [f"more hits / judged pair at {wrong:.0%}" for wrong in WRONG_AT_MOST]
    table = Report("second_stage_simulated", "A scripted judge of known accuracy", columns)
    for one in found:
        asks = len(one.doubtful) / one.requests
        alone = [within(one.score, one.right, one.requests, wrong) for wrong in WRONG_AT_MOST]
        table.rows.append([one.stream, "none", "0", *(f"{rate:.3f}" for rate in alone), *("–" for _ in alone)])
        for accuracy in ACCURACIES:
            draws = [one.judged(scripted(one.right[one.doubtful], accuracy, seed)) for seed in range(DRAWS)]
            rates = [
                float(np.mean([within(both, one.right, one.requests, wrong) for both in draws]))
                for wrong in WRONG_AT_MOST
            ]
            gains = [(rate - before) / asks if asks else 0.0 for rate, before in zip(rates, alone, strict=True)]
            table.rows.append(
                [one.stream, f"{accuracy:.2f}", f"{asks:.2f}", *(f"{rate:.3f}" for rate in rates),
                 *(f"{gain:+.3f}" for gain in gains)]
            )  # fmt: skip
    table.notes.append(
        f"Simulation: right about each pair with that probability, independently; {DRAWS} draws. Thresholds in "
        "hindsight, with and without judge alike. 'More hits / judged pair' is where it pays: while a judgement costs "
        "a smaller share of a hit's worth than that."
    )
    return table


class JudgedPool(Pool):
    """A pool whose best candidate has been put to a scripted judge, where its score was doubtful.

    A pair has one verdict, drawn from the pair and the seed. `asked_about`: pairs judged, each counted once.
    """

    accuracy: float
    seed: int
    asked_about: set[tuple[int, int]]

    @classmethod
    def over(cls, pool: Pool, accuracy: float, seed: int) -> JudgedPool:
        """The same texts and scores with a judge."""
        made = cls.__new__(cls)
        made.__dict__.update(pool.__dict__)
        made.accuracy, made.seed, made.asked_about = accuracy, seed, set()
        return made

    def best(self, place: Place, asked: int, stored: NDArray[np.bool_]) -> tuple[int, float] | None:
        """See Pool; the score is the combined one."""
        found = super().best(place, asked, stored)
        if found is None or not BAND.holds(found[1]):
            return found
        one, other = sorted((place.ids[asked], place.ids[found[0]]))
        self.asked_about.add((one, other))
        right = self.asked[one].answer == self.asked[other].answer
        said = right if _coin(self.seed, one, other) < self.accuracy else not right
        return found[0], combined(found[1], float(said), BAND)


def _coin(*parts: int) -> float:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") / 2**64


def bounded(pool: Pool, shuffles: int) -> Report:
    """Hit rate and wrong hits of verified reuse, without a judge and with scripted ones."""
    columns = [
        "bound",
        "judge (simulated)",
        "hit rate",
        "wrong per hit",
        "no hit in",
        "judged / request",
        "more hits / judged",
    ]
    table = Report("second_stage_bound", "Verified reuse with a scripted judge", columns)
    for bound in WRONG_AT_MOST:
        alone = 0.0
        for accuracy in (None, *ACCURACIES):
            hits = wrong = requests = empty = judged = 0
            for seed, order in enumerate(orders(pool.traffic, shuffles)):
                here = pool if accuracy is None else JudgedPool.over(pool, accuracy, seed)
                out = policy_on(here, order, Verified(Settings(Bound(bound), mode="serve")), seed)
                count = int((out.what != MISS).sum())
                hits, wrong, requests = hits + count, wrong + int((out.what == WRONG).sum()), requests + len(order)
                empty += not count
                judged += len(here.asked_about) if isinstance(here, JudgedPool) else 0
            rate = hits / requests
            alone = rate if accuracy is None else alone
            gain = (rate - alone) * requests / judged if judged else None
            table.rows.append(
                [f"{bound:.0%}", "none" if accuracy is None else f"{accuracy:.2f}", f"{rate:.3f}",
                 f"{wrong / hits:.4f}" if hits else "–", f"{empty} of {shuffles}", f"{judged / requests:.2f}",
                 f"{gain:+.3f}" if gain is not None else "–"]
            )  # fmt: skip
    table.notes.append(
        f"Simulation: {ASKED:,} of {len(pool.asked):,} texts in each of {shuffles} orders, made from the parts kept "
        "apart (bench/hit_traffic.py, 'zipf'); every candidate of a doubtful score is judged, on misses too."
    )
    return table


def tables(given: argparse.Namespace, console: Console) -> Iterator[Report]:
    """All that was asked for."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    vectors, scorer = Vectors(open_embedder("minilm-int8"), RESULTS / "hit_vectors.npz"), verifier()
    if given.only != "bound":
        found = [candidates(given.data, stream, given.part, vectors, scorer) for stream in STREAMS]
        if given.only != "real":
            yield simulated(found)
        if given.only != "simulated":
            yield real_judge(found, given.pairs, console)
    if given.only in ("", "bound"):
        texts = tuple(made(held_out(given.data, vectors, given.part), TEXTS, seed=3))
        console.print("embedding the made traffic", highlight=False)
        pool = Pool(Traffic("zipf", texts, length=ASKED), vectors, scorer)
        vectors.save()
        yield bounded(pool, given.shuffles)


def main(arguments: list[str]) -> int:
    """Run, print, write."""
    made_by = argparse.ArgumentParser(prog="python -m bench.second_stage", description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    made_by.add_argument("--data", type=Path, default=Path("../shared/data/semcache"), help="the streams' folder")
    made_by.add_argument("--part", choices=("test", "learn"), default="test")
    made_by.add_argument("--pairs", type=int, default=300, help="of each stream, at most, for the real judge")
    made_by.add_argument("--shuffles", type=int, default=5)
    made_by.add_argument("--only", choices=("real", "simulated", "bound"), default="", help="one of the three")
    made_by.add_argument("--no-docs", action="store_true", help="print and save, but leave the document alone")
    given = made_by.parse_args(arguments)
    console, errors = Console(width=None if sys.stdout.isatty() else 200), Console(stderr=True)
    facts = {"machine": f"one core of {processor()}", "python": platform.python_version()}
    command, when = " ".join(["python -m bench.second_stage", *arguments]), datetime.now(UTC).strftime("%Y-%m-%d")
    for report in tables(given, errors):
        show(report, console)
        save(report, RESULTS, facts, command, when)
        if given.part == "test" and not given.no_docs:
            text = replace_section(DOCUMENT.read_text("utf-8"), report.name, markdown(report, facts, command, when))
            DOCUMENT.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
