"""How often semantic caches hit, and how often their hits are wrong: `python -m bench.hit_rate [--quick]`.

Replays the held-out parts of the semcache streams, and traffic made from them, in many seeded orders through static
cosine thresholds, fixed thresholds on the verifier's score, vCache, and farthing's verified reuse. Nothing is tuned
here. Embedding the texts takes some minutes the first time; they are kept under bench/results. Exit status 0: every
goal reached; 1: one was missed; 2: the streams aren't there.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from copy import copy
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench.hit_figures import areas_table, goals, main_table, slices_table, warm_up_table
from bench.hit_methods import Method, Sums, run
from bench.hit_plot import draw
from bench.hit_pool import Pool, verifier
from bench.hit_traffic import Traffic, calibrations, orders, streams
from bench.report import Report, markdown, replace_section, save, show
from bench.verifier_data import Vectors
from farthing.cache.embedder import open_embedder

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
DOCUMENT = ROOT / "docs" / "semantic-benchmarks.md"
PICTURE = ROOT / "docs" / "hit-rate.png"
TEXTS, QUICK_TEXTS = 22_000, 2_200


def main(arguments: list[str]) -> int:
    """Run, print, write."""
    given = parser().parse_args(arguments)
    given.shuffles = given.shuffles or (10 if given.quick else 200)
    if not (given.data / "adv.jsonl").exists():
        print(f"{given.data} holds no semcache streams: give their folder with --data", file=sys.stderr)
        return 2
    console, errors = Console(width=None if sys.stdout.isatty() else 200), Console(stderr=True)
    began = time.perf_counter()

    def tell(text: str) -> None:
        errors.print(f"{time.perf_counter() - began:5.0f} s  {text}", highlight=False, markup=False)

    RESULTS.mkdir(parents=True, exist_ok=True)
    vectors = Vectors(open_embedder("minilm-int8"), RESULTS / "hit_vectors.npz")
    traffics = [
        *streams(given.data, vectors, QUICK_TEXTS if given.quick else TEXTS),
        *calibrations(given.data, vectors),
    ]
    results: dict[str, dict[str, tuple[Method, Sums]]] = {}
    possible, slices, shifts = {}, {}, {}
    scorer = verifier()
    pool: Pool | None = None
    for traffic in traffics:
        tell(f"{traffic.name}: {len(traffic.asked):,} texts")
        pool = pool_of(traffic, pool, vectors, scorer)
        first = next(orders(traffic, 1))[traffic.first :]
        possible[traffic.name] = 1 - len({pool.asked[number].answer for number in first}) / len(first)
        slices[traffic.name] = sorted({one.slice for one in pool.asked})
        if traffic.name in ("adv", "qa", "intent"):
            shifts[traffic.name] = pool.shift(first)
        results[traffic.name] = {method.name: (method, sums) for method, sums in run(pool, given.shuffles)}
    vectors.save()

    table = main_table(results, possible)
    table.targets = goals(results)
    table.notes = notes(shifts)
    tables = [table, areas_table(results), warm_up_table(results), slices_table(results, slices)]
    tell("done")
    write(tables, given, console)
    picture = PICTURE if document_of(given) is not None else RESULTS / "hit-rate.png"
    draw({name: found for name, found in results.items() if name != "tenant"}, possible, picture)
    return int(table.missed)


def pool_of(traffic: Traffic, last: Pool | None, vectors: Vectors, scorer: object) -> Pool:
    """The last pool with other orders, where the texts are the same; neighbours and scores stay."""
    if last is None or last.asked is not traffic.asked:
        return Pool(traffic, vectors, scorer)  # type: ignore[arg-type]
    pool = copy(last)
    pool.traffic = traffic
    return pool


def notes(shifts: dict[str, tuple[float, float]]) -> list[str]:
    """What a reader must know of these figures."""
    moved = "; ".join(
        f"{name}: mean {mean:.3f}, {share:.1%} by more than 0.05" for name, (mean, share) in shifts.items()
    )
    return [
        "adv, qa, intent, conv, tenant, math, long: only the part that the verifier wasn't trained on (whole template "
        "families, label classes, groups of near-duplicates). zipf, bursts, drift: made from those parts of intent, qa "
        "and adv by bench/hit_traffic.py. No text occurs twice: word-for-word repeats are the exact cache's.",
        "'adv after ...': evidence was gathered on other families first; only the held-out families are counted. The "
        "verifier was trained on those other families, so evidence from them flatters it.",
        "vCache's bound is per request, ours per hit; both are given.",
        "A pair has one score in all orders: word rarities are those of the whole traffic. Against rarities learnt in "
        f"order, best candidates' scores move so much: {moved}.",
        "A comparison's label is the class: the comparator is perfect here. An entry never expires.",
    ]


def document_of(given: argparse.Namespace) -> Path | None:
    """The document to write; None: leave it alone."""
    return None if given.no_docs or given.quick else DOCUMENT


def write(tables: list[Report], given: argparse.Namespace, console: Console) -> None:
    """To the terminal, as JSON, and into the document."""
    command = " ".join(
        ["python -m bench.hit_rate", *(["--quick"] if given.quick else []), f"--shuffles {given.shuffles}"]
    )
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    facts = {"machine": f"one core of {processor()}", "python": platform.python_version()}
    document = document_of(given)
    text = document.read_text("utf-8") if document is not None else ""
    for report in tables:
        show(report, console)
        save(report, RESULTS / "quick" if given.quick else RESULTS, facts, command, when)
        if document is not None:
            text = replace_section(text, report.name, markdown(report, facts, command, when))
    if document is not None:
        document.write_text(text, "utf-8")


def processor() -> str:
    """As the kernel names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench.hit_rate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--data", type=Path, default=Path("../shared/data/semcache"), help="the semcache streams' folder")
    made.add_argument("--shuffles", type=int, default=None, help="orders of each traffic (200; 10 with --quick)")
    made.add_argument("--quick", action="store_true", help="few orders, little made traffic: whether it works")
    made.add_argument("--no-docs", action="store_true", help="print and save, but leave the document alone")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
