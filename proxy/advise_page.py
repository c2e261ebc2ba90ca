"""What `farthing compress advise` shows: plain values for a machine, tables for a person. Pure.

Prompts come from a file that anyone may have written: nothing in them reaches the terminal as markup or escapes.
"""

from __future__ import annotations

import difflib
from collections import Counter
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from farthing.proxy.advise import Advice, Overview
from farthing.proxy.advise_trial import Trial
from farthing.proxy.report import disarmed

__all__ = ["as_json", "overview_page", "part_page"]

_WORDS_SHOWN = 60
_BEGINNING = 30
_PARTS_SHOWN = 10
_CUTS_SHOWN = 12
_STYLES = {"recommended": "bold green", "worse": "bold red", "not evaluated": "yellow"}


def as_json(found: Overview, advices: list[Advice]) -> dict[str, Any]:
    """All of it as plain values, drafts in full; money in US dollars, rates as shares of 1."""
    return {
        "requests": found.requests,
        "skipped": found.skipped,
        "tokens_in": found.tokens_in,
        "tokens_tools": found.tokens_tools,
        "parts": [
            {
                "kind": part.kind,
                "model": model,
                "begins": _begins(part.text),
                "copies": len(part.places),
                **costs._asdict(),
            }
            for part, model, costs in found.parts
        ],
        "advice": [_advice(advice) for advice in advices],
    }


def overview_page(found: Overview) -> RenderableType:
    """What recurs, the most expensive first."""
    tools = f", {found.tokens_tools / found.tokens_in:.0%} of them tool definitions" if found.tokens_tools else ""
    skipped = f" ({found.skipped:,} other lines left out)" if found.skipped else ""
    table = _section(
        f"{found.requests:,} requests{skipped}, {found.tokens_in:,} input tokens{tools}",
        *("#", "tokens", "requests", "share", "$ fresh", "$ cached", "part", "begins"),
    )
    for column in table.columns[:6]:
        column.justify, column.no_wrap = "right", True
    for number, (part, _, costs) in enumerate(found.parts[:_PARTS_SHOWN], 1):
        table.add_row(
            str(number),
            f"{costs.tokens:,}",
            f"{costs.requests:,}",
            f"{costs.share:.1%}",
            _dollars(costs.usd_fresh),
            _dollars(costs.usd_cached),
            part.kind,
            Text(_begins(part.text, _BEGINNING)),
        )
    more = len(found.parts) - _PARTS_SHOWN
    notes = [f"… and {more:,} more parts that cost less"] if more > 0 else []
    notes.append(
        "$: input of 1,000 requests that carry it, where nothing and where all is read from the provider's cache, "
        "which may already make it cheap."
    )
    return Group(table, *(Text(note, "dim") for note in notes))


def part_page(number: int, advice: Advice, *, diff: bool) -> RenderableType:
    """One part's draft, what was cut and why, the trial and the verdict."""
    before, after = advice.costs.tokens, advice.tokens_after
    title = Text.assemble(
        (f"\n{number}. {advice.part.kind}", "bold"),
        f"  {before:,} → {after:,} tokens ({(after - before) / before:+.0%}), by {disarmed(advice.drafter)}",
    )
    parts: list[RenderableType] = [title]
    if advice.draft.gave_up:
        parts.append(Text(f"No draft by rules: {disarmed(advice.draft.gave_up)}.", "yellow"))
    if after < before:
        parts += [Padding(Text(_lines(advice.draft.text)), (1, 0, 1, 3))]
        parts += [_diff(advice)] if diff or not advice.draft.cuts else [_cuts(advice)]
    if advice.draft.flags:
        parts.append(_flags(advice))
    if advice.trial is not None:
        parts.append(_trial(advice.trial))
    parts.append(_money(advice))
    word = advice.verdict.partition(":")[0]
    parts.append(Text.assemble(("verdict  ", "dim"), (advice.verdict, _STYLES.get(word, "bold"))))
    return Group(*parts)


def _cuts(advice: Advice) -> RenderableType:
    cuts = advice.draft.cuts
    table = _section("what was cut, and why", "line", "rule", "before", "after", "why")
    for column in table.columns[2:4]:
        column.no_wrap = True
    for cut in cuts[:_CUTS_SHOWN]:
        line = str(cut.line) if cut.line else ""
        sides = (Text(_begins(side, _BEGINNING) or "–") for side in (cut.before, cut.after))
        table.add_row(line, cut.rule, *sides, Text(disarmed(cut.why)))
    if len(cuts) > _CUTS_SHOWN:
        rules = Counter(cut.rule for cut in cuts[_CUTS_SHOWN:])
        more = ", ".join(f"{count} {rule}" for rule, count in rules.items())
        return Group(table, Text(f"… and {more}; --diff shows all", "dim"))
    return table


def _flags(advice: Advice) -> RenderableType:
    table = _section("said nearly twice: look for yourself", "line", "like line", "text")
    for flag in advice.draft.flags[:_CUTS_SHOWN]:
        table.add_row(str(flag.line), str(flag.like_line), Text(_begins(flag.text)))
    return table


def _diff(advice: Advice) -> RenderableType:
    shown = Text()
    styles = {"-": "red", "+": "green", "@": "dim"}
    lines = difflib.unified_diff(
        advice.part.text.splitlines(), advice.draft.text.splitlines(), "now", "draft", n=1, lineterm=""
    )
    for line in list(lines)[2:]:
        shown.append(disarmed(line) + "\n", styles.get(line[:1]))
    for cut in advice.draft.cuts:
        if cut.rule != "blanks":
            shown.append(f"line {cut.line}: {cut.rule}, {disarmed(cut.why)}\n", "dim")
    return Padding(shown, (0, 0, 0, 3))


def _trial(trial: Trial) -> RenderableType:
    judged = trial.judged
    table = _section("the trial", "slice", "cases", "differ", "at most", "asked twice", "differ by noise", "")
    for one in judged.slices if len(judged.slices) > 1 else ():
        counts = (f"{one.cases:,}", f"{one.differ:,}", f"{one.upper:.1%}", f"{one.repeated:,}", f"{one.noisy:,}")
        table.add_row(Text(disarmed(one.name)), *counts, Text("surely worse" if one.worse else "", "red"))
    all_of_it = (f"{judged.cases:,}", f"{judged.differ:,}", f"{judged.differ_upper:.1%}")
    table.add_row("all", *all_of_it, f"{judged.repeated:,}", f"{judged.noisy:,}", "")
    for column in table.columns[1:6]:
        column.justify = "right"
    notes = []
    if judged.excess_upper is not None:
        notes.append(f"beyond its own noise it differs in at most {max(judged.excess_upper, 0):.1%}")
    if trial.excused:
        notes.append(
            f"{trial.excused:,} differing answers were found as good by the judge, whose own error isn't known"
        )
    if trial.failed:
        notes.append(f"{trial.failed:,} cases had no answer: {disarmed(trial.error)}")
    if trial.stopped:
        notes.append(f"ended early: {trial.stopped}")
    if trial.apart:
        lines = ", ".join(str(one.line) for one in sorted(trial.apart)[:_CUTS_SHOWN])
        more = "" if len(trial.apart) <= _CUTS_SHOWN else ", …"
        notes.append(f"answers differ for lines {lines}{more} of the file (both answers: --out, --json)")
    notes.append(f"{trial.available:,} different requests of the file can be asked")
    return Group(table, *(Text(f"   {note}", "dim") for note in notes))


def _money(advice: Advice) -> RenderableType:
    money = advice.money
    if money is None:
        return Text(f"No price is known for {disarmed(advice.model) or 'a model without a name'}.", "dim")
    if advice.tokens_after >= advice.costs.tokens:
        return Text("")
    said = f"saves {_dollars(money.fresh)} for 1,000 requests where nothing is cached"
    if money.cached != money.fresh:
        verb = "saves" if money.cached >= 0 else "COSTS"
        said += f"; {verb} {_dollars(abs(money.cached))} where the provider's cache holds all of it"
    if money.below_minimum:
        said += ", since the shorter prompt is below what the provider caches"
    if money.answers is not None:
        verb = "save" if money.answers >= 0 else "cost"
        said += f"; answers {verb} {_dollars(abs(money.answers))} by their length"
    if advice.trial_usd:
        said += f". Draft and trial cost {_dollars(advice.trial_usd)}"
        net = money.fresh + (money.answers or 0.0)
        said += f", paid back after {advice.trial_usd / net * 1000:,.0f} requests at best" if net > 0 else ""
    return Text(f"{said}.")


def _section(title: str, *columns: str) -> Table:
    table = Table(*columns, box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    table.title_style = "bold"
    return table


def _advice(advice: Advice) -> dict[str, Any]:
    trial = advice.trial
    return {
        "kind": advice.part.kind,
        "model": advice.model,
        "before": advice.part.text,
        "draft": advice.draft.text,
        "drafter": advice.drafter,
        "gave_up": advice.draft.gave_up or None,
        "tokens_before": advice.costs.tokens,
        "tokens_after": advice.tokens_after,
        "cuts": [cut._asdict() for cut in advice.draft.cuts],
        "nearly_twice": [flag._asdict() for flag in advice.draft.flags],
        "saved_usd_per_1000": None if advice.money is None else advice.money._asdict(),
        "verdict": advice.verdict,
        "trial": None if trial is None else _trial_json(trial),
        "trial_usd": advice.trial_usd,
    }


def _trial_json(trial: Trial) -> dict[str, Any]:
    judged = trial.judged
    return {
        "cases": judged.cases,
        "differ": judged.differ,
        "differ_upper": judged.differ_upper,
        "asked_twice": judged.repeated,
        "differ_by_noise": judged.noisy,
        "excess_upper": judged.excess_upper,
        "more_cases": judged.more_cases,
        "available": trial.available,
        "failed": trial.failed,
        "error": trial.error or None,
        "stopped": trial.stopped or None,
        "found_as_good_by_judge": trial.excused,
        "slices": [one._asdict() for one in judged.slices],
        "apart": [one._asdict() for one in trial.apart],
    }


def _dollars(amount: float | None) -> str:
    return "unknown" if amount is None else f"${amount:,.2f}" if amount >= 1 or not amount else f"${amount:,.4f}"


def _begins(text: str, most: int = _WORDS_SHOWN) -> str:
    flat = disarmed(" ".join(text.split()))
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def _lines(text: str) -> str:
    return "\n".join(disarmed(line.replace("\t", "    ")) for line in text.splitlines())
