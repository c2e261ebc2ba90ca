"""Does compression pay? `python -m bench.compress_money --part train|test [--quick]`.

Conversations turn by turn against simulated prompt caches of providers (bench.money_world), at real prices: what a
conversation's input costs as it is, and by each method (bench.money_methods). Exit status 0: every goal reached; 1: one
was missed; 2: the data isn't there.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import track

from bench.compress import DOCUMENT, RESULTS, ROOT, processor
from bench.compress_data import Item, load
from bench.money_methods import Forms, Ours, Played, always, oracle, play, whole
from bench.money_world import Conversation, PriceModel, grown, sessions, stable, with_clock
from bench.report import Report, Target, publish, show
from farthing.compress.later_turns import LaterTurns
from farthing.compress.provider_cache import NO_CACHE, provider_cache
from farthing.proxy.prices import RateCard
from farthing.proxy.tokens import Tokenizer

COUNTED_FOR = "gpt-4o"
SEEDS = (1, 2, 3)
DAY_S = 1_795_600_000.0  # prices of 2026-11-25
CHATS, CALLS, CLOCKS = "long chats", "single calls", "sessions with a clock"
SINGLE = ("json_tool_output", "logs_and_stacktraces", "markdown_html_page", "code_context")
LOSSLESS, LOSSY = ("recode", "tidy"), ("squeeze", "recode", "tidy")
OURS, OURS_LOSSY = "ours: tidy + recode", "ours: squeeze .5 too"
LOST, OLD_START = "the same, all decisions lost half-way", "the same, without fresh starts"
GOAL_SHARE = 0.8
_QUICK = 8


@dataclass(slots=True)
class Sums:
    """One method over the conversations of one group, under one price model. Money in pico-dollars."""

    conversations: int = 0
    whole: int = 0
    saved: int = 0
    best: int = 0
    dearer: int = 0
    worst: float = 0.0
    same: int = 0
    steps: int = 0

    def add(self, before: Played, after: Played, best: Played | None, first: int) -> None:
        """One conversation, as it is and by the method; `best`: the oracle; `first`: from this turn on we decide."""
        saved = before.pico - after.pico
        self.conversations += 1
        self.whole += before.pico
        self.saved += saved
        self.best += before.pico - best.pico if best else 0
        self.dearer += saved < 0
        self.worst = min(self.worst, saved / before.pico)
        same, steps = stable(after.requests, first)
        self.same += same
        self.steps += steps

    def __iadd__(self, other: Sums) -> Sums:
        """Both together."""
        for name in ("conversations", "whole", "saved", "best", "dearer", "same", "steps"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.worst = min(self.worst, other.worst)
        return self


Table = dict[tuple[str, str, str], Sums]  # by price model, group, method


def main(arguments: list[str]) -> int:
    """Run, print, write."""
    given = parser().parse_args(arguments)
    if not (given.data / "long_chat_history.jsonl").exists():
        print(f"{given.data} holds no compression data: give its folder with --data", file=sys.stderr)
        return 2
    console, errors = Console(width=None if sys.stdout.isatty() else 170), Console(stderr=True)
    items = [item for item in load(given.data, ("long_chat_history", *SINGLE)) if item.part == given.part]
    tokenizer = Tokenizer(512 * 2**20)
    forms = Forms(lambda text: tokenizer.count(text, COUNTED_FOR))
    table: Table = {}
    models = price_models()
    seeds = SEEDS[:1] if given.quick else SEEDS
    jobs = [(model, seed) for model in models for seed in seeds]
    with asyncio.Runner() as runner:
        for model, seed in track(jobs, "price models", console=errors):
            run(model, list(conversations(items, seed, given.quick)), forms, runner, table)
    report = reported(given.part, table, models)
    show(report, console)
    write(report, given)
    return int(report.missed)


def price_models() -> list[PriceModel]:
    """Those of the goals, then two more: reads at half the price, and marks that leave new turns uncached."""
    card = RateCard({})

    def rates(model: str) -> PriceModel:
        found = card.rates(model, DAY_S)
        if found is None:
            raise SystemExit(f"{model} has no price in this version of genai-prices")
        return PriceModel(model, found, provider_cache(model))

    small, half, claude = rates("gpt-5.1"), rates("gpt-4o"), rates("claude-sonnet-4-5")
    return [
        PriceModel("no cache", small.rates, NO_CACHE),
        PriceModel("OpenAI-style", small.rates, small.cache),
        PriceModel("Anthropic-style", claude.rates, claude.cache),
        PriceModel("OpenAI-style, reads at half", half.rates, half.cache),
        PriceModel("Anthropic-style, only the head marked", claude.rates, claude.cache, "head"),
    ]


def conversations(items: Sequence[Item], seed: int, quick: bool) -> Iterator[Conversation]:
    """All conversations of the data, with their pauses drawn by the seed."""
    chats = [item for item in items if item.slice == "long_chat_history"]
    calls = [item for item in items if item.slice in SINGLE]
    made = (
        [grown(item.id, CHATS, item.messages, seed) for item in chats],
        [grown(item.id, CALLS, item.messages, seed) for item in calls],
        list(sessions(calls, seed)),
        [with_clock(one, CLOCKS) for one in sessions(calls, seed)],
    )
    for group in made:
        yield from group[:_QUICK] if quick else group


def run(model: PriceModel, found: Sequence[Conversation], forms: Forms, runner: asyncio.Runner, table: Table) -> None:
    """Every conversation by every method."""
    later = {name: LaterTurns() for name in (OURS, OURS_LOSSY, LOST, OLD_START)}

    def ours(name: str, one: Conversation) -> Played:
        half = max(1, len(one.ends) // 2)
        ladder = LOSSY if name == OURS_LOSSY else LOSSLESS
        method = Ours(
            forms,
            ladder,
            model,
            later[name],
            one.group,
            runner,
            lose_after=half if name == LOST else 0,
            fresh_start=name != OLD_START,
        )
        return play(one, model, method, forms)

    for one in found:
        before = play(one, model, whole, forms)
        best, best_lossy = oracle(one, model, forms, LOSSLESS), oracle(one, model, forms, LOSSY)
        played: list[tuple[str, Played, Played | None]] = [
            ("tidy, always", play(one, model, always(forms, "tidy"), forms), None),
            ("tidy + recode, always", play(one, model, always(forms, "recode"), forms), best),
            (OURS, ours(OURS, one), best),
            (OLD_START, ours(OLD_START, one), best),
            (LOST, ours(LOST, one), best),
            (OURS_LOSSY, ours(OURS_LOSSY, one), best_lossy),
            ("squeeze .5 anew with each question", play(one, model, always(forms, "squeeze"), forms), best_lossy),
            ("oracle: tidy + recode", best, None),
            ("oracle: squeeze .5 too", best_lossy, None),
        ]
        for method, after, reference in played:
            table.setdefault((model.name, one.group, method), Sums()).add(
                before, after, reference, int(bool(one.heads))
            )


def reported(part: str, table: Table, models: Sequence[PriceModel]) -> Report:
    """All groups together for each method, and each group for ours."""
    columns = ["price model", "method", "conversations", "saved", "of the oracle's", "dearer", "worst", "same bytes"]
    report = Report(f"compress-money-{part}", f"Does compression pay? {part} half", columns)
    methods = list(dict.fromkeys(method for _, _, method in table))
    for model in models:
        first = True
        for method in methods:
            every = {group: sums for (_, group, _), sums in found_in(table, model.name, method)}
            together = Sums()
            for sums in every.values():
                together += sums
            rows = [(method, together)]
            if method in (OURS, OURS_LOSSY):
                rows += [(f"- {group}", sums) for group, sums in every.items()]
            if method == OLD_START:
                rows = [(f"- {CLOCKS}, without fresh starts", every[CLOCKS])]
            for label, sums in rows:
                report.rows.append([model.name if first else "", label, *cells(sums)])
                first = False
    for (name, group, method), sums in table.items():
        told = {field: getattr(sums, field) for field in Sums.__slots__}
        report.raw.append({"price model": name, "group": group, "method": method} | told)
    report.targets = goals(table, models[:3])
    report.notes = notes(part)
    return report


def found_in(table: Table, model: str, method: str) -> list[tuple[tuple[str, str, str], Sums]]:
    """The groups of one method under one price model."""
    return [(place, sums) for place, sums in table.items() if (place[0], place[2]) == (model, method)]


def cells(sums: Sums) -> list[str]:
    """One row's figures."""
    return [
        f"{sums.conversations:,}",
        f"{sums.saved / sums.whole:.2%}",
        f"{sums.saved / sums.best:.1%}" if sums.best else "-",
        str(sums.dearer),
        f"{sums.worst:.2%}",
        f"{sums.same}/{sums.steps}",
    ]


def goals(table: Table, models: Sequence[PriceModel]) -> list[Target]:
    """The issue's goals, for each of its price models."""
    found = []
    for model in models:
        for method in (OURS, OURS_LOSSY):
            groups = [sums for _, sums in found_in(table, model.name, method)]
            dearer, every = sum(sums.dearer for sums in groups), sum(sums.conversations for sums in groups)
            share = sum(sums.saved for sums in groups) / max(1, sum(sums.best for sums in groups))
            begun = [sums for (_, group, _), sums in found_in(table, model.name, method) if group != CLOCKS]
            same, steps = sum(sums.same for sums in begun), sum(sums.steps for sums in begun)
            what = f"{model.name}, {method}"
            found += [
                Target(f"{what}: conversations that got dearer", "0", f"{dearer} of {every}", dearer == 0),
                Target(f"{what}: share of the oracle's saving", ">= 80 %", f"{share:.1%}", share >= GOAL_SHARE),
                Target(f"{what}: steps with the same bytes", "100 %", f"{same}/{steps}", same == steps),
            ]
    return found


def notes(part: str) -> list[str]:
    """What a reader must know of these figures."""
    return [
        f"The {part} half by sha256 of the item's id. Long chats: as they grew. Single calls: a tool call and its "
        "result (JSON, logs, pages, code), two requests. Agent sessions: six of these in one conversation; with a "
        "clock: the time to the second in the system prompt, which leaves nothing to be read from a cache. Each three "
        "times, with other pauses: log-normal, median 4 s after a tool and 45 s after an answer, so that 4 % of the "
        "latter are longer than a cache's five minutes.",
        "Input only; what is answered costs the same. Prices: genai-prices for gpt-5.1 (no cache, OpenAI-style), "
        "claude-sonnet-4-5 and gpt-4o, 2026-11-25. All tokens are counted with o200k, Claude's too, whose tokenizer "
        "isn't public. Anthropic-style: marks behind the system prompt and the last turn, set after compression.",
        "saved: of the bill as it would have been; with the tokens' count known exactly. dearer, worst: conversations "
        "that cost more than untouched, and the worst of all. of the oracle's: share of the most that could have been "
        "saved with the same forms, all later turns known; above 729 combinations searched turn by turn. same bytes: "
        "steps at which all of the request before stood unchanged at the beginning of the next, the clock aside; "
        "the goal is about conversations that keep their beginning.",
        "ours: where not even tidying pays, a result stays as it came. 'always': without `pay`. 'anew with each "
        "question': decides about all results in each request, as some compressors do. Nothing in this table says what "
        "the squeezed texts still answer: see the other tables.",
    ]


def write(report: Report, given: argparse.Namespace) -> None:
    """As JSON, and into the document."""
    command = f"python -m bench.compress_money --part {given.part}" + (" --quick" if given.quick else "")
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    facts = {"machine": f"one core of {processor()}", "python": platform.python_version()}
    document = None if given.quick or given.no_docs else DOCUMENT
    publish(report, facts, command, when, RESULTS / "quick" if given.quick else RESULTS, document)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench.compress_money", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--part", choices=["train", "test"], required=True, help="the half of the items to run")
    made.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data" / "compress", help="the data's folder"
    )
    made.add_argument("--quick", action="store_true", help=f"{_QUICK} conversations a group, one seed; no document")
    made.add_argument("--no-docs", action="store_true", help="print and save, but leave the document alone")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
