"""`farthing cache explain` and `farthing cache calibrate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from farthing.proxy.cli_cache import ask
from farthing.proxy.config import Config
from farthing.proxy.errors import ConfigFault
from farthing.proxy.report import disarmed

__all__ = ["calibrated", "explain", "explained"]

_SHOWN_KINDS = 4
# As `git diff --word-diff` marks words, so that it reads without colours too.
_ASKED, _STORED = ("{+", "+}", "bold green"), ("[-", "-]", "bold red")


def explain(config: Config, file: str) -> dict[str, Any]:
    """What the running farthing says of the request. Raises ConfigFault: no such file, no JSON, nothing runs."""
    try:
        request = json.loads(sys.stdin.read() if file == "-" else Path(file).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigFault(f"can't read a request from {file}: {error}") from None
    if not isinstance(request, dict):
        raise ConfigFault(f"{file} is no JSON object")
    asked = request if "body" in request else {"body": request}
    answer = ask(config, "/farthing/api/cache/explain", asked)
    if answer is None:
        raise ConfigFault(f"no farthing runs with {config.state_dir}: start it, or name its --state DIR")
    return answer


def explained(found: dict[str, Any]) -> list[RenderableType]:
    """For a person: verdict, the route's standing, the nearest entries with what differs, and what is still lacking."""
    parts: list[RenderableType] = [Text.assemble(("verdict  ", "dim"), (disarmed(str(found["verdict"])), "bold"))]
    if "route" in found:
        standing = "serving" if found["serving"] else "observing"
        bound = f", at most {found['bound']:.2%} wrong" if found.get("bound") is not None else ""
        labels = f", {found['labels']:.0f} labels" if found.get("labels") is not None else ""
        more = f", about {found['needed']} more needed" if found.get("needed") else ""
        parts.append(
            Text.assemble(("route    ", "dim"), f"{disarmed(found['route'])}  ({standing}{bound}{labels}{more})")
        )
    if found["nearest"]:
        best, *others = found["nearest"]
        parts += [_best(best, found.get("threshold")), *([_others(others)] if others else [])]
    if "needs" in found:
        needed = _section("still needed for it to be served")
        for number, one in enumerate(found["needs"] or ["nothing: it would be served"], 1):
            needed.add_row(f"{number}." if found["needs"] else "", Text(disarmed(one)))
        parts.append(needed)
    return parts


def _best(near: dict[str, Any], threshold: float | None) -> RenderableType:
    """The candidate, with both texts in full, and what tells them apart."""
    shown = _section("the candidate")
    limit = f" (threshold {threshold:.3f})" if threshold is not None else ""
    shown.add_row("score", f"{near['score']:.3f}{limit}, cosine {near['cosine']:.3f}")
    shown.add_row("asked", _marked(near["asked"], _ASKED))
    shown.add_row("stored", _marked(near["stored"], _STORED))
    shown.add_row("against", Text(_told(near) or "nothing that has a name"))
    return shown


def _section(title: str) -> Table:
    """Names and what they stand for, aligned."""
    shown = Table(box=None, padding=(0, 2, 0, 0), show_header=False, title=f"\n{title}", title_justify="left")
    shown.title_style = "bold"
    shown.add_column(style="dim", no_wrap=True)
    shown.add_column(overflow="fold")
    return shown


def _others(nearest: list[dict[str, Any]]) -> RenderableType:
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title="\nbehind it", title_justify="left")
    shown.title_style = "bold"
    for name in ("score", "cosine", "stored", "against"):
        shown.add_column(name, justify="right" if name in ("score", "cosine") else "left", overflow="fold")
    for one in nearest:
        score, cosine = f"{one['score']:.3f}", f"{one['cosine']:.3f}"
        shown.add_row(score, cosine, _marked(one["stored"], _STORED), Text(_told(one)))
    return shown


def _marked(parts: list[tuple[str, bool]], marks: tuple[str, str, str]) -> Text:
    """A text with what the other one lacks between marks."""
    shown = Text()
    before, after, style = marks
    for text, differs in parts:
        plain = disarmed(text.replace("\n", " "))
        shown.append(f"{before}{plain}{after}" if differs else plain, style if differs else None)
    return shown


def _told(near: dict[str, Any]) -> str:
    """The kinds of difference, the most telling first, with their words."""
    return disarmed("; ".join(_kind(one) for one in near["against"][:_SHOWN_KINDS]))


def _kind(told: dict[str, Any]) -> str:
    sides = [", ".join(told[side]) or "–" for side in ("asked", "stored")]
    return f"{told['kind']}: {' / '.join(sides)}" if sides != ["–", "–"] else str(told["kind"])


def calibrated(
    trace: Path, max_wrong: float, confidence: float, emit: Callable[[Any], None] | None, console: Console
) -> int:
    """Replay and print; the exit status: 0 where a threshold is proved safe, 1 where none is. Raises ConfigFault."""
    from farthing.cache.embedder import open_embedder
    from farthing.cache.scorer import VerifierScorer
    from farthing.cache.semantic import SemanticCache
    from farthing.cache.verifier import Verifier
    from farthing.policies.agree_measured import comparator
    from farthing.proxy.calibrate import as_json, calibrate, read_trace, table

    turns = list(read_trace(trace))
    if not turns:
        raise ConfigFault(f"{trace} holds no requests")
    scorer = VerifierScorer(Verifier.open())
    cache = SemanticCache.open(None, open_embedder("minilm-int8"), max_entries=1_000_000, scorer=scorer)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("replaying", total=len(turns))
        rows = calibrate(
            turns,
            cache,
            max_wrong=max_wrong,
            confidence=confidence,
            comparator=comparator(),
            tell=lambda done: progress.update(task, completed=done),
        )
    if emit is not None:
        emit(as_json(rows))
    else:
        console.print(table(rows, max_wrong, confidence))
        if not any(row.safe for row in rows):
            console.print("No score is proved safe on this trace: more traffic, or a wider bound.")
    return 0 if any(row.safe for row in rows) else 1
