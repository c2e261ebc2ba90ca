"""A gate's verdict: a table for a person, JSON and JUnit for machines. No IO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from farthing.policies.compare import Comparison
from farthing.policies.gate import Gate, RuleVerdict, Word
from farthing.proxy import eval_text
from farthing.proxy.report import disarmed

__all__ = ["as_json", "junit", "terminal"]

_MARKS = {"ship": ("✓ ship", "bold green"), "block": ("✗ block", "bold red"), "inconclusive": ("? open", "bold yellow")}


def terminal(gate: Gate, word: Word, verdicts: Sequence[RuleVerdict], whole: Comparison) -> RenderableType:
    """The verdict, each rule, and what it rests on."""
    mark, style = _MARKS[word]
    table = Table("", "rule", "found", "cases needed", box=None, pad_edge=False, header_style="dim")
    table.columns[3].justify = "right"
    for one in verdicts:
        sign, colour = _MARKS[one.word]
        table.add_row(Text(sign, style=colour), Text(disarmed(one.rule.name)), Text(disarmed(one.why)), needed(one))
    return Group(
        Text(f"{mark}: {disarmed(gate.name)}", style=style), Text(), table, Text(), eval_text.terminal(whole)
    )  # fmt: skip


def needed(one: RuleVerdict) -> str:
    """How many cases would decide it."""
    if one.needed == 0:
        return ""
    return "more won't help" if one.needed is None else f"about {one.needed:,}"


def as_json(gate: Gate, word: Word, verdicts: Sequence[RuleVerdict], whole: Comparison) -> dict[str, Any]:
    """As plain values."""
    return {
        "gate": gate.name,
        "verdict": word,
        "rules": [
            {"rule": one.rule.name, "kind": one.rule.kind, "verdict": one.word, "found": one.why, "needed": one.needed}
            for one in verdicts
        ],
        "comparison": eval_text.as_json(whole),
    }


def junit(gate: Gate, verdicts: Sequence[RuleVerdict]) -> str:
    """JUnit XML as CI systems read it: a blocked rule is a failure, an undecided one an error."""
    failures = sum(one.word == "block" for one in verdicts)
    errors = sum(one.word == "inconclusive" for one in verdicts)
    name = quoteattr(_plain(gate.name))
    counts = f'tests="{len(verdicts)}" failures="{failures}" errors="{errors}"'
    cases = "".join(map(_case, verdicts))
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites {counts}>'
        f"<testsuite name={name} {counts}>{cases}</testsuite></testsuites>\n"
    )


def _case(one: RuleVerdict) -> str:
    head = f'<testcase classname="farthing.gate" name={quoteattr(_plain(one.rule.name))}'
    if one.word == "ship":
        return f"{head}><system-out>{escape(_plain(one.why))}</system-out></testcase>"
    kind = "failure" if one.word == "block" else "error"
    lacking = f"; {needed(one)} cases needed" if one.word == "inconclusive" and one.needed else ""
    return f"{head}><{kind} message={quoteattr(_plain(one.why + lacking))}/></testcase>"


def _plain(text: str) -> str:
    """Without what XML 1.0 can't hold."""
    return "".join(char for char in text if char >= " " or char in "\t\n")
