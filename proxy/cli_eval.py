"""`farthing eval ...`: datasets out of traffic, and a candidate policy against a baseline on them. Thin."""

from __future__ import annotations

import json
import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from farthing.proxy.cli_judge import EXAMPLE, RunCodeOption, judge_labelled, judging_of
from farthing.proxy.errors import ConfigFault

if TYPE_CHECKING:
    from farthing.policies.compare import Comparison
    from farthing.policies.dataset import EvalCase
    from farthing.proxy.config import Config
    from farthing.proxy.eval_run import RunFile

__all__ = ["app"]

app = typer.Typer(
    help="Is a candidate as good as the baseline, on cases that look like production?",
    epilog="Example: farthing eval sample suite.jsonl && farthing eval run suite.jsonl --config candidate.toml",
    no_args_is_help=True,
)
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Configuration file (default: ./farthing.toml).")]
StateOption = Annotated[Path | None, typer.Option("--state", help="State directory (default: .farthing).")]
JsonOption = Annotated[bool, typer.Option("--json", help="For a machine to read.")]
HtmlOption = Annotated[Path | None, typer.Option("--html", help="Write a page.")]
MarginOption = Annotated[float, typer.Option(min=0.0001, max=0.9999, help="The loss that is still 'not worse'.")]
LevelOption = Annotated[float, typer.Option(min=0.0001, max=0.5, help="How often a verdict may be wrong.")]
SeedOption = Annotated[int, typer.Option(help="Of what is drawn by chance.")]


@app.command(epilog="Example: farthing eval sample suite.jsonl --since 14d --size 500 --adversarial 0.3")
def sample(
    out: Annotated[Path, typer.Argument(help="The dataset, JSON lines; readable by its owner only.")] = Path(
        "suite.jsonl"
    ),
    size: Annotated[int, typer.Option(min=1, help="Cases from traffic.")] = 500,
    since: Annotated[str, typer.Option(help="How far back: 24h, 7d, or a date (default: all that is kept).")] = "",
    trace: Annotated[
        Path | None, typer.Option(help="A file that `farthing replay` reads, in place of captures.")
    ] = None,
    strata: Annotated[str, typer.Option(help="Slices whose shares must be production's.")] = "",
    adversarial: Annotated[float, typer.Option(min=0, max=1, help="Share of cases with a trap made from them.")] = 0.2,
    kinds: Annotated[str, typer.Option(help="Kinds of traps (default: all).")] = "",
    splits: Annotated[str, typer.Option(help="Parts in time, as train=60,test=40: one file each.")] = "",
    seed: SeedOption = 1,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a dataset that looks like production, without personal data; bad ratings and traps beside it."""
    from farthing.policies.adversary import KINDS
    from farthing.proxy import eval_sample
    from farthing.proxy.capture import redactor_of
    from farthing.proxy.clock import SystemClock, SystemRandomness
    from farthing.proxy.figures import farthing_since
    from farthing.proxy.outcomes import read_only
    from farthing.proxy.state import local_secret

    loaded, clock = _load(config, state), SystemClock()
    chosen = tuple(kind.strip() for kind in kinds.split(",") if kind.strip()) or KINDS
    if unknown := sorted(set(chosen) - set(KINDS)):
        raise ConfigFault(f"--kinds: there is no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    names, shares = _parts(splits)
    try:
        since_s = farthing_since(since, clock.now_s()) if since else 0.0
    except ValueError as error:
        raise ConfigFault(f"--since: {error}") from None
    bad = eval_sample.bad_ratings(read_only(loaded.state_dir))
    if trace is None:
        source = eval_sample.gather(eval_sample.from_capture(loaded, since_s), bad)
    else:
        redactor = redactor_of(loaded.capture, local_secret(loaded.state_dir, SystemRandomness()), clock)
        source = eval_sample.gather(eval_sample.from_trace(trace), bad, redactor)
    if not source.cases:
        why = "; ".join(f"{count:,} {reason}" for reason, count in source.left_out.items())
        raise ConfigFault(f"no request can be asked again{f': {why}' if why else ''}")
    given = tuple(name.strip() for name in strata.split(",") if name.strip()) or eval_sample.STRATA
    wanted = eval_sample.Wanted(size, given, adversarial, chosen, shares, seed)
    found = eval_sample.sample(source, wanted)
    files = [out if not name else out.with_name(f"{out.stem}-{name}{out.suffix}") for name in names]
    for path, part in zip(files, found.parts, strict=True):
        eval_sample.write(path, part)
    told = _sampled(source, found, files)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    _print_sampled(told)


@app.command(
    "run", epilog="Example: farthing eval run suite.jsonl --config candidate.toml --out run.json --html run.html"
)
def run_(
    suite: Annotated[Path, typer.Argument(help="A dataset of `farthing eval sample`, or lines {prompt, reference}.")],
    config: ConfigOption = None,
    baseline: Annotated[Path | None, typer.Option(help="Its configuration (default: every optimisation off).")] = None,
    judge: Annotated[str, typer.Option(help='A judge: agree, or {judge="number", tolerance=0.01}.')] = "agree",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Keep the results, for `eval compare`.")] = None,
    html: HtmlOption = None,
    margin: MarginOption = 0.02,
    level: LevelOption = 0.05,
    warm: Annotated[
        Path | None, typer.Option(help="A dataset asked of the candidate before, to fill its caches.")
    ] = None,
    learnt: Annotated[
        Path | None, typer.Option(help="A state directory whose evidence the candidate begins with.")
    ] = None,
    key_env: Annotated[str, typer.Option(help="The environment variable with the upstream's key.")] = "OPENAI_API_KEY",
    at_once: Annotated[int, typer.Option(min=1, help="Cases under way.")] = 4,
    max_usd: Annotated[float, typer.Option(min=0, help="What each arm may spend, and a model judge on each.")] = 5.0,
    run_code: RunCodeOption = False,
    seed: SeedOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Ask both arms every case and compare: overall, by slice, with intervals. Exit status 1: worse, or not shown."""
    import asyncio

    from farthing.proxy.clock import SystemClock
    from farthing.proxy.config import load
    from farthing.proxy.eval_arm import Arm, plain
    from farthing.proxy.eval_run import Run, load_cases, run, save_run
    from farthing.proxy.logs import set_up
    from farthing.proxy.progress import Steps

    candidate = load(config)
    base = plain(candidate) if baseline is None else load(baseline)
    cases, broken = load_cases(suite)
    warming = load_cases(warm)[0] if warm is not None else ()
    _say(broken)
    key, money = os.environ.get(key_env, ""), Decimal(str(max_usd))
    wanted = Run(
        Arm("baseline", base),
        Arm("candidate", candidate, learnt),
        cases,
        judging_of(judge, candidate, suite.parent, key, money, run_code=run_code),
        key,
        at_once,
        money,
        warming,
    )
    set_up(candidate.log.model_copy(update={"level": "error"}))
    with Steps(sys.stderr.isatty()) as steps:
        found = asyncio.run(run(wanted, SystemClock().now_s(), steps.tell))
    if out is not None:
        save_run(out, found)
    raise typer.Exit(_told(found, margin, level, seed, html, suite.name, as_json=as_json))


@app.command(epilog="Example: farthing eval compare monday.json friday.json --html compared.html")
def compare(
    one: Annotated[Path, typer.Argument(help="A file of `farthing eval run`.")],
    other: Annotated[
        Path | None, typer.Argument(help="Another one of the same cases: its candidate is compared.")
    ] = None,
    html: HtmlOption = None,
    margin: MarginOption = 0.02,
    level: LevelOption = 0.05,
    seed: SeedOption = 1,
    as_json: JsonOption = False,
) -> None:
    """One run once more, or the candidates of two runs with each other. Asks nobody."""
    from farthing.proxy.eval_run import across, load_run

    found = load_run(one)
    if other is not None:
        found = across(found, load_run(other))
    raise typer.Exit(_told(found, margin, level, seed, html, one.name, as_json=as_json))


app.command("judge", epilog=EXAMPLE)(judge_labelled)


def _told(
    found: RunFile, margin: float, level: float, seed: int, html: Path | None, name: str, *, as_json: bool
) -> int:
    from farthing.proxy.eval_text import as_json as plain_values
    from farthing.proxy.eval_text import terminal

    compared = _compared(found, margin, level, seed)
    if html is not None:
        from farthing.proxy.eval_page import page

        try:
            html.write_bytes(page(compared, f"{found.candidate} against {found.baseline}, {name}, judge {found.judge}"))
        except OSError as error:
            raise ConfigFault(f"can't write {html}: {error.strerror}") from None
    if as_json:
        typer.echo(json.dumps({"dataset": found.dataset, "judge": found.judge, **plain_values(compared)}, indent=2))
    else:
        Console(width=None if sys.stdout.isatty() else 120).print(terminal(compared))
    return 0 if compared.verdict.word == "not worse" else 1


def _compared(found: RunFile, margin: float, level: float, seed: int) -> Comparison:
    import numpy as np

    from farthing.policies.compare import compare as comparison

    try:
        return comparison(found.results, np.random.default_rng(seed), margin, level)
    except ValueError as error:
        raise ConfigFault(str(error)) from None


def _parts(splits: str) -> tuple[list[str], tuple[float, ...]]:
    """`train=60,test=40` as names and shares; '' is one part without a name."""
    if not splits.strip():
        return [""], (1.0,)
    names, shares = [], []
    for part in splits.split(","):
        name, _, share = part.partition("=")
        if not name.strip().isidentifier() or not share.strip().isdigit():
            raise ConfigFault("--splits looks like train=60,validation=20,test=20")
        names.append(name.strip())
        shares.append(int(share))
    if sum(shares) != 100 or len(set(names)) < len(names):
        raise ConfigFault(f"--splits: the shares must sum to 100 and names differ; these sum to {sum(shares)}")
    return names, tuple(share / 100 for share in shares)


def _sampled(source: Any, found: Any, files: list[Path]) -> dict[str, Any]:
    return {
        "read": source.whole,
        "distinct": len(source.cases),
        "left_out": dict(source.left_out),
        "broken_lines": source.broken.count,
        "copies_of_an_earlier_part": found.copies,
        "files": [
            {"file": str(path), "cases": len(part), **_by_source(part)}
            for path, part in zip(files, found.parts, strict=True)
        ],
    }


def _by_source(part: tuple[EvalCase, ...]) -> dict[str, int]:
    kinds = {"traffic": 0, "rating": 0, "generated": 0}
    for case in part:
        kinds[case.source.partition(":")[0]] += 1
    return kinds


def _print_sampled(told: dict[str, Any]) -> None:
    for one in told["files"]:
        typer.echo(
            f"{one['file']}: {one['cases']:,} cases ({one['traffic']:,} of traffic, {one['rating']:,} rated bad, "
            f"{one['generated']:,} traps)"
        )
    typer.echo(f"drawn from {told['read']:,} requests, {told['distinct']:,} of them different")
    for why, count in told["left_out"].items():
        typer.echo(f"left out: {count:,} {why}")
    if told["broken_lines"]:
        typer.echo(f"left out: {told['broken_lines']:,} broken lines")
    if told["copies_of_an_earlier_part"]:
        typer.echo(f"left out: {told['copies_of_an_earlier_part']:,} copies of what an earlier part holds")


def _say(broken: list[tuple[int, str]]) -> None:
    for line, why in broken[:10]:
        typer.echo(f"line {line}: {why}", err=True)
    if len(broken) > 10:
        typer.echo(f"and {len(broken) - 10:,} more lines that can't be used", err=True)


def _load(config: Path | None, state: Path | None) -> Config:
    from farthing.proxy.config import load, piped

    if config == Path("-") and state is not None:  # of a running farthing, for its child
        return piped(sys.stdin.buffer.read()).model_copy(update={"state_dir": state})
    return load(config, flags={"state_dir": state})
