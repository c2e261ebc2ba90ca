"""How often the comparators err: false 'same' and false 'different', with upper bounds, on pairs of known truth.

Rates are of the held-out half of the sources (bench.answers): thresholds were chosen on the other one. A comparator's
false-same rate: of the pairs that truly differ and that it judged, the share that it called Same; false-different the
other way round. Upper bounds: one-sided 95 %, Clopper and Pearson (1934). Pairs of one source are alike, so the bounds
count trials (a source, or two that meet), and one is wrong if any of its pairs is. docs/comparators.md says what such
pairs can't show.

    python -m bench.comparators ../shared/data --write
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import beta

from bench.answers import Pair, all_pairs, sibling
from farthing.cache.embedder import Embedder, open_embedder
from farthing.policies.agree import agree
from farthing.policies.opinion import Agreement, Opinion

TABLE = Path(__file__).parent.parent / "policies" / "agree_measured.py"
CONFIDENCE = 0.95
# Wrong Sames of the held-out half when it was first scored ('opt in' for 'opt out', 'members' for 'non-members'): rules
# against them came after, so that the half is no longer blind to them, and they go on counting.
SEEN_BEFORE = {"prose": 3}


def upper(errors: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided Clopper-Pearson upper bound of a rate; 1 for no trials."""
    if trials <= errors:
        return 1.0
    return float(beta.ppf(confidence, errors + 1, trials - errors))


class Remembered:
    """Embeds each text once: most sentences stand in many pairs."""

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner
        self._known: dict[str, NDArray[np.float32]] = {}

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        for text in texts:
            if text not in self._known:
                self._known[text] = self._inner.embed([text])[0]
        return np.stack([self._known[text] for text in texts])


def judged(pairs: Sequence[Pair], embed: Remembered) -> list[tuple[Pair, Opinion]]:
    """Every pair with the chain's opinion."""
    return [(pair, agree(pair.a, pair.b, embed)) for pair in pairs]


def by_comparator(found: Sequence[tuple[Pair, Opinion]]) -> dict[str, dict[str, Any]]:
    """Counts and bounds for each comparator."""
    by: dict[str, list[tuple[Pair, Agreement]]] = defaultdict(list)
    for pair, opinion in found:
        by[opinion.by].append((pair, opinion.agreement))
    return {name: _rates(by[name], SEEN_BEFORE.get(name, 0)) for name in sorted(by)}


def _rates(found: Sequence[tuple[Pair, Agreement]], seen_before: int) -> dict[str, Any]:
    rates: dict[str, Any] = {}
    for same, error, name, trials, more in (
        (False, Agreement.SAME, "false_same", "differing", seen_before),
        (True, Agreement.DIFFERENT, "false_different", "alike", 0),
    ):
        asked = [(pair.trial, said is error) for pair, said in found if pair.same is same]
        made, wrong = {trial for trial, _ in asked}, {trial for trial, erred in asked if erred}
        rates |= {trials: len(asked), name: sum(erred for _, erred in asked) + more, f"{trials}_trials": len(made)}
        rates[f"{name}_upper"] = round(upper(len(wrong) + more, len(made)), 4)
    return rates | {"unsure": sum(said is Agreement.UNSURE for _, said in found)}


def written(rates: dict[str, dict[str, Any]], command: str) -> str:
    """The text of policies/agree_measured.py."""
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    fields = ("differing", "differing_trials", "false_same", "false_same_upper",
              "alike", "alike_trials", "false_different", "false_different_upper")  # fmt: skip
    rows = "".join(
        f'    "{name}": Measured({", ".join(str(r[one]) for one in fields)}),\n' for name, r in rates.items()
    )
    text = TABLE.read_text("utf-8")
    head, _, rest = text.partition("MEASURED: ")
    _, _, tail = rest.partition("}\n")
    head = head[: head.index("\nMADE_ON = ")] + f'\nMADE_ON = "{day}"\nMADE_BY = "{command}"\n'
    return f"{head}MEASURED: dict[str, Measured] = {{\n{rows}}}\n{tail}"


def show(found: Sequence[tuple[Pair, Opinion]], rates: dict[str, dict[str, Any]], console: Console) -> None:
    """Two tables: by comparator, and by kind of pair and edit."""
    table = Table("comparator", title="Held-out pairs, by comparator", title_justify="left")
    for name in ("differ", "trials", "false same", "≤", "alike", "trials", "false diff.", "≤", "unsure"):
        table.add_column(name, justify="right")
    for name, r in rates.items():
        wrong = (r["differing"], r["differing_trials"], r["false_same"], f"{r['false_same_upper']:.4f}")
        lost = (r["alike"], r["alike_trials"], r["false_different"], f"{r['false_different_upper']:.4f}")
        cells = (*wrong, *lost, r["unsure"])
        table.add_row(name, *map(str, cells))
    console.print(table)
    table = Table("kind", "edit", "truth", title="By what was done to the answer", title_justify="left")
    for name in ("pairs", "same", "different", "unsure"):
        table.add_column(name, justify="right")
    count: dict[tuple[str, str, bool], Counter[Agreement]] = defaultdict(Counter)
    for pair, opinion in found:
        count[pair.kind, pair.edit, pair.same][opinion.agreement] += 1
    for (kind, edit, same), row in count.items():
        cells = (row.total(), row[Agreement.SAME], row[Agreement.DIFFERENT], row[Agreement.UNSURE])
        table.add_row(kind, edit, "same" if same else "different", *map(str, cells))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--half", choices=("held-out", "choosing"), default="held-out")
    parser.add_argument("--write", action="store_true", help="write policies/agree_measured.py")
    parser.add_argument("--json", type=Path, help="write the rates here too")
    given = parser.parse_args()
    pairs = [pair for pair in all_pairs(sibling(given.data), Random(given.seed))
             if pair.held_out == (given.half == "held-out")]  # fmt: skip
    began = time.perf_counter()
    found = judged(pairs, Remembered(open_embedder("minilm-int8")))
    rates = by_comparator(found)
    console = Console()
    show(found, rates, console)
    console.print(f"{len(pairs)} pairs, {1000 * (time.perf_counter() - began) / len(pairs):.1f} ms each")
    if given.json:
        given.json.write_text(json.dumps(rates, indent=1) + "\n", "utf-8")
    if given.write and given.half == "held-out":
        TABLE.write_text(written(rates, "python -m bench.comparators ../shared/data --write"), "utf-8")


if __name__ == "__main__":
    main()
