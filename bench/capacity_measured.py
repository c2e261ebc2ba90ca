"""What the capacity model rests on, measured, and the model against real farthings under mixes of all kinds.

First each cost alone (bench/capacity_units.py). Then mixes that none of them was measured with: some requests are first
hits, some come again and again, some are whole misses, some streams of another length; before a farthing with a store
of its own, and before one over a real Valkey. What is compared is processor time a request, which other work on the
machine changes less than times by the clock; the model is told by how much the bare server's speed has changed since.

    python -m bench.capacity_measured                     docs/capacity.json and docs/operations.md (ten minutes)
    python -m bench.capacity_measured --no-docs --requests 200 --rounds 1
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from bench import capacity_page, capacity_units
from bench.capacity import KEPT, TIMED, Costs, Load, request_us
from bench.capacity_units import ALONE, KNOWN, asked, cost_us, known, over, prompts
from bench.hot import LOW, from_dict
from bench.load import chat_body, http_request
from bench.machine import Place, place
from bench.provenance import about
from bench.servers import Running, farthing
from bench.upstream import streaming
from tests.fakes.valkey import running_valkey

__all__ = ["MIXES", "main", "mixed", "mixes"]

CHUNKS = 57
EVENTS = CHUNKS + 3
MIXES = ((0.3, 0.0, 0.7), (0.6, 0.5, 0.3), (0.9, 0.0, 0.0), (0.0, 0.0, 1.0))
"""(hits, those of them that come again and again, streams among the misses)"""


def mixed(series: int, count: int, mix: tuple[float, float, float]) -> Iterator[bytes]:
    """A mix by chance. First hits ask what `earlier` has asked before, each once; the others are of `known`."""
    hit_ratio, again_share, stream_share = mix
    chance = Random(series)
    first = iter(earlier(series, count))
    for number in range(count):
        if chance.random() >= hit_ratio:
            yield http_request(chat_body(f"n{series:03d}{number:08d}", chance.random() < stream_share))
        elif chance.random() < again_share:
            yield http_request(chat_body(f"k{chance.randrange(KNOWN):011d}"))
        else:
            yield next(first)


def earlier(series: int, count: int) -> Iterator[bytes]:
    """What shall be a first hit later."""
    return prompts(f"e{series:03d}", count)


def mixes(
    here: Place, store: str, costs: Costs, rounds: int, count: int, tell: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Each mix before each farthing: what the model says, and what was measured, µs a request."""
    found: dict[tuple[bool, tuple[float, float, float]], list[float]] = {}
    bare_us: list[float] = []
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(streaming(here, chunks=CHUNKS, first_ms=20, gap_ms=10))
        bare = stack.enter_context(from_dict(LOW, here))
        servers: Sequence[tuple[bool, Running]] = [
            (False, stack.enter_context(farthing("alone", upstream.port, here, ALONE))),
            (True, stack.enter_context(farthing("shared", upstream.port, here, over(store)))),
        ]
        for series, (number, mix) in enumerate((number, mix) for number in range(rounds) for mix in MIXES):
            tell(f"mixes: round {number + 1} of {rounds}, {mix}")
            bare_us.append(cost_us(bare, known(4 * count)))
            for shared, server in servers:
                asked(server, earlier(series, round(count * mix[0] * (1 - mix[1]) * 1.2) + KNOWN))
                asked(server, known(2 * KNOWN))
                found.setdefault((shared, mix), []).append(cost_us(server, mixed(series, count, mix)))
    now = costs.on(statistics.median(bare_us))
    return [
        {
            "shared": shared,
            "hit_ratio": mix[0],
            "again_share": mix[1],
            "stream_share": mix[2],
            "events": EVENTS,
            "bare_us": now.bare_us,
            "model_us": request_us(load_of(mix), now, shared=shared),
            "measured_us": statistics.median(some),
            "rounds_us": some,
        }
        for (shared, mix), some in found.items()
    ]


def load_of(mix: tuple[float, float, float]) -> Load:
    """As the model is told of it."""
    hit_ratio, again_share, stream_share = mix
    return Load(
        1, hit_ratio=hit_ratio, again_share=again_share, stream_share=stream_share, events=EVENTS, semantic=False
    )


def main(arguments: list[str]) -> None:
    """Measure all, and write it unless told not to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-docs", action="store_true", help="print it, but leave docs alone")
    given = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    note = about(" ".join(["python -m bench.capacity_measured", *arguments]))
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder, running_valkey() as store:
        here = place(Path(folder))
        told = capacity_units.measured(here, store, given.rounds, given.requests, console.print)
        costs = Costs(**told)
        found = mixes(here, store, costs, given.rounds, given.requests, console.print)
    known_costs = {name: round(asdict(costs)[name], 2) for name in TIMED}
    kept = note | {"costs": known_costs, "mixes": found}
    if not given.no_docs:
        KEPT.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
        capacity_page.write()
    console.print(capacity_page.of_costs(kept), capacity_page.of_mixes(kept), sep="\n\n", markup=False)


if __name__ == "__main__":
    main(sys.argv[1:])
