"""`python -m tests.chaos.page`: writes what was measured last (docs/reliability.json) into docs/reliability.md.

What stands between `<!-- NAME -->` and `<!-- /NAME -->` is replaced; all else is left as it is.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bench.provenance import measured_by
from tests.chaos.measured import shown_s

__all__ = ["LINES", "SOAK", "filled"]

DOCS = Path(__file__).parents[2] / "docs"
PAGE, LINES, SOAK = DOCS / "reliability.md", DOCS / "reliability.json", DOCS / "reliability-soak.json"
_SHOWN = 8
_LATENCIES = ("calm_ms", "fault_ms")
_HEADS = (
    *("fault", "promise", "requests", "failed", "wrong", "asked again", "rows lost (in window)", "recovery, s"),
    *("before: p50, p99 ms", "during: p50, p99 ms"),
)


def faults_table(lines: list[dict[str, Any]]) -> str:
    """A row for each fault, and below it with what it was measured."""
    rows = ["| " + " | ".join(_HEADS) + " |", "|" + "---|" * len(_HEADS)]
    for line in lines:
        cells = [line["fault"], line["promise"]]
        cells += [f"{line['requests']:,}", _failed(line), *(f"{line[name]:,}" for name in ("wrong", "again"))]
        cells += [f"{line['lost_rows']} ({line['in_window']})", shown_s(line["recovery_s"])]
        cells += [", ".join(f"{ms:.0f}" for ms in line[name]) if any(line[name]) else "–" for name in _LATENCIES]
        rows.append("| " + " | ".join(cells) + " |")
    found = [f"{line['fault']}: {claim}" for line in lines for claim in line["broken"]]
    rows += ["", "Claims that did not hold: " + ("; ".join(found) or "none") + ".", "", measured_by(lines)]
    return "\n".join(rows)


def _failed(line: dict[str, Any]) -> str:
    """How many failed, and beside it how many were refused as it is promised."""
    refused = line["notes"].get("refused", 0)
    return f"{line['failed']:,}" + (f" ({refused:,} refused)" if refused else "")


def soak_table(told: dict[str, Any]) -> str:
    """Some of the samples, and the verdict."""
    samples = told["samples"]
    shown = sorted({round(at * (len(samples) - 1) / (_SHOWN - 1)) for at in range(_SHOWN)})
    rows = ["| after requests | memory, MiB | descriptors | p50, ms | p99, ms |", "|---|---|---|---|---|"]
    for sample in (samples[at] for at in shown):
        cells = (
            f"{sample['requests']:,}",
            sample["rss_mib"],
            sample["descriptors"],
            sample["p50_ms"],
            sample["p99_ms"],
        )
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    counts = f"{told['requests']:,} requests, {told['failed']} failed, {told['wrong']} wrong, {told['rows']:,} rows."
    claims = f"Claims that did not hold: {'; '.join(told['broken']) or 'none'}."
    return "\n".join([*rows, "", f"{counts} {claims}", "", measured_by([told])])


def filled(page: str, name: str, text: str) -> str:
    """The page with this text at its place. Raises ValueError: it has no such place."""
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    page, count = place.subn(lambda found: f"{found[1]}{text}\n{found[2]}", page)
    if count != 1:
        raise ValueError(f"the page has no place for {name}")
    return page


def main() -> None:
    """Write the page anew from what there is."""
    page = PAGE.read_text("utf-8")
    if LINES.exists():
        page = filled(page, "faults", faults_table(json.loads(LINES.read_text("utf-8"))))
    if SOAK.exists():
        page = filled(page, "soak", soak_table(json.loads(SOAK.read_text("utf-8"))))
    PAGE.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
