"""Pairs for the verifier as a cache meets them: each request of a stream against its nearest earlier neighbours.

Rules of this file:
1. What is reported is never learned from: `parted` puts whole template families (adv), label classes (intent), groups
   of near-duplicates (math, qa, long), conversations (conv) and questions (tenant) into one part or the other.
2. A part is replayed as a stream of its own, so that no pair joins the parts.
3. Nothing but the texts, their scope and their vectors makes the features; the classes only label.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from farthing.cache.embedder import Embedder
from farthing.cache.index import BruteIndex
from farthing.cache.rarity import RouteWords
from farthing.cache.semantic import NEIGHBOURS
from farthing.cache.signals import comparable
from farthing.cache.unmatchable import unmatchable
from farthing.cache.verifier import Verifier
from farthing.proxy.text import normalise

STREAMS = ("adv", "qa", "intent", "conv", "tenant", "math", "long")
SEED = "farthing-verifier-1"
TEST_SHARE = 0.3
# Prompts at least this near are of one origin, and stay together.
_ORIGIN = {"math": 0.85, "qa": 0.80, "long": 0.90}


@dataclass(frozen=True, slots=True)
class Request:
    """One request: `scope` is a digest of all but the last message, `route` of tenant and system prompt only."""

    stream: str
    slice: str
    scope: str
    route: str
    text: str
    answer: str


@dataclass(slots=True)
class Pairs:
    """Query-neighbour pairs. `features` [n, features]; `same` [n] 0 or 1; `query` [n] the request's number within
    `requests`; `verbatim` [n] 1 where the texts are equal when normalised, -1 where they can't be compared."""

    requests: list[Request]
    features: NDArray[np.float64]
    same: NDArray[np.int8]
    query: NDArray[np.int64]
    verbatim: NDArray[np.int8]
    texts: list[tuple[str, str]]


class Vectors:
    """An embedder that embeds each text once. `path`: kept there between runs, if given."""

    def __init__(self, embedder: Embedder, path: Path | None) -> None:
        self._embedder = embedder
        self._path = path
        self._known: dict[str, NDArray[np.float32] | None] = {}
        if path is not None and path.exists():
            with np.load(path, allow_pickle=False) as kept:
                self._known = dict(zip(kept["texts"].tolist(), kept["vectors"], strict=True))

    def of(self, text: str) -> NDArray[np.float32] | None:
        """None beyond the model's window."""
        if text not in self._known:
            fits = self._embedder.count(text) <= self._embedder.max_tokens
            self._known[text] = self._embedder.embed([text])[0] if fits else None
        return self._known[text]

    def save(self) -> None:
        """Write what is known, if there is a place for it."""
        if self._path is not None:
            kept = [(text, vector) for text, vector in self._known.items() if vector is not None]
            np.savez(self._path, texts=np.array([t for t, _ in kept]), vectors=np.array([v for _, v in kept]))


def requests_of(folder: Path, stream: str) -> list[Request]:
    """The stream's requests in order. Raises SystemExit with a plain message where the file is missing."""
    path = folder / f"{stream}.jsonl"
    if not path.exists():
        raise SystemExit(f"{path} is missing: this needs the semcache streams (see docs/semantic-score.md)")
    return [_request(json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def _request(row: dict[str, object]) -> Request:
    messages = row["messages"]
    assert isinstance(messages, list)
    *before, last = messages
    system = [message for message in before if message["role"] == "system"]
    tenant = row.get("tenant")
    scope, route = (_digest(json.dumps([tenant, told, last["role"]], sort_keys=True)) for told in (before, system))
    stream = str(row["stream"])
    return Request(stream, str(row["slice"]), scope, stream + route, normalise(last["content"]), str(row["class"]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digest_of(paths: Iterable[Path]) -> str:
    """One SHA-256 over the files, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()


def parted(requests: Sequence[Request], vectors: Vectors) -> list[tuple[str, str]]:
    """For each request of one stream its group, and 'learn' or 'test'. Follows from SEED and the texts alone.

    Groups are ordered by a keyed digest; the first that hold three tenths of the groups are the test part.
    """
    groups = _groups(requests, vectors)
    order = sorted(set(groups), key=lambda group: _digest(SEED + group))
    test = set(order[: max(1, round(TEST_SHARE * len(order)))])
    return [(group, "test" if group in test else "learn") for group in groups]


def _groups(requests: Sequence[Request], vectors: Vectors) -> list[str]:
    stream = requests[0].stream
    if stream == "adv":
        return [":".join(one.answer.split(":")[:2]) for one in requests]
    if stream == "tenant":
        return ["tenant:" + one.answer.rsplit("|", 1)[1] for one in requests]
    if stream not in _ORIGIN:
        return [one.answer for one in requests]
    parent = list(range(len(requests)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    first: dict[str, int] = {}
    for number, one in enumerate(requests):
        parent[root(number)] = root(first.setdefault(one.answer, number))
    found = [(number, vector) for number, one in enumerate(requests) if (vector := vectors.of(one.text)) is not None]
    matrix = np.array([vector for _, vector in found])
    for row, (number, _) in enumerate(found):
        for near in np.flatnonzero(matrix[:row] @ matrix[row] >= _ORIGIN[stream]):
            parent[root(number)] = root(found[int(near)][0])
    return [requests[root(number)].answer for number in range(len(requests))]


def replayed(requests: Sequence[Request], vectors: Vectors, verifier: Verifier) -> Pairs:
    """Each request against its nearest earlier ones in its scope. All are kept, as in the cache's observe mode."""
    indexes: dict[str, BruteIndex] = {}
    words: dict[str, RouteWords] = defaultdict(RouteWords)
    rows: list[list[float]] = []
    same: list[int] = []
    query: list[int] = []
    verbatim: list[int] = []
    texts: list[tuple[str, str]] = []
    for number, one in enumerate(requests):
        vector = None if unmatchable(one.text, records=False) else vectors.of(one.text)
        if vector is None:
            continue
        index = indexes.setdefault(one.scope, BruteIndex(len(vector)))
        near = index.search(vector, NEIGHBOURS)
        asked = verifier.read(one.text)
        others = [verifier.read(requests[other].text) for other, _ in near]
        rows += verifier.rows(asked, others, [min(cosine, 1.0) for _, cosine in near], words[one.route])
        for (other, _), reading in zip(near, others, strict=True):
            same.append(requests[other].answer == one.answer)
            query.append(number)
            verbatim.append(-1 if comparable(asked, reading) else int(asked.text == reading.text))
            texts.append((one.text, requests[other].text))
        words[one.route].learn(asked.terms)
        index.add(number, vector)
    return Pairs(list(requests), np.array(rows), np.array(same, np.int8), np.array(query), np.array(verbatim), texts)
