"""How far the built-in judges agree with the truth: on scripted pairs, on pairs that people rated, and a model's
verdicts on right and wrong answers.

    python -m bench.judge_agreement ../shared/data                     the judges that cost nothing
    python -m bench.judge_agreement ../shared/data --model 40          and SmolLM2-135M as a pairwise judge

Scripted pairs are the held-out half of bench.answers, at most --pairs of each kind and truth, drawn by seed. Rated
pairs are the questions of SemEval-2016's similarity task in semcache/qa.jsonl: of people's marks, 5 is the same and 3
or less is different. docs/evaluation-statistics.md says what each column means.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from bench.answers import Pair, all_pairs, sibling
from bench.comparators import Remembered
from bench.same_prompt import served
from farthing.cache.embedder import open_embedder
from farthing.policies.answer import Answer
from farthing.policies.judge_agreement import (
    PREFERENCE,
    QUALITY,
    LabelledCase,
    Verdict,
    agreement,
    word_of,
)
from farthing.policies.judges import JudgeCase
from farthing.policies.opinion import Embed
from farthing.proxy.judging import AnyJudge, Means, any_judge, http_sender, judged
from farthing.proxy.small_model import MODEL

# Which judges make sense of which kind of answer; the first of a kind is what docs recommend.
_MEANT: dict[str, tuple[dict[str, Any], ...]] = {
    "number": ({"judge": "number"}, {"judge": "agree"}, {"judge": "text"}, {"judge": "similar"}),
    "label": ({"judge": "text"}, {"judge": "labels"}, {"judge": "exact"}, {"judge": "agree"}),
    "span": ({"judge": "text"}, {"judge": "exact"}, {"judge": "agree"}, {"judge": "similar"}),
    "json": ({"judge": "json"}, {"judge": "exact"}),
    "calls": ({"judge": "agree"}, {"judge": "exact"}),
    "passage": ({"judge": "agree"}, {"judge": "similar"}, {"judge": "similar", "facts": False}, {"judge": "text"}),
    "turn": ({"judge": "agree"}, {"judge": "similar"}, {"judge": "similar", "facts": False}, {"judge": "text"}),
    "question": ({"judge": "agree"}, {"judge": "similar"}, {"judge": "similar", "facts": False}, {"judge": "text"}),
}
_WORKED = re.compile(r"Question: (.*?)\nLet's think step by step\.\n(.*?\n####[^\n]+)", re.S)


def scripted(data: Path, chance: Random, most: int, half: str) -> dict[str, list[LabelledCase]]:
    """By kind, pairs of one half, at most `most` of each truth."""
    found: dict[tuple[str, bool], list[Pair]] = defaultdict(list)
    for pair in all_pairs(data, Random(1)):
        if pair.kind in _MEANT and pair.held_out == (half == "held-out"):
            found[pair.kind, pair.same].append(pair)
    cases: dict[str, list[LabelledCase]] = defaultdict(list)
    for (kind, same), pairs in sorted(found.items()):
        for pair in chance.sample(pairs, min(most, len(pairs))):
            cases[kind].append(LabelledCase(JudgeCase({}, pair.b, pair.a), "good" if same else "bad", pair.trial))
    return cases


def rated(data: Path) -> list[LabelledCase]:
    """The pairs that people rated."""
    by: dict[str, list[str]] = defaultdict(list)
    for line in (data / "semcache" / "qa.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["slice"] == "qa.sts_qq":
            by[row["class"]].append(row["messages"][-1]["content"])
    cases = []
    for known, texts in by.items():
        for label, others in (("good", texts[1:]), ("bad", by.get(f"{known}b", [])[:1])):
            cases += [LabelledCase(JudgeCase({}, Answer(other), Answer(texts[0])), label, known) for other in others]
    return cases


def preferences(data: Path, chance: Random, count: int) -> list[LabelledCase]:
    """Worked answers against the same with another result, each way round, and against the same in other words: as
    many of each as fit in `count`."""
    text = (data / "compress" / "few_shot_cot.jsonl").read_text("utf-8")
    messages = [message["content"] for line in text.splitlines() for message in json.loads(line)["messages"]]
    asked = {worked: question for told in messages for question, worked in _WORKED.findall(told)}
    wanted = {"another result": ("better", "worse"), "steps first": ("tie",)}
    made: dict[str, list[LabelledCase]] = defaultdict(list)
    for pair in all_pairs(data, Random(1)):
        if pair.edit not in wanted or pair.kind != "number" or pair.source not in asked:
            continue
        request = {"messages": [{"role": "user", "content": asked[pair.source]}]}
        label = chance.choice(wanted[pair.edit])
        answer, reference = (pair.b, pair.a) if label == "worse" else (pair.a, pair.b)
        made[label].append(LabelledCase(JudgeCase(request, answer, reference), label, pair.source))
    found = [one for label in PREFERENCE for one in chance.sample(made[label], count // len(PREFERENCE))]
    chance.shuffle(found)
    return found


async def measured(
    judge: AnyJudge, cases: Sequence[LabelledCase], words: Sequence[str], means: Means, seconds: float = math.inf
) -> tuple[list[Verdict], Counter[str]]:
    """The judge's verdicts, and how often it gave which reason for saying nothing. `seconds`: then no more is asked."""
    verdicts, reasons, began = [], Counter[str](), time.monotonic()
    for case, label, group in cases:
        if time.monotonic() - began > seconds:
            break
        score = await judged(judge, case, means)
        verdicts.append(Verdict(label, word_of(score, words), group))
        if score.value is None:
            reasons[score.reason] += 1
    return verdicts, reasons


def row(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """The cells of a table's row."""
    found = agreement(verdicts)
    yield str(found.cases)
    yield str(found.groups)
    yield str(found.unsaid)
    for one in (found.agreed, found.kappa):
        yield f"{one.value:.3f} ({one.low:.2f} to {one.high:.2f})"
    yield "  ".join(f"{word} {one.value:.3f} ({one.low:.2f} to {one.high:.2f})" for word, one in found.found.items())


def table_of(title: str) -> Table:
    """An empty one."""
    table = Table("kind", "judge", title=title, title_justify="left")
    for name in ("cases", "groups", "says nothing", "agrees (95 %)", "kappa (95 %)"):
        table.add_column(name, justify="right")
    table.add_column("of each truth, found (95 %)")
    return table


def _name(declared: dict[str, Any]) -> str:
    more = ", ".join(f"{key} {value}" for key, value in declared.items() if key != "judge")
    return f"{declared['judge']} ({more})" if more else declared["judge"]


async def free(given: argparse.Namespace, embed: Embed, console: Console) -> None:
    """The judges that cost nothing."""
    table = table_of(f"Scripted pairs, {given.half} half, at most {given.pairs} of each kind and truth")
    data, chance = sibling(given.data), Random(given.seed)
    sets = {**scripted(data, chance, given.pairs, given.half), "rated by people": rated(data)}
    for kind, cases in sets.items():
        for declared in _MEANT.get(kind, _MEANT["question"]):
            verdicts, _ = await measured(any_judge(declared, embed), cases, QUALITY, Means())
            table.add_row(kind, _name(declared), *row(verdicts))
    console.print(table)


async def small_model(given: argparse.Namespace, console: Console) -> None:
    """The real small model as a pairwise judge."""
    cases = preferences(sibling(given.data), Random(given.seed), given.model)
    with served() as url:
        async with httpx.AsyncClient(base_url=f"{url}/v1/", timeout=300) as client:
            judge = any_judge({"judge": "pairwise", "model": MODEL})
            verdicts, reasons = await measured(judge, cases, PREFERENCE, Means(http_sender(client)), given.seconds)
    table = table_of(f"{MODEL} on worked answers, right and with another result")
    table.add_row("number", "pairwise", *row(verdicts))
    console.print(table)
    console.print({"says nothing": dict(reasons), "verdicts": dict(agreement(verdicts).matrix)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--half", choices=("held-out", "choosing"), default="held-out")
    parser.add_argument("--model", type=int, default=0, metavar="N", help="only the model, on N pairs")
    parser.add_argument("--seconds", type=float, default=math.inf, help="ask the model no longer than this")
    given = parser.parse_args()
    console = Console(width=200)
    if given.model:
        asyncio.run(small_model(given, console))
        return
    embed = Remembered(open_embedder("minilm-int8"))
    asyncio.run(free(given, embed, console))


if __name__ == "__main__":
    main()
