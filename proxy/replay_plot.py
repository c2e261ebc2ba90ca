"""A replay's sweep as a picture (PNG); needs matplotlib, the extra `plot`."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass

from farthing.proxy.replay_run import Run
from farthing.proxy.replay_sums import Estimate
from farthing.proxy.replay_sweep import Settings

__all__ = ["Line", "Point", "drawn", "have_matplotlib", "lines_of"]

# Okabe and Ito's, which colour-blind readers can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclass(frozen=True, slots=True)
class Point:
    """One configuration: shares in percent. `at`: the setting's value, or its number where it is no number."""

    at: float
    name: str
    hits: float
    saved: float | None
    wrong: Estimate | None


@dataclass(frozen=True, slots=True)
class Line:
    """The first key's values, with all other keys fixed; `name` says at what."""

    name: str
    points: tuple[Point, ...]


def lines_of(run: Run, settings: Sequence[Settings], confidence: float) -> tuple[str, list[Line]]:
    """The key along the axis, and a line for each combination of the others."""
    key = next(iter(settings[0]), "")
    values = list(dict.fromkeys(one.get(key, "") for one in settings))
    numeric = all(_is_number(value) for value in values)
    grouped: dict[str, list[Point]] = {}
    for lane, chosen in zip(run.lanes, settings, strict=True):
        value = chosen.get(key, "as configured")
        rest = ", ".join(f"{name} = {one}" for name, one in chosen.items() if name != key)
        sums = lane.tally.total
        grouped.setdefault(rest, []).append(
            Point(
                float(value) if numeric else float(values.index(value) if value in values else 0),
                value,
                100 * (sums.hit_rate_eligible or 0.0),
                None if sums.net_share is None else 100 * sums.net_share,
                lane.tally.all_wrong.estimate(confidence),
            )
        )
    return key, [Line(name, tuple(sorted(points, key=lambda point: point.at))) for name, points in grouped.items()]


def have_matplotlib() -> bool:
    """Whether PNG can be drawn here."""
    return importlib.util.find_spec("matplotlib") is not None


def drawn(run: Run, settings: Sequence[Settings], confidence: float) -> bytes:
    """The picture: hit rate, saving and wrong near-duplicates against the swept setting."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    key, lines = lines_of(run, settings, confidence)
    wrong = any(point.wrong is not None for line in lines for point in line.points)
    figure = Figure(figsize=(11 if wrong else 7.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if wrong else 1, squeeze=False)[0]
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        at = [point.at for point in line.points]
        suffix = f" ({line.name})" if line.name else ""
        axes[0].plot(at, [point.hits for point in line.points], "o-", color=colour, label=f"hit rate{suffix}")
        saved = [(point.at, point.saved) for point in line.points if point.saved is not None]
        if saved:
            axes[0].plot(*zip(*saved, strict=True), "s--", color=colour, label=f"money saved{suffix}")
        judged = [(point.at, point.wrong) for point in line.points if point.wrong is not None]
        if judged:
            middle = [100 * one.share for _, one in judged]
            reach = [
                [100 * (one.share - one.low) for _, one in judged],
                [100 * (one.high - one.share) for _, one in judged],
            ]
            where = [place for place, _ in judged]
            axes[1].errorbar(where, middle, yerr=reach, fmt="o-", capsize=3, color=colour, label=line.name or None)
    axes[0].set_ylabel("percent of eligible requests; of the baseline")
    axes[0].legend(frameon=False, fontsize=8)
    if wrong:
        axes[1].set_ylabel(f"wrong near-duplicates, percent, {confidence:.0%} interval")
        if any(line.name for line in lines):
            axes[1].legend(frameon=False, fontsize=8)
    for axis in axes:
        axis.set_xlabel(key or "configuration")
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
        axis.grid(color="#e4e4e4", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        if lines and any(not _is_number(point.name) for point in lines[0].points):
            axis.set_xticks([point.at for point in lines[0].points], [point.name for point in lines[0].points])
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130)
    return out.getvalue()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
