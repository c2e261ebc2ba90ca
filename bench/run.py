"""The benchmarks of docs/benchmarks.md: `python -m bench.run miss|hit|stream|memory|all [--quick]`.

Needs wrk and nginx (Debian: `apt install wrk nginx`) and two cores, otherwise idle. A full run takes up to 20 minutes,
a quick one under two. Exit status 0: every target that was measured was reached; 1: one was missed; 2: it couldn't run.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bench.hot import Effort, Tell, hit, miss
from bench.machine import Place, facts, place
from bench.report import Report, markdown, replace_section, save, show
from bench.servers import ROOT, DidNotStart
from bench.streams import memory, stream

EXPERIMENTS = ("miss", "hit", "stream", "memory")
FULL = Effort(rounds=15, seconds=1, litellm_rounds=15, litellm_seconds=3)
QUICK = Effort(rounds=2, seconds=1, litellm_rounds=1, litellm_seconds=2, installs=False, concurrencies=(1, 64))
RESULTS = ROOT / "bench" / "results"
DOCUMENT = ROOT / "docs" / "benchmarks.md"


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write; the exit status."""
    given = parser().parse_args(arguments)
    console, errors = Console(width=None if sys.stdout.isatty() else 150), Console(stderr=True)
    effort = QUICK if given.quick else FULL
    if given.no_litellm:
        effort = replace(effort, litellm_rounds=0)
    wanted = EXPERIMENTS if given.experiment == "all" else (given.experiment,)
    command = " ".join(["python -m bench.run", *(arguments if arguments is not None else sys.argv[1:])])
    missed = False
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder:
        here = place(Path(folder))
        known = facts(here)
        for name in wanted:
            own = Path(folder) / name
            own.mkdir()
            try:
                with telling(errors) as tell:
                    report = measure(name, replace(here, folder=own), effort, given.quick, tell)
            except (DidNotStart, RuntimeError, OSError) as error:
                errors.print(f"{name}: {error}", markup=False)
                return 2
            when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
            show(report, console)
            path = save(report, RESULTS / "quick" if given.quick else RESULTS, known, command, when)
            console.print(f"  every window: {path.relative_to(ROOT)}\n", highlight=False)
            document = document_of(given)
            if document is not None:
                write(document, report, known, command, when)
            missed |= report.missed
    return 1 if missed else 0


def measure(name: str, here: Place, effort: Effort, quick: bool, tell: Tell) -> Report:
    """One experiment."""
    match name:
        case "miss":
            return miss(here, effort, tell)
        case "hit":
            return hit(here, effort, tell)
        case "stream":
            return stream(here, effort, tell)
        case _:
            return memory(here, 10_000 if quick else 100_000, tell)


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
    made = argparse.ArgumentParser(
        prog="python -m bench.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("experiment", choices=[*EXPERIMENTS, "all"])
    made.add_argument("--quick", action="store_true", help="short windows: whether it works, and roughly how well")
    made.add_argument("--no-litellm", action="store_true", help="leave LiteLLM out (it installs 700 MB the first time)")
    made.add_argument(
        "--docs", type=Path, help="document whose section is written anew (docs/benchmarks.md; none with --quick)"
    )
    made.add_argument("--no-docs", action="store_true", help="print and save, but leave the document alone")
    return made


if __name__ == "__main__":
    sys.exit(main())
