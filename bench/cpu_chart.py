"""docs/benchmarks-cpu.png: processor time a request, by server, from what the last run left in bench/results.

`python -m bench.cpu_chart [--results FOLDER] [--out FILE]`; a full `bench.run all` makes it too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.servers import ROOT

__all__ = ["Bar", "bars", "draw"]

AT_ONCE = "64"
OUT = ROOT / "docs" / "benchmarks-cpu.png"


class Bar(NamedTuple):
    """A server's processor microseconds a request."""

    name: str
    us: float


def bars(reports: Mapping[str, Mapping[str, Any]], what: str) -> list[Bar]:
    """The bars of `what` ('miss' or 'hit') at 64 at a time, cheapest first, from reports by name.

    Where a server stands in its own report and in that of the peers, the former counts.
    """
    found: dict[str, float] = {}
    for name in ("peers", what):  # the later one counts
        report = reports.get(name)
        if report is None:
            continue
        at = {column: number for number, column in enumerate(report["columns"])}
        for row in report["rows"]:
            if row[at["c"]] == AT_ONCE and ("what" not in at or row[at["what"]] == what):
                found[row[at["path"]]] = float(row[at["CPU µs/request"]].replace(",", ""))
    return sorted((Bar(name, us) for name, us in found.items()), key=lambda bar: bar.us)


def draw(panels: Mapping[str, Sequence[Bar]], out: Path) -> None:
    """A panel for each, with bars on a logarithmic scale and their figures beside them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    heights = [max(1, len(each)) for each in panels.values()]
    figure, all_axes = pyplot.subplots(
        len(panels), 1, figsize=(9, 1.2 + 0.36 * sum(heights)), height_ratios=heights, squeeze=False, sharex=True
    )
    for axes, (title, each) in zip(all_axes[:, 0], panels.items(), strict=True):
        colours = ["#c2571a" if bar.name.startswith("farthing") else "#8f9bb0" for bar in each]
        drawn = axes.barh([bar.name for bar in each], [bar.us for bar in each], color=colours)
        axes.bar_label(drawn, labels=[f"{bar.us:,.0f}" for bar in each], padding=3, fontsize=8)
        axes.set_xscale("log")
        axes.invert_yaxis()
        axes.set_title(title, loc="left", fontsize=10)
        axes.tick_params(labelsize=8)
        axes.margins(x=0.12)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    all_axes[-1, 0].set_xlabel(f"processor time a request, µs (logarithmic), {AT_ONCE} at a time", fontsize=9)
    figure.tight_layout()
    figure.savefig(out, dpi=120, metadata={"Software": None})
    pyplot.close(figure)


def made(results: Path, out: Path) -> bool:
    """Draw what is there; False: there is nothing to draw."""
    reports = {
        name: json.loads(path.read_text("utf-8"))
        for name in ("miss", "hit", "peers")
        if (path := results / f"{name}.json").exists()
    }
    panels = {
        title: each for title, what in (("A miss", "miss"), ("An exact hit", "hit")) if (each := bars(reports, what))
    }
    if panels:
        draw(panels, out)
    return bool(panels)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 2: there are no results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    if not made(given.results, given.out):
        print("no results yet: python -m bench.run miss", file=sys.stderr)
        return 2
    print(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
