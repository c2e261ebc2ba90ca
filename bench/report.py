"""What a run says, in three forms: a table on the terminal, JSON for machines, a section of docs/benchmarks.md."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["Report", "Target", "markdown", "publish", "replace_section", "save", "show", "table"]


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that must be reached. `passed` None: it couldn't be measured, and `measured` says why.

    `baseline`: what it was measured against, in the same run; empty: nothing, the goal is absolute.
    """

    what: str
    goal: str
    measured: str
    passed: bool | None
    baseline: str = ""

    @property
    def verdict(self) -> str:
        """One word."""
        return {True: "reached", False: "MISSED", None: "not measured"}[self.passed]


@dataclass(slots=True)
class Report:
    """One experiment's outcome. `rows` are texts, aligned with `columns`; `raw`: what they were made from."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: list[dict[str, Any]] = field(default_factory=list)

    @property
    def missed(self) -> bool:
        """Whether a target that was measured was missed."""
        return any(target.passed is False for target in self.targets)


def show(report: Report, console: Console) -> None:
    """Print the figures, then the targets."""
    figures = Table(title=report.title, title_justify="left", title_style="bold")
    for number, column in enumerate(report.columns):
        figures.add_column(escape(column), justify="right" if number else "left")
    for row in report.rows:
        figures.add_row(*(escape(cell) for cell in row))
    console.print(figures)
    goals = Table("target", "goal", "measured", "baseline", "verdict", title_justify="left")
    for target in report.targets:
        style = {True: "green", False: "bold red", None: "yellow"}[target.passed]
        cells = [escape(cell) for cell in (target.what, target.goal, target.measured, target.baseline)]
        goals.add_row(*cells, f"[{style}]{target.verdict}[/{style}]")
    if report.targets:
        console.print(goals)
    for note in report.notes:
        console.print(f"  {escape(note)}", highlight=False)


def save(report: Report, folder: Path, facts: dict[str, str], command: str, when: str) -> Path:
    """Write the report with every single window as JSON; the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.name}.json"
    told = {
        "experiment": report.name,
        "when": when,
        "command": command,
        "machine": facts,
        "columns": report.columns,
        "rows": report.rows,
        "targets": [asdict(target) for target in report.targets],
        "notes": report.notes,
        "windows": report.raw,
    }
    path.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    return path


def markdown(report: Report, facts: dict[str, str], command: str, when: str) -> str:
    """The section of docs/benchmarks.md: figures, targets, and how they came about."""
    lines = [f"`{command}`, {when}. " + "; ".join(f"{name}: {value}" for name, value in facts.items()) + ".", ""]
    lines += table(report.columns, report.rows)
    if report.targets:
        lines += [""]
        lines += table(
            ["target", "goal", "measured", "baseline", "verdict"],
            [[t.what, t.goal, t.measured, t.baseline, t.verdict] for t in report.targets],
        )
    lines += ["", *(f"- {note}" for note in report.notes)] if report.notes else []
    return "\n".join(lines)


def table(columns: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table that reads as a table in its source too."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [columns, *rows]]
    widths = [max(3, *(len(row[number]) for row in cells)) for number in range(len(columns))]
    lines = [
        "| "
        + " | ".join(cell.rjust(w) if n else cell.ljust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True)))
        + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (w + 1) + ":" if n else "-" * (w + 2) for n, w in enumerate(widths)) + "|"
    return [lines[0], rule, *lines[1:]]


def replace_section(document: str, name: str, text: str) -> str:
    """The document with what stands between the marks of `name` replaced. Raises ValueError: the marks aren't there."""
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the marks {begin} and {end} are not in the document")
    return f"{before}{begin}\n{text}\n{end}{after}"


def publish(
    report: Report, facts: dict[str, str], command: str, when: str, results: Path, document: Path | None
) -> None:
    """Every figure as JSON into the folder `results`, and the table into its section of `document`, unless None."""
    save(report, results, facts, command, when)
    if document is not None:
        text = document.read_text("utf-8")
        document.write_text(replace_section(text, report.name, markdown(report, facts, command, when)), "utf-8")
