"""The benchmarks of docs/benchmarks.md: `python -m bench.run EXPERIMENT|all [--quick]`.

Needs wrk and nginx (Debian: `apt install wrk nginx`) and two cores, otherwise idle. A full run took 18:55 on the slow
machine of docs/benchmarks.md, a quick one 1:49. The first time it installs the other gateways, beside the run over
memory.
Exit status 0: every target that was measured was reached; 1: one was missed; 2: an experiment couldn't run; the others
did.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bench.all_targets import collected, lacking, told
from bench.chunks import chunks
from bench.cpu_chart import OUT as CHART
from bench.cpu_chart import made
from bench.hot import Effort, Tell, hit, miss
from bench.ineligible import ineligible
from bench.lag import lag
from bench.long_hits import long_hits
from bench.machine import Place, facts, place
from bench.micro import micro
from bench.near import near
from bench.open_runs import open_load
from bench.peer_runs import fetch, peers
from bench.report import Report, markdown, replace_section, save, show
from bench.servers import ROOT, DidNotStart
from bench.stages import stages
from bench.start import start
from bench.streams import memory, stream
from bench.weights import weights

EXPERIMENTS: Mapping[str, Callable[[Place, Effort, Tell], Report]] = {
    "miss": miss,
    "hit": hit,
    "long": long_hits,
    "open": open_load,
    "stream": stream,
    "chunks": chunks,
    "lag": lag,
    "stages": stages,
    "micro": micro,
    "start": start,
    "near": near,
    "ineligible": ineligible,
    "weights": weights,
    "memory": memory,
    "peers": peers,
}
LEFT_OUT = frozenset({"peers", "weights", "memory", "long", "ineligible", "near"})
"""Of a quick run: what says nothing before tens of thousands of requests or entries, what installs, and a second kind
of a hit and of a miss."""
FULL = Effort(rounds=5, seconds=1, peer_rounds=2, peer_seconds=2, memory_requests=100_000)
QUICK = Effort(
    rounds=1, seconds=1, peer_rounds=1, peer_seconds=2, installs=False, concurrencies=(64,), memory_requests=5_000
)
BESIDE = "memory"
"""Of a whole run: other gateways are installed beside it where they are missing, for it measures no time."""
RESULTS = ROOT / "bench" / "results"
DOCUMENT = ROOT / "docs" / "benchmarks.md"


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write; the exit status."""
    given = parser().parse_args(arguments)
    console, errors = Console(width=None if sys.stdout.isatty() else 150), Console(stderr=True)
    effort = QUICK if given.quick else FULL
    if given.no_peers:
        effort = replace(effort, peer_rounds=0)
    results = RESULTS / "quick" if given.quick else RESULTS
    wanted: tuple[str, ...] = (given.experiment,)
    if given.experiment == "all":
        left_out = LEFT_OUT if given.quick else {"peers"} if given.no_peers else set()
        wanted = tuple(name for name in EXPERIMENTS if name not in left_out)
    command = " ".join(["python -m bench.run", *(arguments if arguments is not None else sys.argv[1:])])
    document = document_of(given)
    missed = failed = False
    fetched: Future[None] | None = None
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder, ThreadPoolExecutor(1) as aside:
        here = place(Path(folder))
        known = facts(here)
        for name in wanted:
            own = Path(folder) / name
            own.mkdir()
            if name == BESIDE and "peers" in wanted:
                fetched = aside.submit(fetch)
            elif fetched is not None:
                wait((fetched,))
            try:
                with telling(errors) as tell:
                    report = EXPERIMENTS[name](replace(here, folder=own), effort, tell)
            except (DidNotStart, RuntimeError, OSError, ValueError, ExceptionGroup) as error:
                errors.print(f"{name}: {error}", markup=False)
                failed = True
                continue
            when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
            show(report, console)
            path = save(report, results, known, command, when)
            console.print(f"  every window: {path.relative_to(ROOT)}\n", highlight=False)
            if document is not None:
                write(document, report, known, command, when)
            missed |= report.missed
    if document is not None:
        text = document.read_text("utf-8")
        targets = told(collected(results, EXPERIMENTS), lacking(results, EXPERIMENTS))
        document.write_text(replace_section(text, "targets", targets), "utf-8")
        if document == DOCUMENT:
            made(results, CHART)
    return 2 if failed else int(missed)


def document_of(given: argparse.Namespace) -> Path | None:
    """The document to write; None: leave it alone. Figures of a quick run replace full ones only where asked to."""
    if given.no_docs or (given.quick and given.docs is None):
        return None
    return Path(given.docs) if given.docs is not None else DOCUMENT


def write(document: Path, report: Report, known: dict[str, str], command: str, when: str) -> None:
    """Put the report's section into the document."""
    text = document.read_text("utf-8")
    document.write_text(replace_section(text, report.name, markdown(report, known, command, when)), "utf-8")


@contextlib.contextmanager
def telling(console: Console) -> Iterator[Tell]:
    """Progress: a line that changes on a terminal, lines in a pipe."""
    if not console.is_terminal:
        yield lambda text: console.print(text, markup=False, highlight=False)
        return
    with console.status("starting") as status:
        yield lambda text: status.update(escape(text))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    given = argparse.ArgumentParser(
        prog="python -m bench.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given.add_argument("experiment", choices=[*EXPERIMENTS, "all"])
    given.add_argument("--quick", action="store_true", help="short windows: whether it works, and roughly how well")
    given.add_argument(
        "--no-peers", action="store_true", help="leave other gateways out (they install 2 GB the first time)"
    )
    given.add_argument(
        "--docs", type=Path, help="document whose section is written anew (docs/benchmarks.md; none with --quick)"
    )
    given.add_argument("--no-docs", action="store_true", help="print and save, but leave the document alone")
    return given


if __name__ == "__main__":
    sys.exit(main())
