"""How much shorter, and what is lost: `python -m bench.compress --part train|test [--quick]`.

Every slice of the compression data through every method: tokens left for two tokenizers, items whose needed strings
all still stand, texts that decode to the equal value, processor time. Rules and thresholds are tuned on the train half
only; the test half is scored once. Exit status 0: every goal reached; 1: one was missed; 2: the data isn't there.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench.compress_data import SLICES, Item, Messages, kept, load, with_texts
from bench.compress_headroom import shortened
from bench.compress_methods import Method, methods, restored
from bench.peers import NotInstalled
from bench.report import Report, Target, publish, show
from farthing.proxy.tokens import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
DOCUMENT = ROOT / "docs" / "compression-figures.md"
MODELS = {"cl100k": "gpt-4", "o200k": "gpt-4o"}
HEADROOM = "Headroom 0.42"
_QUICK_ITEMS = 10
_WILSON_Z = 1.96

# Slice, goal for the tokens left (cl100k), in the words.
GOALS = (
    ("json_tool_output", 0.40, "tidy + recode: JSON at most .40 of the tokens"),
    ("tables_csv", 0.95, "tidy + recode: tables clearly under .95"),
    ("logs_and_stacktraces", 0.96, "tidy + recode: logs clearly under .96"),
)

# Slice, method, goals for the tokens left (cl100k) and for the share of items kept.
LOSSY = (
    ("markdown_html_page", "+ HTML reduced", 0.20, 0.99),
    ("logs_and_stacktraces", "squeeze .3", 0.40, 0.99),
    ("rag_multidoc_qa", "squeeze .4", 0.50, 0.97),
    ("near_duplicate_docs", "squeeze .3", 0.40, 1.0),
    ("long_chat_history", "squeeze .3", 0.60, 0.99),
)


@dataclass(slots=True)
class Cell:
    """One method on one slice. Times in seconds of one core; `claims`: texts said to decode to the equal value."""

    items: int = 0
    kept: int = 0
    before: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MODELS, 0))
    after: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MODELS, 0))
    claims: int = 0
    equal: int = 0
    cpu_s: float = 0.0
    counting_s: float = 0.0

    def left(self, encoding: str) -> float:
        """Tokens left of those before."""
        return self.after[encoding] / self.before[encoding]

    def ms_per_1k(self, *, counting: bool) -> float:
        """Milliseconds of processor time for 1,000 tokens of the prompt as it came."""
        seconds = self.cpu_s if counting else self.cpu_s - self.counting_s
        return 1e6 * seconds / self.before["cl100k"]


class Clocked:
    """A token counter without memory that adds up its own processor time."""

    def __init__(self, model: str) -> None:
        self._tokenizer = Tokenizer(cache_bytes=0)
        self._model = model
        self.spent_s = 0.0

    def __call__(self, text: str) -> int:
        before = time.process_time()
        count = self._tokenizer.count(text, self._model)
        self.spent_s += time.process_time() - before
        return count


def main(arguments: list[str]) -> int:
    """Run, print, write."""
    given = parser().parse_args(arguments)
    if not (given.data / f"{SLICES[0]}.jsonl").exists():
        print(f"{given.data} holds no compression data: give its folder with --data", file=sys.stderr)
        return 2
    console, errors = Console(width=None if sys.stdout.isatty() else 160), Console(stderr=True)
    slices = tuple(name for name in SLICES if given.slice in ("", name))
    items = [item for item in load(given.data, slices) if item.part == given.part]
    if given.quick:
        items = [item for name in slices for item in [one for one in items if one.slice == name][:_QUICK_ITEMS]]
    cells: dict[tuple[str, str], Cell] = {}
    tokenizer = Tokenizer(64 * 2**20)
    for method in methods():
        errors.print(method.name, highlight=False)
        run(method, items, tokenizer, cells)
    notes = told(given.part, given.quick)
    if not given.no_headroom:
        errors.print(HEADROOM, highlight=False)
        try:
            run_headroom(items, tokenizer, cells, install=not given.quick)
        except (NotInstalled, RuntimeError) as error:
            notes.append(f"{HEADROOM}: {error}.")
    report = reported(given.part, cells, notes)
    show(report, console)
    write(report, given)
    return int(report.missed)


def run(method: Method, items: Iterable[Item], tokenizer: Tokenizer, cells: dict[tuple[str, str], Cell]) -> None:
    """One method over all items; what it decides by is counted for cl100k, and once more for o200k."""
    count = {encoding: Clocked(model) for encoding, model in MODELS.items()}
    for item in items:
        cell = cells.setdefault((item.slice, method.name), Cell())
        counted = count["cl100k"].spent_s
        before = time.process_time()
        found = method(item, count["cl100k"])
        cell.cpu_s += time.process_time() - before
        cell.counting_s += count["cl100k"].spent_s - counted
        messages = with_texts(item, {place: short for place, (short, _) in found.items()})
        add(cell, item, messages, "cl100k", tokenizer)
        other = method(item, count["o200k"])
        changed = with_texts(item, {place: short for place, (short, _) in other.items()})
        add(cell, item, changed, "o200k", tokenizer)
        cell.items += 1
        cell.kept += kept(item, messages)
        if method.lossless:
            cell.claims += len(found)
            cell.equal += sum(
                restored(item.messages[place]["content"], short, rules) for place, (short, rules) in found.items()
            )


def run_headroom(items: list[Item], tokenizer: Tokenizer, cells: dict[tuple[str, str], Cell], *, install: bool) -> None:
    """Headroom over all items. Its time includes counting, and the first item's its start."""
    found = shortened([item.messages for item in items], install=install)
    for item, (messages, cpu_s) in zip(items, found, strict=True):
        cell = cells.setdefault((item.slice, HEADROOM), Cell())
        for encoding in MODELS:
            add(cell, item, messages, encoding, tokenizer)
        cell.items += 1
        cell.kept += kept(item, messages)
        cell.cpu_s += cpu_s


def add(cell: Cell, item: Item, messages: Messages, encoding: str, tokenizer: Tokenizer) -> None:
    """Count the whole request before and after: all messages, calls too."""
    for counts, which in ((cell.before, item.messages), (cell.after, messages)):
        counts[encoding] += tokenizer.count_request("chat", {"messages": which}, MODELS[encoding])


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share. Source: Wilson 1927."""
    if not trials:
        return 0.0, 1.0
    share, z2 = hits / trials, _WILSON_Z**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _WILSON_Z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def reported(part: str, cells: dict[tuple[str, str], Cell], notes: list[str]) -> Report:
    """The table, a row for each slice and method, and the goals."""
    columns = [
        "slice",
        "method",
        "items",
        "left cl100k",
        "left o200k",
        "kept",
        "95 %",
        "equal",
        "ms/1k",
        "with counting",
    ]
    report = Report(f"compress-{part}", f"Compression, {part} half", columns, notes=notes)
    last = ""
    for (name, method), cell in sorted(cells.items(), key=lambda entry: SLICES.index(entry[0][0])):
        low, high = wilson(cell.kept, cell.items)
        report.rows.append(
            [
                name if name != last else "",
                method,
                str(cell.items),
                f"{cell.left('cl100k'):.3f}",
                f"{cell.left('o200k'):.3f}",
                f"{cell.kept / cell.items:.3f}",
                f"{low:.2f}-{high:.2f}",
                f"{cell.equal}/{cell.claims}" if cell.claims else "-",
                "-" if method == HEADROOM else f"{cell.ms_per_1k(counting=False):.2f}",
                f"{cell.ms_per_1k(counting=True):.2f}",
            ]
        )
        last = name
        report.raw.append(
            {"slice": name, "method": method, "items": cell.items, "kept": cell.kept, "before": cell.before}
            | {"after": cell.after, "claims": cell.claims, "equal": cell.equal}
            | {"cpu_s": cell.cpu_s, "counting_s": cell.counting_s}
        )
    report.targets = goals(cells)
    return report


def goals(cells: dict[tuple[str, str], Cell]) -> list[Target]:
    """The goals, as far as their slices were run."""
    ours = {name: cell for (name, method), cell in cells.items() if method == "tidy + recode"}
    found = [
        Target(what, f"<= {goal:.2f}", f"{ours[name].left('cl100k'):.3f}", ours[name].left("cl100k") <= goal)
        for name, goal, what in GOALS
        if name in ours
    ]
    claims, equal = sum(cell.claims for cell in ours.values()), sum(cell.equal for cell in ours.values())
    found.append(Target("every changed text decodes to the equal value", "100 %", f"{equal}/{claims}", equal == claims))
    tokens = sum(cell.before["cl100k"] for cell in ours.values())
    cost = 1e7 * sum(cell.cpu_s - cell.counting_s for cell in ours.values()) / tokens
    worst = max(ours.items(), key=lambda entry: entry[1].ms_per_1k(counting=False))
    told = f"{cost:.1f}; most: {worst[0]} {10 * worst[1].ms_per_1k(counting=False):.1f}"
    found.append(Target("ms of one core for 10k tokens, all slices, without counting", "<= 5", told, cost <= 5))
    for name, method, most, least in LOSSY:
        cell = cells.get((name, method))
        if cell is not None:
            left, share = cell.left("cl100k"), cell.kept / cell.items
            what = f"{method.removeprefix('+ ')}: {name}, tokens left and items kept"
            reached = left <= most and share >= least
            found.append(Target(what, f"<= {most:.2f} at >= {least:.2f}", f"{left:.3f} at {share:.3f}", reached))
    return found


def told(part: str, quick: bool) -> list[str]:
    """What a reader must know of these figures."""
    return [
        f"The {part} half: sha256 of the item's id, {'even' if part == 'train' else 'odd'}."
        + (f" Only the first {_QUICK_ITEMS} items of a slice." if quick else ""),
        "Every message but the last user one and the assistant's counts as a tool result or retrieved content here. In "
        "production, user and system messages are touched only where the operator names them as such.",
        "left: tokens of the whole request after / before, summed over the slice; what decides counts with the same "
        "tokenizer. kept: items with every needed string; with Wilson's interval. equal: changed texts that the "
        "decoder gives back equal. ms: milliseconds of one core for 1,000 tokens as they came, encoding and checking.",
        f"few_shot_cot is one message that holds the question: nothing in it may be touched. {HEADROOM}: its library "
        "call with defaults, on the whole conversation, without optional models; what it takes out it keeps in a store "
        "of its own, which no string of this table counts.",
    ]


def write(report: Report, given: argparse.Namespace) -> None:
    """As JSON, and into the document."""
    command = f"python -m bench.compress --part {given.part}" + (" --quick" if given.quick else "")
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    facts = {"machine": f"one core of {processor()}", "python": platform.python_version()}
    document = None if given.quick or given.no_docs or given.slice else DOCUMENT
    publish(report, facts, command, when, given.results / "quick" if given.quick else given.results, document)


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench.compress", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--part", choices=["train", "test"], required=True, help="the half of the items to run")
    made.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data" / "compress", help="the data's folder"
    )
    made.add_argument("--results", type=Path, default=RESULTS, help="where every figure is written as JSON")
    made.add_argument("--slice", choices=SLICES, default="", help="one slice only; the document is left alone")
    made.add_argument("--quick", action="store_true", help=f"{_QUICK_ITEMS} items a slice; the document is left alone")
    made.add_argument("--no-headroom", action="store_true", help="leave Headroom out (500 MB the first time)")
    made.add_argument("--no-docs", action="store_true", help="print and save, but leave the document alone")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
