"""One look-up of a near-duplicate among 100,000 entries of one scope: the goals of the semantic stage.

The short form of `python -m bench.semantic_cost stage`, which needs data that isn't here and ten minutes. Rules:
1. Questions are those of the demo's workload and some made by script, all of 40 to 120 characters. Entries are
   each question as it stands and with greetings and thanks; what is asked words one of them otherwise, and is new.
2. The vector of a question is the model's own. Those of its other wordings are that one moved by chance, about as far
   as wordings are from it (the middle one of 400 was at a cosine of 0.97): to embed all takes a quarter of an hour.
3. The whole look-up is what a request does: refusals, the way to the thread and back, the real model, the index that
   the size has, the scores of eight neighbours that were read when they were stored, and the policy's verdict. By the
   clock, on one core, in a process of its own; its parts are processor time, of other look-ups.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from random import Random

import numpy as np

from bench.hit_traffic import CLOSERS, OPENERS, varied
from bench.hot import Effort, Tell
from bench.index import moved
from bench.machine import Place
from bench.report import Report, Target
from bench.semantic_stage import NOW_S, PARTS, ROUTE, Times, at_percent, by_part, opened
from bench.verifier_edits import Things, frames
from farthing.cache.semantic import SemanticCache
from farthing.cache.semantic_disk import Row
from farthing.cache.semantic_thread import SemanticThread
from farthing.cache.thesaurus import Thesaurus
from farthing.cache.unmatchable import unmatchable
from farthing.policies.reuse import Bound, Candidate, RouteKey
from farthing.policies.verified import Settings, Verified
from farthing.proxy.text import normalise
from farthing.proxy.traffic import load_questions

__all__ = ["LookedUp", "Size", "near", "questions", "wordings"]

MOST_P50_MS, MOST_P99_MS = 3.0, 10.0
SCOPE = "scope"
LATER_S = NOW_S + 10**8
WORDING_COSINE = 0.95
PARTS_SHOWN = {"embed": "the model", "search": "the index", "score": "the scores", "decide": "the policy"}


@dataclass(frozen=True, slots=True)
class Size:
    """How many `entries` of how many `questions`; of how many of these wordings are `asked`, and how often."""

    entries: int
    questions: int
    asked_of: int
    asked: int


FULL = Size(entries=100_000, questions=1_000, asked_of=200, asked=600)
QUICK = Size(entries=1_000, questions=50, asked_of=50, asked=60)


@dataclass(frozen=True, slots=True)
class LookedUp:
    """p50 and p99 in milliseconds: of each part, and of the whole by the processor's time and by the clock.

    `kind`: the index. `own`: the share of look-ups whose best candidate words the same question. `tokens`: of a query.
    """

    kind: str
    parts_ms: dict[str, tuple[float, float]]
    processor_ms: tuple[float, float]
    clock_ms: tuple[float, float]
    own: float
    tokens: float
    prepared_s: float


def questions(count: int) -> list[str]:
    """So many different ones that may be matched, normalised: the workload's first. Raises ValueError: not so many."""
    found: dict[str, None] = {}
    scripted = (one.text for one in frames(Things(Thesaurus.load()), 2))
    for text in map(normalise, (*(one.text for one in load_questions()), *scripted)):
        if 40 <= len(text) <= 120 and not unmatchable(text):
            found[text] = None
    if len(found) < count:
        raise ValueError(f"there are only {len(found)} questions")
    return list(found)[:count]


def wordings(question: str, count: int) -> list[str]:
    """The question and what others would write for it, all different. Raises ValueError: so many there aren't."""
    if count > (1 + len(OPENERS)) * (1 + len(CLOSERS)):
        raise ValueError("there aren't so many wordings")
    before = ("", *(f"{opener} " for opener in OPENERS))
    made = (f"{opener}{question}{closer}" for closer in ("", *CLOSERS) for opener in before)
    found = dict.fromkeys(normalise(one) for one in made)
    return list(found)[:count]


def fresh(asked_of: Sequence[str], known: frozenset[str], count: int, chance: Random) -> list[tuple[int, str]]:
    """So many wordings that are no entry, each with its question's number; none comes twice."""
    found: dict[str, int] = {}
    while len(found) < count:
        number = len(found) % len(asked_of)
        text = normalise(varied(asked_of[number], chance))
        if text not in known and text not in found and not unmatchable(text):
            found[text] = number
    return [(number, text) for text, number in found.items()]


def filled(cache: SemanticCache, asked: Sequence[str], size: Size) -> frozenset[str]:
    """Put the entries in, as `add` does, with vectors that are there already; the texts of those that may be found.

    Only those of questions that will be asked are read: nobody comes upon the others' readings.
    """
    vectors = np.concatenate([cache.embed([one]) for one in asked])
    chance, each = np.random.default_rng(size.entries), -(-size.entries // len(asked))
    words, texts = cache._words_of(ROUTE), [wordings(one, each) for one in asked]
    for turn in range(each):
        for number, vector in enumerate(moved(vectors, WORDING_COSINE, chance) if turn else vectors):
            text, key = texts[number][turn], f"{number} {turn}"
            reading = cache._scorer.read(SCOPE, text) if number < size.asked_of else None
            if reading is not None:
                cache._scorer.learn(reading, words)
            if len(cache) < size.entries:
                cache._insert(Row(SCOPE, key, text, LATER_S, vector.copy(), 0.001), reading)
    while cache.tend():
        pass
    return frozenset(text for each_texts in texts[: size.asked_of] for text in each_texts)


def looked_up(size: Size, core: int) -> LookedUp:
    """Fill a cache, and look up in it: `asked` times for the whole, and after every second one once for the parts."""
    import uvloop

    os.sched_setaffinity(0, {core})
    begun = time.perf_counter()
    cache, chance = opened(), Random(size.entries)
    asked = questions(size.questions)
    known = filled(cache, asked, size)
    queries = fresh(asked[: size.asked_of], known, size.asked + size.asked // 2, chance)
    prepared_s = time.perf_counter() - begun
    times: Times = {part: [] for part in PARTS}
    own = uvloop.run(asked_in_turns(cache, queries, times, chance))
    shown = {part: (at_percent(took, 50), at_percent(took, 99)) for part, took in times.items()}
    tokens = float(np.mean([cache._embedder.count(query) for _, query in queries]))
    kind = cache._scopes[SCOPE].kind
    parts = {part: shown[part] for part in PARTS_SHOWN}
    return LookedUp(kind, parts, shown["whole"], shown["whole, by the clock"], own, tokens, prepared_s)


async def asked_in_turns(
    cache: SemanticCache, queries: Sequence[tuple[int, str]], times: Times, chance: Random
) -> float:
    """Look-ups, one at a time: two whole ones, each with the policy's verdict, then one by its parts; the share of the
    former that found a wording of their own question. Raises RuntimeError: one found nothing."""
    thread, route = SemanticThread(lambda: cache), RouteKey("tenant", ROUTE)
    policy = Verified(Settings(Bound(), mode="serve"))
    await thread.open()
    own = wholes = 0
    for turn, (number, query) in enumerate(queries):
        if turn % 3 == 2:
            await thread.run(lambda held, query=query: by_part(held, policy, SCOPE, query, times, chance))
            continue
        clock, processor = time.perf_counter_ns(), time.process_time_ns()
        found = await thread.lookup(SCOPE, ROUTE, query, NOW_S)
        if found.entry_key is None or found.similarity is None:
            raise RuntimeError(f"a look-up found no candidate: {found.verdict}")
        policy.decide(route, Candidate(found.entry_key, found.score, found.similarity), chance.random())
        times["whole"].append((time.process_time_ns() - processor) / 1e6)
        times["whole, by the clock"].append((time.perf_counter_ns() - clock) / 1e6)
        own, wholes = own + found.entry_key.startswith(f"{number} "), wholes + 1
    await thread.close()
    return own / wholes


def near(here: Place, effort: Effort, tell: Tell) -> Report:
    """The look-up's parts and the whole; its two goals."""
    size = QUICK if effort.quick else FULL
    what = f"{size.entries:,} entries in one scope"
    tell(f"near: {what} are made, then {size.asked * 3 // 2:,} look-ups")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        found = pool.submit(looked_up, size, int(here.measured)).result()
    return told(found, size)


def told(found: LookedUp, size: Size) -> Report:
    """The report of what was found."""
    what = f"{size.entries:,} entries in one scope"
    report = Report(
        "near", f"A look-up of a near-duplicate, {what}", ["part", "p50 ms", "p99 ms", "share of the whole"]
    )
    whole_ms = found.processor_ms[0]
    for part, (p50, p99) in found.parts_ms.items():
        report.rows.append([PARTS_SHOWN[part], f"{p50:.2f}", f"{p99:.2f}", f"{p50 / whole_ms:.0%}"])
    for name, (p50, p99) in (("whole, processor time", found.processor_ms), ("whole, by the clock", found.clock_ms)):
        report.rows.append([name, f"{p50:.2f}", f"{p99:.2f}", f"{p50 / whole_ms:.0%}"])
    report.raw.append(asdict(found))
    alone = found.parts_ms["embed"]
    for percent, most, took, bare in (("p50", MOST_P50_MS, found.clock_ms[0], alone[0]),
                                      ("p99", MOST_P99_MS, found.clock_ms[1], alone[1])):  # fmt: skip
        report.targets.append(
            Target(
                f"whole look-up of a near-duplicate, {percent}, {what}",
                f"≤ {most:g} ms",
                f"{took:.2f} ms",
                took <= most,
                f"the model alone: {bare:.2f} ms",
            )
        )
    report.notes.append(
        f"Queries of {found.tokens:.0f} tokens on average, new, one at a time on one core; index: {found.kind}. "
        f"{found.own:.0%} of the look-ups found a wording of their own question. The model's part has the count of "
        "tokens in it; what is left of the whole is the way to the thread and back, and refusals. How entries are "
        "made: bench/near.py."
    )
    return report
