"""What vectors in PostgreSQL cost: writing, searching, and how often the nearest is found; against a real server.

Processor time of this process and of the server's processes, so that what else runs on the machine doesn't count. One
scope holds half of the entries, which PostgreSQL searches by the graph if it chooses to; the others share the rest, a
hundred to a scope. Vectors are drawn by chance in 50 directions, and queries are entries moved to a cosine of about
0.95, as a near-duplicate is. Recall@1: against a search of all of the scope in memory.

    python -m bench.vectors_elsewhere --entries 10000       (a minute or so)
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from bench.machine import cpu_s
from farthing.cache.index import BruteIndex
from farthing.cache.index_pg import PgVectors
from farthing.proxy.clock import SystemClock
from tests.fakes.postgres import running_postgres

DIM, K = 384, 8
_DIRECTIONS, _NOISE, _QUERIES, _SMALL = 50, 0.033, 200, 100
Matrix = NDArray[np.float32]


def unit(drawn: Matrix) -> Matrix:
    """Of length 1."""
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def vectors(entries: int) -> Matrix:
    """Some in each of a few directions."""
    chance = np.random.default_rng(1)
    middles = chance.standard_normal((_DIRECTIONS, DIM), np.float32)[chance.integers(0, _DIRECTIONS, entries)]
    return unit(unit(middles) + 0.05 * chance.standard_normal((entries, DIM), np.float32))


def server_cpu_s(socket_folder: str) -> float:
    """Of all that the server's main process has started, those that have ended among them."""
    pid = int((Path(socket_folder) / "postmaster.pid").read_text().split()[0])
    return cpu_s(pid)


def planned(link: psycopg.Connection[Any], table: str, scope: str, vector: Matrix) -> bool:
    """Whether a search in that scope goes by the graph."""
    query = f"EXPLAIN SELECT number FROM {table} WHERE scope = %s ORDER BY vector <#> %s::halfvec LIMIT 16"
    lines = link.execute(query, (scope, str(vector.tolist()))).fetchall()
    return any("_graph" in line for (line,) in lines)


def measured(entries: int) -> dict[str, float]:
    """All of it."""
    found: dict[str, float] = {"entries": entries}
    given, chance = vectors(entries), np.random.default_rng(2)
    large = entries // 2
    scopes = ["large"] * large + [f"small {at // _SMALL}" for at in range(entries - large)]
    exact = {name: BruteIndex(DIM) for name in scopes}
    with running_postgres() as server:
        table = PgVectors(server.url, model="bench", dim=DIM, deadline_s=60.0, clock=SystemClock())
        indexes = {name: table.scope(name) for name in exact}

        @contextmanager
        def spent(what: str, times: int) -> Iterator[None]:
            ours, theirs = time.process_time(), server_cpu_s(server.home)
            yield
            found[f"{what}_own_cpu_ms"] = 1000 * (time.process_time() - ours) / times
            found[f"{what}_server_cpu_ms"] = 1000 * (server_cpu_s(server.home) - theirs) / times

        with spent("write", entries):
            for number, (name, vector) in enumerate(zip(scopes, given, strict=True)):
                indexes[name].add(number, vector)
                exact[name].add(number, vector)
            for index in indexes.values():
                while index.tend():
                    pass
        with psycopg.connect(server.url, autocommit=True) as link:
            link.execute(f"ANALYZE {table.table}")  # as the server does by itself, a minute later
            for kind, scope in (("large", "large"), ("small", "small 0")):
                found[f"graph_{kind}"] = float(planned(link, table.table, scope, given[0]))
        for kind, low, high in (("large", 0, large), ("small", large, entries)):
            asked = chance.integers(low, high, _QUERIES)
            moved = unit(given[asked] + _NOISE / 2 * chance.standard_normal((_QUERIES, DIM), np.float32))
            hits = 0
            with spent(f"search_{kind}", _QUERIES):
                answers = [indexes[scopes[at]].search(one, K) for at, one in zip(asked, moved, strict=True)]
            for at, one, answer in zip(asked, moved, answers, strict=True):
                hits += bool(answer) and answer[0][0] == exact[scopes[at]].search(one, 1)[0][0]
            found[f"recall_at_1_{kind}"] = hits / _QUERIES
        table.close()
    return found


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=10_000)
    print(json.dumps(measured(parser.parse_args().entries), indent=1))


if __name__ == "__main__":
    main()
