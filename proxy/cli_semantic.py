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

_SHOWN_CHARS = 60


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
    """For a person: the verdict, the route's standing, the nearest entries with what told for and against them."""
    parts: list[RenderableType] = [Text.assemble(("verdict  ", "dim"), (disarmed(str(found["verdict"])), "bold"))]
    if "route" in found:
        standing = "serving" if found["serving"] else "observing"
        bound = f", at most {found['bound']:.2%} wrong" if found.get("bound") is not None else ""
        labels = f", {found['labels']:.0f} labels" if found.get("labels") is not None else ""
        needed = f", about {found['needed']} more needed" if found.get("needed") else ""
        parts.append(
            Text.assemble(("route    ", "dim"), f"{disarmed(found['route'])}  ({standing}{bound}{labels}{needed})")
        )
    if found["nearest"]:
        shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("score", "cosine", "text", "signals"):
            shown.add_column(name, justify="right" if name in ("score", "cosine") else "left", overflow="fold")
        for one in found["nearest"]:
            text = one["text"] if len(one["text"]) <= _SHOWN_CHARS else one["text"][: _SHOWN_CHARS - 1] + "…"
            told = ", ".join(f"{name} {_short(value)}" for name, value in one["signals"].items() if value)
            shown.add_row(f"{one['score']:.3f}", f"{one['cosine']:.3f}", Text(disarmed(text)), Text(disarmed(told)))
        parts.append(shown)
    return parts


def calibrated(
    trace: Path, max_wrong: float, confidence: float, emit: Callable[[Any], None] | None, console: Console
) -> int:
    """Replay and print; the exit status: 0 where a threshold is proved safe, 1 where none is. Raises ConfigFault."""
    from farthing.cache.embedder import open_embedder
    from farthing.cache.scorer import VerifierScorer
    from farthing.cache.semantic import SemanticCache
    from farthing.cache.verifier import Verifier
    from farthing.policies.agree import comparator
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


def _short(value: Any) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
