"""What the semantic stage costs: `python -m bench.semantic_cost [--quick]`. Some ten minutes; two cores, nginx.

At 1,000, 10,000 and 100,000 entries, in one scope and spread over many: embed, search, score, decide, learn, the whole
look-up, memory of an entry; what is added to a miss from end to end; how long a start with a full file takes. Writes
docs/semantic-benchmarks.md. Exit status 0: every goal reached; 1: one was missed; 2: the streams aren't there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from bench.index import real_vectors
from bench.machine import facts, place
from bench.report import Report, Target, markdown, replace_section, save, show
from bench.semantic_added import Added, added
from bench.semantic_stage import PARTS, Stage, distinct, measured, started
from farthing.proxy.text import normalise

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
DOCUMENT = ROOT / "docs" / "semantic-benchmarks.md"
_VECTORS = 3_000


def main(arguments: list[str]) -> int:
    """Run, print, write."""
    given = parser().parse_args(arguments)
    if not (given.data / "semcache" / "adv.jsonl").exists():
        print(f"{given.data} holds no semcache streams: give their folder with --data", file=sys.stderr)
        return 2
    console, errors = Console(width=None if sys.stdout.isatty() else 200), Console(stderr=True)

    def tell(text: str) -> None:
        errors.print(text, highlight=False, markup=False)

    texts = asked_of(given.data)
    sizes, asked, rounds = ((1_000,), 60, 1) if given.quick else ((1_000, 10_000, 100_000), 400, 5)
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        here = place(Path(folder))
        known = facts(here)
        if "added" in given.parts:
            ends = added(here, distinct(texts, 200 * rounds, Random(5)), rounds, tell)
            missed |= write(added_table(ends), known, given, console)
        if {"stage", "start"} & set(given.parts):
            tell("embedding")
            vectors = real_vectors(given.data, 300 if given.quick else _VECTORS)
        if "stage" in given.parts:
            stages: list[Stage] = []
            for size in sizes:
                for one_scope in (True, False):
                    tell(f"stage: {size:,} entries, {'one scope' if one_scope else 'many scopes'}")
                    stages.append(alone(measured, texts, vectors, size, one_scope, asked))
            missed |= write(stage_table(stages), known, given, console)
        if "start" in given.parts:
            tell("start with a full file")
            start = alone(started, texts, vectors, sizes[-1], Path(folder))
            missed |= write(start_table(start, sizes[-1]), known, given, console)
    return int(missed)


def alone(work: Any, *given: Any) -> Any:
    """`work` in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def asked_of(data: Path) -> list[str]:
    """Questions of 12 to 30 words' length in characters: about 20 tokens, as the goal says."""
    found: dict[str, None] = {}
    for name in ("intent", "adv", "qa"):
        for line in (data / "semcache" / f"{name}.jsonl").read_text("utf-8").splitlines():
            text = normalise(json.loads(line)["messages"][-1]["content"])
            if 40 <= len(text) <= 120:
                found[text] = None
    return list(found)


def stage_table(stages: list[Stage]) -> Report:
    """Each part at each size, p50 / p99."""
    report = Report("semantic_stage", "One look-up on a miss, p50 / p99 ms",
                    ["entries in scopes", "index", *PARTS, "bytes an entry: RSS, estimate"])  # fmt: skip
    for one in stages:
        times = [f"{p50:.2f} / {p99:.2f}" for p50, p99 in one.times_ms.values()]
        report.rows.append(
            [f"{one.entries:,} in {one.scopes:,}", one.kind, *times, f"{one.rss_bytes:,.0f}, {one.own_bytes:,.0f}"]
        )
        report.raw.append(asdict(one))
    p50, p99 = stages[-2].times_ms["whole"]
    size = f"{stages[-2].entries:,} entries in one scope"
    score, warm = (max(stage.times_ms[part][0] for stage in stages) for part in ("score", "score, warm"))
    report.targets = [
        Target(f"whole look-up, p50, {size}", "≤ 3 ms", f"{p50:.2f} ms", p50 <= 3),
        Target(f"whole look-up, p99, {size}", "≤ 10 ms", f"{p99:.2f} ms", p99 <= 10),
        Target("score of eight candidates, warm, all read, p50, any size", "< 0.2 ms", f"{warm:.2f} ms", warm < 0.2),
        Target("score of eight candidates in its place, p50, any size", "< 0.2 ms", f"{score:.2f} ms", score < 0.2),
    ]  # fmt: skip
    report.notes = [
        f"Queries: {stages[0].tokens:.0f} tokens on average, fresh. Processor time, but for the last column of times.",
        "score: what is asked is read, and compared with eight candidates whose readings are kept with their entries; "
        "right after the model ran, which leaves nothing of this in the processor's caches. 'warm': again at once, so "
        "what is asked is read as well. 'read anew': as if nothing were kept. embed: the bare model, which every cache "
        "of this kind needs. These two are the baselines.",
        "whole: SemanticThread.lookup as the stage calls it: refusals, embed, search, score, and the way to the thread "
        "and back. Deciding and learning happen elsewhere.",
        "RSS: growth of the process without the texts, which the bench holds; what indexes have in reserve included.",
    ]
    return report


def added_table(ends: list[Added]) -> Report:
    """End to end against the stage off."""
    report = Report("semantic_added", "What the stage adds to a miss", ["stage", "c", "p50 ms", "p99 ms"])
    report.columns += ["added p50 ms", "added p99 ms", "CPU µs/request", "added CPU µs"]
    base = {one.concurrency: one for one in ends if one.mode == "off"}
    for one in sorted(ends, key=lambda end: end.concurrency):
        off = base[one.concurrency]
        report.rows.append([
            one.mode, str(one.concurrency), f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}",
            f"{one.p50_ms - off.p50_ms:.2f}", f"{one.p99_ms - off.p99_ms:.2f}",
            f"{one.cpu_us:,.0f}", f"{one.cpu_us - off.cpu_us:,.0f}",
        ])  # fmt: skip
        report.raw.append(asdict(one))
    report.notes = [
        "At most 40 requests a second, c connections with pauses between requests; static upstream; medians over "
        "rounds. serve: unproven (the guard scores) at a cosine nobody reaches, so every request waits for a look-up.",
        "The caches grow from empty to some hundred entries meanwhile: this is embedding and the way there.",
    ]
    return report


def start_table(start: dict[str, float], size: int) -> Report:
    """A restart."""
    report = Report("semantic_start", "A start with a full file", ["entries in one scope", "look-ups served after s"])
    report.columns += ["look-up until the lists stand, p50 ms", "lists stand after s"]
    report.rows.append(
        [f"{size:,}", f"{start['served_s']:.1f}", f"{start['flat_p50_ms']:.2f}", f"{start['lists_s']:.0f} more"]
    )
    report.raw.append(start)
    report.targets = [
        Target("look-ups served", "a few seconds (5)", f"{start['served_s']:.1f} s", start["served_s"] <= 5)
    ]
    report.notes = [
        "The rest of the proxy serves from the first moment. 'Lists': processor time of all slices, if nobody asks "
        "meanwhile. Until they stand the flat index answers; embedding included."
    ]
    return report


def write(report: Report, known: dict[str, str], given: argparse.Namespace, console: Console) -> bool:
    """To the terminal, as JSON, and into the document; whether a goal was missed."""
    command = f"python -m bench.semantic_cost {' '.join(given.parts)}{' --quick' if given.quick else ''}"
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    show(report, console)
    save(report, RESULTS / "quick" if given.quick else RESULTS, known, command, when)
    if not (given.quick or given.no_docs):
        text = replace_section(DOCUMENT.read_text("utf-8"), report.name, markdown(report, known, command, when))
        DOCUMENT.write_text(text, "utf-8")
    return report.missed


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench.semantic_cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("parts", nargs="*", default=["added", "stage", "start"], help="added, stage, start (all)")
    made.add_argument("--data", type=Path, default=Path("../shared/data"))
    made.add_argument("--quick", action="store_true", help="1,000 entries, short windows: whether it works")
    made.add_argument("--no-docs", action="store_true", help="print and save, but leave the document alone")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
