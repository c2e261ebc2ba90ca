"""How much must be saved before rounding can't make it dearer? `python -m bench.money_curve`; --no-docs: print only.

OpenAI-style caches read in steps of 128 tokens, so a prompt that is a few tokens shorter may be read for a whole step
less. `pay` asks for a share of a step; this is what each share would save, and how many conversations it would make
dearer, on chats made from the train half's by shuffling their exchanges: many more than there are, and of all lengths.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

from rich.console import Console
from rich.progress import track

from bench.compress import DOCUMENT, RESULTS, ROOT, processor
from bench.compress_data import load
from bench.compress_money import COUNTED_FOR, LOSSLESS, price_models
from bench.money_methods import Forms, Ours, always, play, whole
from bench.money_world import Conversation, PriceModel, shuffled
from bench.report import Report, markdown, replace_section, save, show
from farthing.compress.later_turns import LaterTurns
from farthing.compress.pay import LEAST_STEPS
from farthing.compress.provider_cache import Kind
from farthing.proxy.tokens import Tokenizer

SHARES = tuple(Fraction(number, 6) for number in range(8))
CHATS = 1500
SEED = 11


def main(arguments: list[str]) -> int:
    """Run, print, write."""
    given = argparse.ArgumentParser(prog="python -m bench.money_curve", description=__doc__)
    given.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "compress")
    given.add_argument("--chats", type=int, default=CHATS)
    given.add_argument("--no-docs", action="store_true")
    asked = given.parse_args(arguments)
    tokenizer = Tokenizer(512 * 2**20)
    forms = Forms(lambda text: tokenizer.count(text, COUNTED_FOR))
    chats = list(
        shuffled([i for i in load(asked.data, ("long_chat_history",)) if i.part == "train"], asked.chats, SEED)
    )
    columns = ["price model", "least share of a step", "saved", "dearer", "worst"]
    report = Report("compress-money-curve", f"{len(chats):,} shuffled chats, tidy + recode", columns)
    models = [model for model in price_models() if model.cache.kind is Kind.AUTOMATIC]
    with asyncio.Runner() as runner:
        for model in models:
            report.rows += curve(model, chats, forms, runner)
    report.notes.append(f"The proxy asks for {LEAST_STEPS} of a step. 'always' doesn't ask whether it pays.")
    show(report, Console(width=None if sys.stdout.isatty() else 120))
    command, when = "python -m bench.money_curve", datetime.now(UTC).strftime("%Y-%m-%d")
    facts = {"machine": f"one core of {processor()}"}
    save(report, RESULTS, facts, command, when)
    if not asked.no_docs:
        text = DOCUMENT.read_text("utf-8")
        DOCUMENT.write_text(replace_section(text, report.name, markdown(report, facts, command, when)), "utf-8")
    return 0


def curve(model: PriceModel, chats: Sequence[Conversation], forms: Forms, runner: asyncio.Runner) -> list[list[str]]:
    """One row for each share."""
    bills = [play(one, model, whole, forms).pico for one in chats]
    rows = []
    for share in (None, *SHARES):
        later = LaterTurns()
        saved = []
        for one, bill in track(list(zip(chats, bills, strict=True)), f"{share}", console=Console(stderr=True)):
            method = (
                always(forms, LOSSLESS[0])
                if share is None
                else Ours(forms, LOSSLESS, model, later, one.group, runner, least_steps=share)
            )
            saved.append(bill - play(one, model, method, forms).pico)
        worst = min(won / bill for won, bill in zip(saved, bills, strict=True))
        label = "always" if share is None else str(share)
        dearer = sum(won < 0 for won in saved)
        rows.append([model.name, label, f"{sum(saved) / sum(bills):.2%}", str(dearer), f"{worst:.2%}"])
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
