"""What template-aware matching gains: each traffic replayed with texts matched whole, and by what varies in them.

The streams are the held-out parts (bench/verifier_data.py), since the verifier has learned from the rest. The apps are
made here, from a seed, with one instruction of some 800 characters in the user's message:

* `app`: a question of the held-out part of `qa` behind it;
* `rag`: one of the held-out passages of `long` behind it, and a question about that passage;
* `rag-long`: three passages, which is beyond the model's window;
* `rag-after`: question first, passage behind.

Each question comes in up to four wordings (`hit_traffic.varied`), in an order drawn by chance. A passage with a number
changed is another passage, so the same question about it is another class.

    python -m bench.templates ../shared/data
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from bench.answers import sibling
from bench.hit_rate import processor
from bench.hit_traffic import Asked, held_out, varied
from bench.load import percentile
from bench.report import Report, show
from bench.verifier_data import Vectors
from farthing.cache.embedder import Embedder, open_embedder
from farthing.cache.key import Place
from farthing.cache.places import Placed, Places
from farthing.cache.scorer import VerifierScorer
from farthing.cache.semantic import SemanticCache
from farthing.cache.template import Templates
from farthing.cache.unmatchable import UNLESS_DIVIDED
from farthing.cache.verifier import Verifier

__all__ = ["Outcome", "Prompt", "apps", "replay"]

SEED = 7
RULES = """\
You are the assistant of a help desk. Read what the user asks and answer it from what you were given, and from
nothing else. Where it isn't answered there, say so in one sentence and stop. Don't guess, don't apologise and don't
repeat the question. Write plain sentences of at most twenty words; no lists, no headings, no emphasis.
Names, figures and dates are given as they stand in the text. Amounts keep their currency. If two places contradict
each other, give both and say that they do. Never give advice on law, medicine or taxes: name the office that does.
The answer is shown on a small screen beside the text, so keep it below sixty words. It is read aloud to some users;
write numbers up to twelve as words where they count things, and in digits everywhere else.

"""
WORDINGS = 4
MOST = 700
SHARES = (0.01, 0.05)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request. `answer`: its class; two may share an answer if, and only if, theirs are equal."""

    text: str
    answer: str
    scope: str = "one"


@dataclass(slots=True)
class Outcome:
    """What one replay came to. `judged`: each best candidate's score, and whether it was right."""

    requests: int = 0
    possible: int = 0
    divided: int = 0
    unmatchable: int = 0
    reachable: int = 0
    judged: list[tuple[float, bool]] = field(default_factory=list)
    settle_us: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)

    def hits(self, most_wrong: float) -> int:
        """Most hits that one threshold, chosen in hindsight, gives with at most that share of them wrong."""
        best = wrong = 0
        ranked = sorted(self.judged, key=lambda one: -one[0])
        for count, (score, right) in enumerate(ranked, 1):
            wrong += not right
            last = count == len(ranked) or ranked[count][0] < score
            if last and wrong <= most_wrong * count:
                best = count
        return best


def apps(parts: dict[str, list[Asked]], seed: int = SEED) -> dict[str, list[Prompt]]:
    """The made traffic, by name."""
    chance = Random(seed)
    questions = {one.text: one.answer for one in parts["qa"]}
    papers = list(passages(parts["long"]))
    threes = [papers[at : at + 3] for at in range(0, len(papers) - 2, 3)]
    several = [
        ("\n\n".join(paper for paper, _ in three), [one for _, asked in three for one in asked]) for three in threes
    ]
    made = {
        "app": [Prompt(f"{RULES}{text}", name) for text, name in worded(list(questions.items()), chance)],
        "rag": list(about(papers, "{rules}{paper}\n\nQuestion: {asked}", chance)),
        "rag-long": list(about(several, "{rules}{paper}\n\nQuestion: {asked}", chance)),
        "rag-after": list(about(papers, "{asked}\n\nAnswer from this text:\n{paper}", chance)),
    }
    for prompts in made.values():
        chance.shuffle(prompts)
    return {name: prompts[:MOST] for name, prompts in made.items()}


def passages(asked: Sequence[Asked]) -> Iterator[tuple[str, list[str]]]:
    """Each passage of the `long` stream with the questions about it."""
    found: dict[str, dict[str, None]] = {}
    for one in asked:
        head, _, rest = one.text.partition("\n")
        paper, mark, question = rest.strip().rpartition("\nQuestion: ")
        if head == "Read the passage and answer the question." and mark:
            found.setdefault(paper.strip(), {})[question.strip()] = None
    for paper, questions in found.items():
        yield paper, list(questions)


def about(papers: Sequence[tuple[str, list[str]]], form: str, chance: Random) -> Iterator[Prompt]:
    """Questions about passages, in several wordings."""
    for paper, questions in papers:
        number = hashlib.sha256(paper.encode()).hexdigest()[:8]
        for text, name in worded([(one, f"{number} {one}") for one in questions], chance):
            yield Prompt(form.format(rules=RULES, paper=paper, asked=text), name)


def worded(questions: Sequence[tuple[str, str]], chance: Random) -> Iterator[tuple[str, str]]:
    """Each (question, class) in different wordings."""
    for text, name in questions:
        for wording in dict.fromkeys([text, *(varied(text, chance) for _ in range(WORDINGS - 1))]):
            yield wording, name


def replay(prompts: Sequence[Prompt], embedder: Embedder, templates: Templates | None) -> Outcome:
    """Look each prompt up among those before it, then let it be found."""
    cache = SemanticCache.open(None, embedder, max_entries=100_000, scorer=VerifierScorer(Verifier.open()))
    places, found, answers, seen = Places(templates), Outcome(), dict[str, str](), set[str]()
    for number, prompt in enumerate(prompts):
        found.requests += 1
        found.possible += prompt.answer in seen
        seen.add(prompt.answer)
        began = time.thread_time()
        settled = places.settle(Place(prompt.scope, "m", prompt.text))
        moved = places.called(settled)
        found.settle_us.append(1e6 * (time.thread_time() - began))
        refusal = places.refusal(settled)
        for one in moved:
            put(cache, one)
        found.divided += settled.place.divided
        if not refusal:
            place = settled.place
            found.tokens.append(embedder.count(place.text))
            best = cache.lookup(place.scope, place.route, place.text, 0.0)
            near = cache.near(place.scope, place.text, 0.0)
            right = not isinstance(near, str) and any(answers[one.entry_key] == prompt.answer for one in near)
            found.reachable += right
            if best.entry_key is not None:
                found.judged.append((best.score, answers[best.entry_key] == prompt.answer))
            refusal = "too long" if found.tokens[-1] > embedder.max_tokens else ""
        found.unmatchable += bool(refusal)
        if not refusal or refusal in UNLESS_DIVIDED:
            answers[str(number)] = prompt.answer
            placed = Placed(settled, str(number), 2e9)
            places.wait(placed)
            put(cache, placed)
    return found


class Remembering:
    """The embedder with a memory that outlives a replay, since the same texts come in several."""

    def __init__(self, inner: Embedder, vectors: Vectors) -> None:
        self.name, self.dim, self.max_tokens, self.batch = inner.name, inner.dim, inner.max_tokens, inner.batch
        self.count = inner.count
        self._vectors = vectors

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See Embedder."""
        found = [self._vectors.of(text) for text in texts]
        if any(one is None for one in found):
            raise ValueError("the text is longer than the model's window")
        return np.array(found, np.float32)


def put(cache: SemanticCache, one: Placed) -> None:
    """Let an entry be found at its place."""
    place = one.settled.place
    cache.add(place.scope, place.text, one.entry_key, one.expires_s, route=place.route)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--part", choices=("test", "learn"), default="test", help="learn: to choose by")
    parser.add_argument("--texts", type=int, nargs="*", default=[4], help="how many texts must share what is common")
    parser.add_argument("--vectors", type=Path, default=None, help="a file that keeps vectors between runs (.npz)")
    parser.add_argument("--only", nargs="*", default=None, help="these traffics alone")
    given = parser.parse_args()
    model = open_embedder("minilm-int8")
    vectors = Vectors(model, given.vectors)
    embedder = Remembering(model, vectors)
    parts = held_out(sibling(given.data) / "semcache", vectors, given.part)
    traffic = {
        name: [Prompt(one.text, one.answer, one.scope) for one in parts[name]][:MOST] for name in ("long", "math", "qa")
    }
    columns = ["traffic", "requests", "matched", "divided", "not matchable", "possible", "right one near"]
    columns += [f"hits, {share:.0%} wrong" for share in SHARES] + ["divide p50/p99 µs", "tokens read, p50"]
    report = Report("templates", "Texts matched whole, and what varies matched alone", columns)
    for name, prompts in (traffic | apps(parts)).items():
        if given.only and name not in given.only:
            continue
        for least in (0, *given.texts):
            one = replay(prompts, embedder, Templates(least_texts=least) if least else None)
            report.rows.append([name, f"{one.requests:,}", f"parts, {least}" if least else "whole", *shares(one)])
            Console(stderr=True).print(report.rows[-1])
    vectors.save()
    report.notes.append(f"{given.part} part, seed {SEED}, {processor()}, processor time of one thread")
    show(report, Console(width=200))


def shares(one: Outcome) -> list[str]:
    """The outcome's figures, each a share of all requests."""
    counts = [one.divided, one.unmatchable, one.possible, one.reachable, *map(one.hits, SHARES)]
    times = f"{percentile(one.settle_us, 50):.0f} / {percentile(one.settle_us, 99):.0f}"
    return [*(f"{count / max(one.requests, 1):.1%}" for count in counts), times, f"{percentile(one.tokens, 50):.0f}"]


if __name__ == "__main__":
    main()
