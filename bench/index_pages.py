"""What `bench.index_sizes` measured last (docs/index-sizes.json), as the tables of two documents.

docs/semantic-cache.md has all of it, docs/operations.md what each kind needs for a million entries.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.provenance import measured_by
from bench.report import replace_section, table

__all__ = ["all_of_it", "cells", "for_a_million", "kept", "write"]

Figures = Sequence[dict[str, Any]]

DOCS = Path(__file__).parents[1] / "docs"
KEPT = DOCS / "index-sizes.json"
_MILLION = 1_000_000
_COLUMNS = [
    *("index", "entries", "index, bytes an entry", "resident, bytes an entry", "built, s of processor"),
    *("search p50 / p99, µs", "recall@1", "cosine off by"),
]


def kept(found: Figures, path: Path = KEPT) -> list[dict[str, Any]]:
    """These in the file, by size and in the order of kinds; what it has of others stays. Gives all of them."""
    before = json.loads(path.read_text("utf-8")) if path.exists() else []
    known = {(one["entries"], one["index"]): one for one in (*before, *found)}
    order = list(dict.fromkeys(name for _, name in known))
    lines = [known[key] for key in sorted(known, key=lambda key: (key[0], order.index(key[1])))]
    path.write_text(json.dumps(lines, indent=1) + "\n", "utf-8")
    return lines


def cells(one: dict[str, Any]) -> list[str]:
    """A row of the table."""
    return [
        one["index"],
        f"{one['entries']:,}",
        f"{one['bytes']:,.0f}",
        f"{one['resident']:,.0f}",
        f"{one['built_s']:,.1f}",
        f"{one['p50_us']:,.0f} / {one['p99_us']:,.0f}",
        f"{one['recall']:.3f}",
        f"{one['off']:.4f}",
    ]


def all_of_it(figures: Figures) -> str:
    """Every kind at every size, and how it was measured."""
    return "\n".join([*table(_COLUMNS, [cells(one) for one in figures]), "", measured_by(figures)])


def for_a_million(figures: Figures) -> str:
    """Each kind at the largest size that it was measured at, reckoned up to a million where that is smaller.

    Of the index itself: what a process grows by has spare room and training in it, which don't grow with the entries.
    """
    largest = {one["index"]: one for one in sorted(figures, key=lambda one: one["entries"])}
    rows = [
        [
            one["index"],
            f"{_MILLION * one['bytes'] / 1e9:.2f}",
            f"{one['p50_us'] / 1000:.2f}",
            f"{one['recall']:.3f}",
            f"{one['entries']:,}",
        ]
        for one in largest.values()
    ]
    columns = ["index", "GB for a million vectors", "search p50, ms", "recall@1", "measured at"]
    return "\n".join([*table(columns, rows), "", measured_by([*largest.values()])])


def write(figures: Figures, docs: Path = DOCS) -> None:
    """Both documents' sections anew. Raises ValueError: one has no place for it."""
    for name, section, text in (
        ("semantic-cache.md", "index-sizes", all_of_it(figures)),
        ("operations.md", "index-memory", for_a_million(figures)),
    ):
        page = docs / name
        page.write_text(replace_section(page.read_text("utf-8"), section, text), "utf-8")
