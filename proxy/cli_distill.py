"""`farthing distill ...`: what teachers said, for fine-tuning; and students that answer in this process. Thin."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farthing.proxy.errors import ConfigFault

if TYPE_CHECKING:
    from farthing.proxy.config import Config

__all__ = ["app"]

app = typer.Typer(
    help="A cheaper model out of what a dear one said: data for fine-tuning, and students for labels.",
    epilog="Example: farthing distill train --name intents --route support --max-disagree 0.02",
    no_args_is_help=True,
)
_PIPED = Path("-")
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Configuration file (default: ./farthing.toml).")]
StateOption = Annotated[Path | None, typer.Option("--state", help="State directory (default: .farthing).")]
JsonOption = Annotated[bool, typer.Option("--json", help="For a machine to read.")]
TraceOption = Annotated[
    Path | None, typer.Option(help="A file that `farthing replay` reads, in place of what was captured.")
]
SinceOption = Annotated[str, typer.Option(help="How far back: 24h, 7d, or a date (default: all that is kept).")]
RouteOption = Annotated[str, typer.Option(help="Only requests that this route of the configuration takes.")]
ModelOption = Annotated[str, typer.Option(help="Only answers of models that fit this pattern (gpt-4o*).")]
NearOption = Annotated[
    float, typer.Option(min=0, max=1, help="Cosine from which on texts count as copies; 0: not looked for.")
]


@app.command(epilog="Example: farthing distill export traces/ --route support --format openai --license 'internal use'")
def export(
    folder: Annotated[Path, typer.Argument(help="Where to; files are readable by their owner only.")] = Path(
        "distilled"
    ),
    format: Annotated[str, typer.Option(help="openai (messages), alpaca, or sharegpt.")] = "openai",
    splits: Annotated[str, typer.Option(help="Parts, in the order of time.")] = "train=80,validation=10,test=10",
    route: RouteOption = "",
    model: ModelOption = "*",
    since: SinceOption = "",
    trace: TraceOption = None,
    near: NearOption = 0.95,
    consistent: Annotated[bool, typer.Option("--consistent", help="Leave out what was answered in two ways.")] = False,
    licence: Annotated[str, typer.Option("--license", help="For the data card.")] = "",
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a teacher's good answers for fine-tuning: without copies and personal data, with a data card."""
    from farthing.cache.embedder import open_embedder
    from farthing.proxy.build_students import MODEL
    from farthing.proxy.clock import SystemClock, SystemRandomness
    from farthing.proxy.distill_export import Shape, parts_of, write
    from farthing.proxy.distill_export import export as exported
    from farthing.proxy.distill_formats import FORMATS
    from farthing.proxy.distill_rows import gather
    from farthing.proxy.distill_source import lines_of, wanted_of
    from farthing.proxy.progress import Steps
    from farthing.proxy.redact import KINDS, Redactor
    from farthing.proxy.state import local_secret
    from farthing.proxy.version import version

    if format not in FORMATS:
        raise ConfigFault(f"--format: there is no {format!r}; there are {', '.join(FORMATS)}")
    shares = parts_of(splits)
    loaded, clock = _load(config, state), SystemClock()
    wanted = wanted_of(loaded, route, model, since, clock.now_s(), refusals=False)
    own = [(one.name, one.pattern) for one in loaded.capture.patterns]
    redactor = Redactor(KINDS, own, local_secret(loaded.state_dir, SystemRandomness()), clock)
    found = gather(lines_of(loaded, trace, wanted.since_s), wanted, redactor)
    if not found.rows:
        raise ConfigFault(f"there is nothing to export{_why(found.dropped)}")
    about = {
        "source": "captured traffic" if trace is None else f"a trace ({trace.name})",
        "filters": ", ".join(text for text in (route and f"route {route}", model != "*" and f"model {model}") if text),
        "redaction": [*KINDS, *(name for name, _ in own)],
        "redacted": dict(redactor.found),
        "made_s": clock.now_s(),
        "version": version(),
    }
    shape = Shape(format, shares, near, consistent, licence)
    with Steps(sys.stderr.isatty()) as steps:
        made = exported(found, shape, open_embedder(MODEL) if near else None, about, steps.tell)
    write(folder, made.files)
    if as_json:
        typer.echo(json.dumps(made.facts, indent=2))
        return
    for name, part in made.facts["parts"].items():
        typer.echo(f"{folder / name}.jsonl: {part['rows']:,} rows")
    for reason, count in made.facts["dropped"].items():
        typer.echo(f"left out: {count:,} {reason}")
    typer.echo(f"read {folder / 'CARD.md'} before you pass it on")


@app.command(epilog="Example: farthing distill train --name intents --route support --max-disagree 0.02")
def train(
    name: Annotated[str, typer.Option(help="The student's: lower case letters, digits, and . _ -")],
    route: RouteOption = "",
    model: ModelOption = "*",
    max_disagree: Annotated[
        float, typer.Option(min=0.0001, max=0.5, help="Of its answers, at most this share may not be the teacher's.")
    ] = 0.02,
    level: Annotated[float, typer.Option(min=0.0001, max=0.5, help="How often that may not hold.")] = 0.05,
    since: SinceOption = "",
    trace: TraceOption = None,
    near: NearOption = 0.95,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a student for labels and short closed sets. Exit status 1: none may answer at that bound."""
    import re
    from dataclasses import replace

    from farthing.cache.embedder import open_embedder
    from farthing.proxy import student_files
    from farthing.proxy.build_students import MODEL
    from farthing.proxy.clock import SystemClock
    from farthing.proxy.config_routes import STUDENT_NAME
    from farthing.proxy.distill_rows import gather
    from farthing.proxy.distill_source import lines_of, wanted_of
    from farthing.proxy.distill_train import Recipe, cases_of
    from farthing.proxy.distill_train import train as trained
    from farthing.proxy.progress import Steps

    if not name or not re.fullmatch(STUDENT_NAME, name):
        raise ConfigFault(f"--name: lower case letters, digits, and . _ -, not {name!r}")
    loaded, clock = _load(config, state), SystemClock()
    wanted = wanted_of(loaded, route, model, since, clock.now_s(), refusals=True)
    found = gather(lines_of(loaded, trace, wanted.since_s), wanted)
    if not found.rows:
        raise ConfigFault(f"there is nothing to learn from{_why(found.dropped)}")
    recipe = Recipe(name, max_disagree, level, cosine=near or 2.0)
    with Steps(sys.stderr.isatty()) as steps:
        made = trained(cases_of(found.rows, loaded.aliases), recipe, open_embedder(MODEL), steps.tell)
    asked = {"route": route, "model": model, "near": near}
    facts = made.facts | {"dropped": dict(found.dropped), "made_s": clock.now_s(), "asked": asked}
    if made.student is not None:
        student_files.save(loaded.state_dir, replace(made.student, about=facts))
    if as_json:
        hash = None if made.student is None else made.student.hash
        typer.echo(json.dumps({"name": name, "hash": hash, "why": made.why, **facts}, indent=2))
    else:
        _print_trained(name, made.student, made.why, facts)
    if made.student is None:
        raise typer.Exit(1)


@app.command(epilog="Example: farthing distill retrain intents")
def retrain(
    name: Annotated[str, typer.Argument(help="The student's.")],
    trace: TraceOption = None,
    background: Annotated[bool, typer.Option("--background", help="At the lowest priority of a processor.")] = False,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a student anew, by what it was trained by; the one that is there stays.

    A running farthing does this by itself (distill.retrain_days), and lets the new one answer once it has proved itself
    on live requests. Exit status 1: it isn't good enough to stand beside the old one.
    """
    import os

    from farthing.cache.embedder import open_embedder
    from farthing.policies.student import Unfit
    from farthing.proxy.build_students import MODEL
    from farthing.proxy.clock import SystemClock
    from farthing.proxy.config import piped
    from farthing.proxy.distill_again import again
    from farthing.proxy.progress import Steps

    if background:
        os.nice(19)
    loaded = piped(sys.stdin.buffer.read()) if config == _PIPED else _load(config, state)
    try:
        with Steps(sys.stderr.isatty()) as steps:
            made = again(loaded, name, trace, open_embedder(MODEL), SystemClock().now_s(), steps.tell)
    except Unfit as error:
        raise ConfigFault(f"the student {name} can't be read: {error}") from None
    if as_json:
        typer.echo(json.dumps({"name": name, "hash": made.hash, "why": made.why, **made.facts}, indent=2))
    else:
        typer.echo(made.why)
        typer.echo(f"{name} ({made.hash}) proves itself beside the old one now" if made.hash else "the old one stays")
    if not made.hash:
        raise typer.Exit(1)


@app.command(epilog="Example: farthing distill show intents")
def show(
    name: Annotated[str, typer.Argument(help="Of one student (default: all).")] = "",
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """The students that are there: what they were proved to do, and what is known of them since."""
    from farthing.policies.student import Unfit
    from farthing.proxy import student_files

    loaded = _load(config, state)
    shown: list[dict[str, Any]] = []
    for one in [name] if name else student_files.names(loaded.state_dir):
        try:
            student = student_files.load(loaded.state_dir, one)
        except Unfit as error:
            shown.append({"name": one, "unfit": str(error)})
            continue
        if student is None:
            raise ConfigFault(f"there is no student {one!r} in {loaded.state_dir / 'students'}")
        standing = student_files.standing_of(loaded.state_dir, student)
        known = {
            "name": one, "hash": student.hash, "teacher": student.teacher, "labels": len(student.labels),
            "threshold": student.threshold, "bound": student.bound, "level": student.level,
            "serves": standing.serves, "compared": standing.evidence.seen, "differed": standing.evidence.bad,
            "at_most": standing.upper, "fell_back": standing.turn,
        }  # fmt: skip
        shown.append(known | {"about": dict(student.about)})
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    if not shown:
        typer.echo(f"no student in {loaded.state_dir / 'students'}; train one: farthing distill train --name NAME")
    for known in shown:
        _print_student(known)


def _load(config: Path | None, state: Path | None) -> Config:
    from farthing.proxy.config import load

    return load(config, flags={"state_dir": state})


def _why(dropped: dict[str, int]) -> str:
    said = "; ".join(f"{count:,} {reason}" for reason, count in dropped.items())
    return f": {said}" if said else ""


def _print_trained(name: str, student: Any, why: str, facts: dict[str, Any]) -> None:
    parts = facts["parts"]
    typer.echo(
        f"{facts['requests']:,} requests of one template, {facts['labels']} labels: {parts['fitted']:,} to fit, "
        f"{parts['proved']:,} to prove, {parts['told']:,} to tell"
    )
    for reason, count in {**facts["dropped"], **facts["left_out"]}.items():
        typer.echo(f"left out: {count:,} {reason}")
    if student is None:
        typer.echo(why)
        return
    proved, told = facts["proved"], facts.get("told")
    typer.echo(
        f"proved: of {proved['cases']:,} requests it would answer {proved['share']:.1%}, and differ in "
        f"{proved['wrong']:,} of {proved['answered']:,}: at most {student.bound:.1%} ({1 - student.level:.0%} sure)"
    )
    if told:
        typer.echo(
            f"on later requests that nothing was chosen on: {told['share']:.1%} answered, {told['wrong']:,} of "
            f"{told['answered']:,} differ"
        )
    typer.echo(f"student {name} ({student.hash}) is ready; it observes until live traffic proves it too:")
    typer.echo(f'[[variants]]\nname = "student"\nstudent = "{name}"\nkind = "distilled"')


def _print_student(known: dict[str, Any]) -> None:
    if "unfit" in known:
        typer.echo(f"{known['name']}: can't be used: {known['unfit']}")
        return
    state = "serves" if known["serves"] else "observes"
    typer.echo(f"{known['name']} ({known['hash']}) {state}; teacher {known['teacher']}, {known['labels']} labels")
    proved = known["about"].get("proved")
    if proved:
        typer.echo(
            f"  trained: answers {proved['share']:.1%} of requests, {known['bound']:.1%} of them differently at most"
        )
    since = (
        f"differed in {known['differed']:.0f} of {known['compared']:.0f} comparisons: at most {known['at_most']:.2%}"
    )
    typer.echo(f"  live: {since}; fell back {known['fell_back']} times")
