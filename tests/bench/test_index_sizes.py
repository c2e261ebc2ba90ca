"""The ruler for indexes: vectors as they are said to be, what is nearest, and pages that say what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.index_pages import all_of_it, for_a_million, kept, write
from bench.index_sizes import KINDS, Kind, clustered, measured, nearest, turned
from bench.index_training import Setting
from bench.index_training import measured as of_lists
from bench.report import replace_section

DIM = 384


def unit(count: int, seed: int = 1) -> Any:
    drawn = np.random.default_rng(seed).standard_normal((count, DIM), np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_a_vector_is_turned_to_just_the_cosine_that_it_shall_have() -> None:
    vectors, cosines = unit(50), np.linspace(0.7, 0.98, 50, dtype=np.float32).reshape(-1, 1)
    found = turned(vectors, cosines, np.random.default_rng(2))

    assert np.abs((found * vectors).sum(axis=1) - cosines[:, 0]).max() < 1e-5
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-5


def test_entries_lie_round_the_real_ones() -> None:
    real = unit(20)
    entries = np.concatenate(list(clustered(real, 500, np.random.default_rng(3))))
    near = (entries @ real.T).max(axis=1)

    assert entries.shape == (500, DIM) and (entries[:20] == real).all()
    assert near.min() > 0.69 and near[20:].max() < 0.981
    assert np.concatenate(list(clustered(real, 7, np.random.default_rng(3)))).shape == (7, DIM)


def test_the_nearest_is_the_nearest_in_whichever_block_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.index_sizes._BLOCK", 64)
    entries, queries = unit(300), unit(9, seed=4)
    found, cosines = nearest(entries, queries)

    assert found.tolist() == (queries @ entries.T).argmax(axis=1).tolist()
    assert np.abs(cosines - (queries @ entries.T).max(axis=1)).max() < 1e-6


# The larger PQ takes the same way, and longest to train.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "96" not in kind.name], ids=lambda kind: kind.name)
def test_each_kind_finds_what_is_near_and_costs_what_its_vectors_do(kind: Kind, tmp_path: Path) -> None:
    entries = np.concatenate(list(clustered(unit(40), 600, np.random.default_rng(5))))
    stored = tmp_path / "entries.npy"
    np.save(stored, entries)
    queries = turned(entries[:40], np.full((40, 1), 0.97, np.float32), np.random.default_rng(6))
    got = measured(kind.spec, stored, queries, threads=1)

    vector = {"32 bits": 4 * DIM, "16 bits": 2 * DIM, "8 bits": DIM, "48 bytes": 48}
    size = next(size for said, size in vector.items() if said in kind.name)
    assert size <= got["bytes"] < size + 900, "beside it: lists, links, tables"
    assert got["recall"] >= (0.5 if "PQ" in kind.name else 0.95)
    assert got["off"] < (0.2 if "PQ" in kind.name else 0.02)
    assert 0 < got["p50_us"] <= got["p99_us"]


def test_the_more_lists_are_looked_into_the_more_is_found() -> None:
    rows = list(of_lists(unit(2_000), Setting(16, 0), 100, np.random.default_rng(7)))

    assert [row[:3] for row in rows] == [["16", "0", nprobe] for nprobe in ("8", "16", "32", "64")]
    recalls = [float(row[4]) for row in rows]
    assert recalls == sorted(recalls) and recalls[0] < 1 and recalls[-1] > 0.9


def figure(index: str, entries: int, size: float = 1500.0) -> dict[str, Any]:
    told = {"command": "c", "machine": "m", "load_average": 1.0, "date": "2026-01-01"}
    numbers = {"bytes": size, "resident": 1.0, "built_s": 1.0, "p50_us": 50.0, "p99_us": 60.0, "recall": 1.0}
    return {"index": index, "entries": entries, "off": 0.0} | numbers | told


def test_figures_are_kept_by_kind_and_size_and_both_pages_have_them(tmp_path: Path) -> None:
    path = tmp_path / "index-sizes.json"
    kept([figure("flat", 10), figure("graph", 10), figure("graph", 20)], path)
    figures = kept([figure("flat", 20, 2000.0), figure("flat", 10, 1000.0)], path)
    for name, section in (("semantic-cache.md", "index-sizes"), ("operations.md", "index-memory")):
        (tmp_path / name).write_text(f"before\n<!-- bench:{section} -->\nold\n<!-- /bench:{section} -->\nafter\n")
    write(figures, tmp_path)

    assert [(one["entries"], one["index"]) for one in figures] == [
        (10, "flat"), (10, "graph"), (20, "flat"), (20, "graph"),
    ]  # fmt: skip
    assert "1,000" in all_of_it(figures)
    assert "2.00 |" in for_a_million(figures) and "1.00 |" not in for_a_million(figures)
    page = (tmp_path / "operations.md").read_text()
    assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page
    assert replace_section(page, "index-memory", for_a_million(figures)) == page
