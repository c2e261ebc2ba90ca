"""A replay's figures for a person and for a program. No IO.

Rules of this file: texts from a trace are hostile and are disarmed; an unknown price is named, never shown as a number;
what a reader must know before believing a figure is said beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from farthing.proxy.replay_run import Run
from farthing.proxy.replay_sums import Compared, Sums, Tally
from farthing.proxy.replay_sweep import Settings
from farthing.proxy.report import CAUSE_NAMES, disarmed, label, money, rate
from farthing.proxy.report_text import counted

__all__ = ["as_json", "headline", "notes", "rendered", "sweep_columns", "sweep_rows", "without_requests"]

_OWN_CALLS = "own calls (audits)"
_MOST_ROWS = 40


def rendered(
    run: Run, settings: Sequence[Settings], forms: Sequence[Sequence[str]], confidence: float
) -> RenderableType:
    """All of it: one configuration in full, several as a table of a line each. `forms`: of each, the names of those
    whose cuts were counted."""
    parts: list[RenderableType] = [
        Text(headline(run, settings, confidence), style="bold"),
        Text(_of_what(run), style="dim"),
    ]
    if len(run.lanes) > 1:
        parts.append(_sweep(run, settings, confidence))
        parts += _best(run, settings, confidence)
    else:
        parts += _in_full(run, forms[0], confidence)
    parts += [Text(f"  {note}", style="yellow") for note in notes(run)]
    parts += [Text(f"  line {line:,}: {disarmed(reason)}", style="dim") for line, reason in run.broken.told]
    return Group(*parts)


def headline(run: Run, settings: Sequence[Settings], confidence: float) -> str:
    """The answer in one sentence."""
    if not run.requests:
        return "No requests in this trace."
    if not run.lanes[0].tally.total.requests:
        return "Stopped before any request was replayed."
    if len(run.lanes) > 1:
        at = _saves_most(run)
        best, judged = run.lanes[at].tally.total, run.lanes[at].tally.all_wrong.estimate(confidence)
        if not best.has_prices:
            return f"No price is known for any of {best.requests:,} requests."
        wrong = (
            f"; of {judged.of:,} near-duplicates that could be compared {judged.share:.1%} are judged wrong "
            f"({judged.low:.1%} – {judged.high:.1%}, {confidence:.0%} sure)"
            if judged is not None
            else ""
        )
        return f"Saves most, {money(best.net)} ({rate(best.net_share)}), with {_named(settings[at])}{wrong}."
    total = run.lanes[0].tally.total
    if not total.has_prices:
        return (
            f"{rate(total.hit_rate)} of {total.requests:,} requests would not have gone upstream; "
            "no price is known for any of them."
        )
    return (
        f"Of {money(total.baseline)}, farthing would have saved {money(total.net)} ({rate(total.net_share)}): "
        f"{rate(total.hit_rate)} of {total.requests:,} requests would not have gone upstream."
    )


def notes(run: Run) -> list[str]:
    """What a reader must know before believing the figures."""
    said = []
    if not run.finished:
        said.append(f"Stopped at {run.share:.0%} of the trace: figures so far. Go on with --resume.")
    said += [f"{count:,} {kind}: left out." for kind, count in sorted(run.skipped.items())]
    if run.back:
        late = f"; {run.late:,} came too late for that and count at the moment of those before" if run.late else ""
        said.append(f"Times go back {run.back:,} times from one line to the next: requests were put in order{late}.")
    if run.timeless:
        said.append(f"{run.timeless:,} requests without a time: taken at the moment of those before them, or at none.")
    if run.promptless:
        said.append(
            f"{run.promptless:,} rows of a ledger, which holds no prompts: exact hits by its keys, and nothing else."
        )
    if run.requests and run.answered < run.requests - run.promptless:
        said.append(
            f"{run.requests - run.promptless - run.answered:,} requests without an answer: taken for good ones."
        )
    if run.requests and run.measured < run.requests:
        missing = run.requests - run.measured
        said.append(f"{missing:,} requests without a latency: none can join them, their answers are kept at once.")
    if run.retries:
        said.append(
            f"{counted(run.retries, 'attempt')} after a first one in the trace (retries, a route's legs): none is "
            "replayed; what was billed for them is in the recorded cost alone."
        )
    total = run.lanes[0].tally.total
    if total.unpriced:
        said.append(f"{total.unpriced:,} requests of unknown price or usage: in no amount.")
    if total.modelled:
        said.append(f"{total.modelled:,} requests with a modelled baseline: estimated, not billed.")
    unknown = max(lane.tally.near_unknown for lane in run.lanes)
    if unknown:
        said.append(f"{unknown:,} near-duplicates whose right answer isn't in the trace: nobody can tell if they are.")
    noise = run.lanes[0].tally.noise
    if noise.count and noise.count > noise.same:
        share = (noise.count - noise.same) / noise.count
        said.append(
            f"Noise: in {share:.1%} of {noise.count:,} exact repeats the recorded answer was another one, or could not "
            "be told from one. A wrong hit is told by the same comparison, so part of its rate is the model's own."
        )
    if run.broken.count:  # the last one: the lines follow
        more = run.broken.count - len(run.broken.told)
        lines = counted(run.broken.count, "line")
        said.append(f"{lines} could not be used" + (f"; the first {len(run.broken.told)}:" if more else ":"))
    return said


def without_requests(run: Run) -> list[str]:
    """Why a trace held none, a line each."""
    left_out = [f"{count:,} {disarmed(kind)}: left out" for kind, count in sorted(run.skipped.items())]
    lines = [f"{counted(run.broken.count, 'line')} could not be used"] if run.broken.count else []
    return [*left_out, *lines, *(f"line {line:,}: {disarmed(reason)}" for line, reason in run.broken.told)]


# -- one configuration


def _in_full(run: Run, forms: Sequence[str], confidence: float) -> list[RenderableType]:
    tally = run.lanes[0].tally
    before = run.recorded if run.recorded.requests else None
    shown = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    shown.add_column("")
    if before is not None:
        shown.add_column("recorded", justify="right")
    shown.add_column("replayed", justify="right")
    for name, of in _lines():
        recorded = "–" if name == _OWN_CALLS else "" if before is None else of(before)  # they are left out of a trace
        shown.add_row(name, *([recorded] if before is not None else []), of(tally.total))
    for name, tokens in zip(forms, tally.cut, strict=False):
        some = [""] if before is not None else []
        shown.add_row(f"{name} would cut of these (in no amount)", *some, f"{tokens:,} tokens")
    parts: list[RenderableType] = [Text(""), shown]
    if tally.all_wrong.count:
        parts.append(_wrong(tally, confidence))
    if tally.groups:
        parts.append(_groups(run, tally, ""))
    if tally.reasons:
        parts.append(_reasons(tally))
    return parts


def _lines() -> Iterable[tuple[str, Any]]:
    """Names of figures, and how each is had from sums."""
    yield "requests", lambda sums: f"{sums.requests:,}"
    for status in ("hit-exact", "hit-semantic", "joined", "miss", "bypass"):
        yield label(status), lambda sums, status=status: f"{sums.statuses[status]:,}"
    yield "hit rate, of eligible", lambda sums: rate(sums.hit_rate_eligible)
    yield "hit rate, of all", lambda sums: rate(sums.hit_rate)
    yield "baseline", lambda sums: _money(sums, sums.baseline)
    yield "cost", lambda sums: _money(sums, sums.cost)
    for cause, name in CAUSE_NAMES.items():
        yield f"saved: {name}", lambda sums, cause=cause: _money(sums, sums.saved[cause])
    yield _OWN_CALLS, lambda sums: _money(sums, sums.overhead)
    yield "net saving", lambda sums: _money(sums, sums.net)
    yield "tokens in, as asked", lambda sums: f"{sums.tokens_in:,}"
    yield "tokens in, as sent", lambda sums: f"{sums.tokens_sent:,}"
    yield "tokens out", lambda sums: f"{sums.tokens_out:,}"


def _money(sums: Sums, pico: int) -> str:
    return money(pico) if sums.has_prices else "unknown"


def _wrong(tally: Tally, confidence: float, which: str = "") -> RenderableType:
    """Estimated wrong near-duplicates, in all and by slice."""
    shown = _table(f"Near-duplicates that were wrong{which}, {confidence:.0%} sure")
    for name in ("", "compared", "different", "in doubt", "wrong", "between"):
        shown.add_column(name, justify="left" if not name else "right", overflow="fold")
    shown.add_row("all", *_compared(tally.all_wrong, confidence))
    largest = sorted(tally.wrong.items(), key=lambda item: (-item[1].count, item[0]))
    for (slice_name, value), compared in largest[:_MOST_ROWS]:
        shown.add_row(Text(disarmed(f"{slice_name} {value}")), *_compared(compared, confidence))
    return shown


def _compared(compared: Compared, confidence: float) -> tuple[str, ...]:
    found = compared.estimate(confidence)
    assert found is not None
    return (
        f"{found.of:,}",
        f"{compared.different:,}",
        f"{compared.unsure:,}",
        f"{found.share:.2%}",
        f"{found.low:.2%} – {found.high:.2%}",
    )


def _groups(run: Run, tally: Tally, which: str) -> RenderableType:
    shown = _table(f"By {', '.join(run.by)}{which}")
    names = [*run.by, "requests", "hit rate", "baseline", "net saved", "tokens cut", "unpriced"]
    for number, name in enumerate(names):
        shown.add_column(name, justify="left" if number < len(run.by) else "right", overflow="fold")
    largest = sorted(tally.groups.items(), key=lambda item: (-item[1].baseline, -item[1].requests, item[0]))
    for key, sums in largest[:_MOST_ROWS]:
        shown.add_row(
            *(Text(disarmed(part) or "(none)") for part in key),
            f"{sums.requests:,}",
            rate(sums.hit_rate_eligible),
            _money(sums, sums.baseline),
            _money(sums, sums.net),
            f"{sums.tokens_cut:,}",
            f"{sums.unpriced:,}",
        )
    return shown


def _reasons(tally: Tally) -> RenderableType:
    shown = _table("Not eligible for a cache")
    shown.add_column("")
    shown.add_column("requests", justify="right")
    for reason, count in sorted(tally.reasons.items(), key=lambda item: (-item[1], item[0]))[:8]:
        shown.add_row(Text(disarmed(reason)), f"{count:,}")
    return shown


def _table(title: str) -> Table:
    return Table(
        box=None, padding=(0, 3, 0, 0), header_style="dim", title=f"\n{title}", title_justify="left", title_style="bold"
    )


# -- several


def sweep_columns(settings: Sequence[Settings]) -> list[str]:
    """The columns of a sweep: the keys, then the figures."""
    figures = ["hit rate", "exact", "joined", "semantic", "net saved", "share", "tokens cut"]
    return [*settings[0], *figures, "wrong", "between"]


def sweep_rows(run: Run, settings: Sequence[Settings], confidence: float) -> list[list[str]]:
    """A line for each configuration."""
    rows = []
    for lane, chosen in zip(run.lanes, settings, strict=True):
        sums = lane.tally.total
        found = lane.tally.all_wrong.estimate(confidence)
        rows.append(
            [
                *chosen.values(),
                rate(sums.hit_rate_eligible),
                f"{sums.statuses['hit-exact']:,}",
                f"{sums.statuses['joined']:,}",
                f"{sums.statuses['hit-semantic']:,}",
                _money(sums, sums.net),
                rate(sums.net_share) if sums.has_prices else "unknown",
                f"{sums.tokens_cut:,}",
                f"{found.share:.2%}" if found is not None else "–",
                f"{found.low:.2%} – {found.high:.2%}" if found is not None else "–",
            ]
        )
    return rows


def _sweep(run: Run, settings: Sequence[Settings], confidence: float) -> RenderableType:
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in sweep_columns(settings):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in sweep_rows(run, settings, confidence):
        shown.add_row(*row)
    return shown


def _saves_most(run: Run) -> int:
    """Which configuration does; the first of several."""
    return max(range(len(run.lanes)), key=lambda n: run.lanes[n].tally.total.net)


def _best(run: Run, settings: Sequence[Settings], confidence: float) -> list[RenderableType]:
    """The slices of the one that saves most, where slices were asked for."""
    at = _saves_most(run)
    tally, which = run.lanes[at].tally, f", with {_named(settings[at])}"
    if not tally.groups:
        return []
    wrong = [_wrong(tally, confidence, which)] if tally.all_wrong.count else []
    return [_groups(run, tally, which), *wrong]


# -- both


def _of_what(run: Run) -> str:
    kinds = ", ".join(f"{count:,} {name}" for name, count in sorted(run.formats.items()))
    if run.first_s is None or run.last_s is None:
        return f"{kinds}; no times"
    first, last = (datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M") for at in (run.first_s, run.last_s))
    return f"{kinds}; {first} to {last}, UTC"


def _named(settings: Settings) -> str:
    return ", ".join(f"{key} = {value}" for key, value in settings.items())


def as_json(
    run: Run, settings: Sequence[Settings], forms: Sequence[Sequence[str]], confidence: float
) -> dict[str, Any]:
    """Everything as plain values. `forms`: see `rendered`. Amounts are integers of 1e-12 dollar."""
    return {
        "requests": run.requests,
        "finished": run.finished,
        "share": run.share,
        "formats": run.formats,
        "since": run.first_s,
        "until": run.last_s,
        "broken": {"count": run.broken.count, "first": [{"line": n, "reason": why} for n, why in run.broken.told]},
        "left_out": run.skipped,
        "retries": run.retries,
        "times_back": run.back,
        "late": run.late,
        "notes": notes(run),
        "recorded": run.recorded.as_json() if run.recorded.requests else None,
        "recorded_groups": _groups_json(run.by, run.recorded_groups),
        "replayed": [
            {
                "settings": dict(chosen),
                **lane.tally.total.as_json(),
                "wrong": _estimate_json(lane.tally.all_wrong, confidence),
                "wrong_by": [
                    {"slice": name, "value": value} | (_estimate_json(compared, confidence) or {})
                    for (name, value), compared in sorted(lane.tally.wrong.items())
                ],
                "noise": _estimate_json(lane.tally.noise, confidence),
                "not_compared": lane.tally.near_unknown,
                "not_eligible": lane.tally.reasons,
                "would_cut": dict(zip(names, lane.tally.cut, strict=False)),
                "groups": _groups_json(run.by, lane.tally.groups),
            }
            for lane, chosen, names in zip(run.lanes, settings, forms, strict=True)
        ],
    }


def _groups_json(by: Sequence[str], groups: dict[tuple[str, ...], Sums]) -> list[dict[str, Any]]:
    return [
        {"group": dict(zip(by, key, strict=True)), **sums.as_json()}
        for key, sums in sorted(groups.items(), key=lambda item: (-item[1].baseline, item[0]))
    ]


def _estimate_json(compared: Compared, confidence: float) -> dict[str, Any] | None:
    found = compared.estimate(confidence)
    if found is None:
        return None
    return {
        "compared": found.of,
        "different": compared.different,
        "unsure": compared.unsure,
        "share": found.share,
        "low": found.low,
        "high": found.high,
        "confidence": confidence,
    }
