"""Curves of hit rate against wrong hits, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from bench.hit_figures import Results

__all__ = ["draw"]

_LOOKS = {
    "cosine": ("#9a9a9a", "o", "-", "cosine threshold 0.80–0.99"),
    "score": ("#e0a030", "^", ":", "verifier's score, fixed threshold"),
    "vcache": ("#3b6fb6", "s", "--", "vCache, δ 0.5–5 %"),
    "ours": ("#b5342b", "D", "-", "farthing, bound 0.5–5 %"),
}
_MOST = 10.0
_COLUMNS = 4


def draw(results: Results, possible: Mapping[str, float], path: Path) -> None:
    """One panel for each traffic: wrong hits in percent of hits, up to 10, against hits in percent of requests."""
    names = list(results)
    rows = -(-len(names) // _COLUMNS)
    figure, axes = plt.subplots(rows, _COLUMNS, figsize=(14, 3.0 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for name, axis in zip(names, axes.flat, strict=False):
        for family, (color, mark, line, _) in _LOOKS.items():
            points = [
                (100 * sum(sums.wrong) / sum(sums.hits), 100 * sums.hit_rate)
                for method, sums in results[name].values()
                if method.family == family and sum(sums.hits)
            ]
            inside = [point for point in points if point[0] <= _MOST]  # in the order of their settings
            if inside:
                axis.plot(*zip(*inside, strict=True), color=color, marker=mark, linestyle=line, markersize=4.5,
                          linewidth=1.2, clip_on=False, zorder=3)  # fmt: skip
        axis.axvspan(0, 1, color="#e8f3e8", zorder=0)
        axis.set_title(f"{name} (possible {possible[name]:.0%})", fontsize=10, loc="left")
        axis.set_xlim(0, _MOST)
        axis.set_ylim(0, max(5.0, axis.get_ylim()[1] * 1.05))
        axis.grid(color="#e4e4e4", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    figure.supxlabel("wrong hits, % of hits (beyond 10 % is cut off; up to 1 % is shaded)", fontsize=10)
    figure.supylabel("hits, % of requests", fontsize=10)
    looks = [
        Line2D([], [], color=color, marker=mark, linestyle=line, label=label)
        for color, mark, line, label in _LOOKS.values()
    ]
    figure.legend(handles=looks, loc="outside upper center", ncols=4, frameon=False, fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)
