"""A comparison in words, tables and a page."""

from __future__ import annotations

import json
import re

import numpy as np
from rich.console import Console

from farthing.policies.compare import ArmResult, CaseResult, Comparison, compare
from farthing.proxy.eval_page import page
from farthing.proxy.eval_text import as_json, headline, terminal

HOSTILE = "<script>alert(1)</script>[red]\x1b[31m"


def found(count: int = 200, bad: int = 0, cost: int | None = 40) -> Comparison:
    results = [
        CaseResult(
            str(number),
            {"team": HOSTILE if number % 2 else "b"},
            1.0,
            ArmResult(200, 1.0, 100, 90.0, cache="bypass"),
            ArmResult(200, 0.0 if number < bad else 1.0, cost, 60.0, cache="miss"),
        )
        for number in range(count)
    ]
    return compare(results, np.random.default_rng(1))


def shown(comparison: Comparison) -> str:
    console = Console(width=120, record=True, file=None)
    with console.capture() as captured:
        console.print(terminal(comparison))
    return captured.get()


def test_the_verdict_is_a_sentence() -> None:
    assert headline(found(400)).startswith("Not worse than the baseline by 2.0% or more: 100.0% → 100.0%")
    assert "at 60% lower cost" in headline(found(400))
    assert headline(found(200, bad=60)).startswith("Worse than the baseline by more than 2.0%")
    assert re.match(r"Not decided: .* needs about \d+ cases", headline(found(30)))
    assert "cost" not in headline(found(400, cost=None))


def test_nothing_of_traffic_reaches_a_terminal_or_a_page_as_more_than_text() -> None:
    comparison = found(60, bad=10)
    told, document = shown(comparison), page(comparison, f"title {HOSTILE}").decode()
    assert "\x1b[31m" not in told and "[red]" in told
    assert "<script>" not in document and "&lt;script&gt;" in document
    assert "\x1b" not in document


def test_the_page_stands_alone_and_draws_every_slice() -> None:
    document = page(found(60, bad=10), "run").decode()
    assert "http" not in document.replace("http://www.w3.org", "") and document.count("<circle") == 3
    assert 'class="verdict' in document


def test_for_a_machine_it_is_json_without_infinities() -> None:
    told = json.loads(json.dumps(as_json(found(60, bad=3)), allow_nan=False))
    assert told["cases"] == 60 and told["verdict"] in ("worse", "inconclusive")
    assert told["cost"]["value"] == 0.4 and len(told["slices"]) == 2


def test_notes_say_what_must_be_known() -> None:
    told = shown(found(60, cost=None))
    assert "a price is unknown" in told
