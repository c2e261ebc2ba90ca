"""What is watched: the series, how a value becomes a bin, what a bin is called, whom a change warns. Pure, no state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from farthing.policies.association import PAIRS, series_of
from farthing.policies.features import LANGUAGES
from farthing.policies.shares import Kind

__all__ = ["SERIES", "TOPICS", "Series", "binary", "log_place", "share_place"]

_LOG_BINS = 40
_SHARE_BINS = 20
TOPICS = 12


@dataclass(frozen=True, slots=True)
class Series:
    """`of`: 'input', 'output', 'cache', 'judge' or 'upstream'. `labels`: of named bins. `unit`: of ordered ones.
    `warns`: the optimisers whose evidence was made with other traffic once this has moved."""

    name: str
    of: str
    meaning: str
    kind: str
    bins: int
    labels: tuple[str, ...] = ()
    unit: str = ""
    warns: tuple[str, ...] = ()

    def called(self, first: int, last: int) -> str:
        """A set of bins in words."""
        if self.kind == Kind.NAMED:
            return ", ".join(self.labels[first : last + 1])
        return f"{self.edge(first)} or more" if first else f"under {self.edge(last + 1)}"

    def edge(self, place: int) -> str:
        """Where an ordered bin begins."""
        if self.unit == "share":
            return f"{place / self.bins:.2f}"
        return f"{math.ceil(_log_edge(place)):,} {self.unit}"


def log_place(value: float) -> int:
    """The bin of a count or a time: two bins for each doubling; 0 for nothing, the last from 741,455 on."""
    return 0 if value < 1 else min(_LOG_BINS - 1, 1 + int(2 * math.log2(value)))


def share_place(value: float) -> int:
    """The bin of a number in [0, 1]; what lies outside is in the first or the last."""
    return min(_SHARE_BINS - 1, max(0, int(value * _SHARE_BINS)))


def binary(name: str, of: str, meaning: str, no: str, yes: str, *warns: str) -> Series:
    """A series of noes and yeses: bins 0 and 1."""
    return Series(name, of, meaning, Kind.NAMED, 2, (no, yes), warns=warns)


def _log_edge(place: int) -> float:
    return 0.0 if place == 0 else float(2 ** ((place - 1) / 2))


def _log(name: str, of: str, meaning: str, unit: str, *warns: str) -> Series:
    return Series(name, of, meaning, Kind.ORDERED, _LOG_BINS, unit=unit, warns=warns)


def _share(name: str, of: str, meaning: str, *warns: str) -> Series:
    return Series(name, of, meaning, Kind.ORDERED, _SHARE_BINS, unit="share", warns=warns)


_WARNED = {pair: ("cache", "semantic") if "hit" in pair else ("semantic", "compress", "routes") for pair in PAIRS}

_ALL = (
    _log("input_tokens", "input", "length of requests", "tokens", "semantic", "compress", "routes"),
    Series(
        "language", "input", "language of what the user said last", Kind.NAMED, len(LANGUAGES), LANGUAGES,
        warns=("semantic", "routes", "distill"),
    ),
    binary("tools", "input", "requests that offer tools", "no tools", "tools", "semantic", "compress", "routes"),
    Series(
        "topic", "input", "topic of what the user said last", Kind.NAMED, TOPICS + 1,
        (*(f"topic {number}" for number in range(1, TOPICS + 1)), "no known topic"),
        warns=("semantic", "routes", "distill"),
    ),
    _log("output_tokens", "output", "length of answers", "tokens", "routes", "compress"),
    binary("refused", "output", "answers that refuse", "answered", "refused", "routes", "compress", "semantic"),
    binary("empty", "output", "answers that say nothing", "something", "nothing", "routes", "upstream"),
    binary("cut", "output", "answers cut at their length limit", "whole", "cut", "routes"),
    binary("broken_json", "output", "answers that are no JSON though it was asked for", "JSON", "broken", "routes"),
    binary("hit", "cache", "requests answered by a cache, of those that might have been", "miss", "hit", "cache"),
    _share("similarity", "cache", "how near the nearest earlier prompt is (cosine)", "semantic"),
    binary("wrong", "judge", "compared near-duplicates' answers that differ", "same", "different", "semantic"),
    _share("score", "judge", "scores of near-duplicates that were compared", "semantic"),
    _share("judged", "judge", "the second stage's scores of near-duplicates", "semantic"),
    binary(
        "shadowed", "judge", "routed answers that the asked-for model was asked for too", "the same", "something else",
        "routes",
    ),
    _log("upstream_ms", "upstream", "time of the upstream", "ms", "routes", "upstream"),
    binary("failed", "upstream", "requests that failed at the upstream", "answered", "failed", "routes", "upstream"),
    *(
        binary(
            series_of(one, other), "association",
            f"{one} and {other}: of two requests that differ in both, those where both go the same way",
            "against each other", "the same way", *_WARNED[one, other],
        )
        for one, other in PAIRS
    ),
)  # fmt: skip
SERIES: Mapping[str, Series] = {one.name: one for one in _ALL}
