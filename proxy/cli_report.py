"""`farthing report`: what was spent and saved, and what it was worth. Thin."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import typer
from rich.console import Console

from farthing.proxy.clock import SystemClock
from farthing.proxy.errors import ConfigFault
from farthing.proxy.report import form_of, render, report_on

__all__ = ["Wanted", "report"]


class Wanted(NamedTuple):
    """What is asked for, as the command line has it. `by`: groups with commas; `runs`: files of `farthing eval run`."""

    since: str
    by: str
    form: str
    output: Path | None
    monthly: bool
    ways: str
    runs: tuple[Path, ...]


def report(state_dir: Path, wanted: Wanted, console: Console) -> None:
    """Print it, or write it where `output` says. Exits with 3 where there is no ledger yet. Raises ConfigFault."""
    path, output = state_dir / "ledger.db", wanted.output
    if not path.exists():
        Console(stderr=True).print(f"there is no ledger at {path} yet: run `farthing serve` and send it a request")
        raise typer.Exit(3)
    form = form_of(wanted.form, output)
    groups = tuple(part.strip() for part in wanted.by.split(",") if part.strip())
    found = report_on(path, wanted.since, groups, SystemClock(), wanted.ways, wanted.runs)
    if output is not None:
        try:
            # As it is: csv's lines end in CRLF on every system.
            output.write_text(render(found, form, monthly=wanted.monthly), "utf-8", newline="")
        except OSError as error:
            raise ConfigFault(f"can't write {output}: {error}") from None
        Console(stderr=True).print(f"written to {output}", markup=False, highlight=False)
    elif form == "table":
        from farthing.proxy.report_table import table

        console.print(table(found, console.width))
    else:
        typer.echo(render(found, form, monthly=wanted.monthly), nl=False)
