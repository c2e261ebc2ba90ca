"""The command line. Thin: each command loads, calls, renders. Exit status: 0 done, 1 a check failed, 2 usage or
configuration, 3 could not reach what it needs."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from farthing.proxy import cli_archive, cli_erase, cli_reseal
from farthing.proxy.cli_capture import app as capture_app
from farthing.proxy.cli_distill import app as distill_app
from farthing.proxy.cli_eval import app as eval_app
from farthing.proxy.cli_experiment import app as experiment_app
from farthing.proxy.cli_keys import app as keys_app
from farthing.proxy.cli_policy import app as policy_app
from farthing.proxy.cli_tree import TwoWords, asked_for
from farthing.proxy.errors import ConfigFault

if TYPE_CHECKING:
    from farthing.proxy.config import Config

__all__ = ["main"]


app = typer.Typer(
    cls=TwoWords,
    help="The proxy that cuts an LLM bill and proves that the answers stayed good.",
    epilog="Example: farthing serve --upstream https://api.openai.com/v1",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
cache_app = typer.Typer(
    help="The answers that are kept.", epilog="Example: farthing cache purge --model gpt-4o-mini", no_args_is_help=True
)
prices_app = typer.Typer(
    help="The price table.", epilog="Example: farthing prices show gpt-4o-mini", no_args_is_help=True
)
ledger_app = typer.Typer(
    help="The record of every request.", epilog="Example: farthing ledger export -o rows.jsonl", no_args_is_help=True
)
app.add_typer(cache_app, name="cache")
cli_archive.add_to(cache_app)
app.add_typer(ledger_app, name="ledger")
app.add_typer(prices_app, name="prices")
app.add_typer(policy_app, name="policy")
app.add_typer(experiment_app, name="experiment")
app.add_typer(capture_app, name="capture")
app.add_typer(keys_app, name="keys")
app.add_typer(distill_app, name="distill")
app.add_typer(eval_app, name="eval")
app.command(epilog="Example: farthing erase --user u-1234")(cli_erase.erase)
cli_reseal.add_to(app)

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Configuration file (default: ./farthing.toml).")]
StateOption = Annotated[Path | None, typer.Option("--state", help="State directory (default: .farthing).")]
JsonOption = Annotated[bool, typer.Option("--json", help="For a machine to read.")]


def main() -> None:
    """The console script. Who reads what it prints may stop reading: then it ends as SIGPIPE would end it, and says
    nothing."""
    try:
        try:
            asked_for(app, sys.argv[1:])(standalone_mode=True)
        except ConfigFault as fault:
            Console(stderr=True).print(str(fault), style="red", markup=False, highlight=False)
            sys.exit(2)
        finally:
            sys.stdout.flush()
    except (SystemExit, BrokenPipeError) as ended:
        # typer and rich make an exit of it that would say that a check has failed
        if not isinstance(ended, BrokenPipeError) and not isinstance(ended.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what still waits to be written has no reader
        sys.exit(128 + 13)  # as shells tell of SIGPIPE


def _load(config: Path | None, **flags: Any) -> Config:
    from farthing.proxy.config import load

    return load(config, flags={name.replace("__", "."): value for name, value in flags.items()})


def _width() -> int | None:
    """Of tables: the terminal's, or what a page of plain text bears."""
    return None if sys.stdout.isatty() else 110


def _emit(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


@app.command(epilog="Example: farthing serve --upstream https://api.openai.com/v1 --port 8080")
def serve(
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Address to bind (default 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port (default 8080; 0: any free one).")] = None,
    upstream: Annotated[str | None, typer.Option(help="The provider's API base, as an SDK would have it.")] = None,
    state: StateOption = None,
    workers: Annotated[int | None, typer.Option(help="Processes that answer (default 1).")] = None,
) -> None:
    """Run the proxy."""
    from farthing.proxy.starting import begin, import_aiohttp

    begin(os.environ)
    from farthing.proxy.logs import set_up

    flags = {"server.host": host, "server.port": port, "server.workers": workers, "upstream.url": upstream}
    flags |= {"state_dir": None if state is None else str(state)}
    load = partial(_load, config, **flags)
    os.umask(0o077)  # answers and prompts lie in the state directory: they are the operator's alone
    loaded = load()
    set_up(loaded.log)
    if loaded.server.workers > 1:
        from farthing.proxy.supervise import supervise

        raise typer.Exit(supervise(load, config, flags, Console(stderr=True)))
    import_aiohttp(os.environ)
    from farthing.proxy.serve import serve as run

    raise typer.Exit(run(loaded, load, Console(stderr=True)))


@app.command(epilog="Example: farthing check --config farthing.toml")
def check(config: ConfigOption = None, state: StateOption = None) -> None:
    """Print the effective configuration with secrets masked; exit 2 where it is not valid."""
    from farthing.proxy.cli_check import checked

    _emit(checked(_load(config, state_dir=state), Console(stderr=True)))


@app.command(
    epilog="Example: farthing report --since 24h --by model\n\n"
    "Example: farthing report --since 30d --by day --format csv -o days.csv\n\n"
    "Example: farthing report --since 2026-11-01 --by tag:team,model\n\n"
    "Example: farthing report --since 30d -o report.html\n\n"
    "Example: farthing report --since 2026-01-01 --monthly --by policy --format csv",
)
def report(
    since: Annotated[str, typer.Option(help="How far back: 90m, 24h, 7d, 2w, or a date (2026-11-01).")] = "7d",
    by: Annotated[
        str,
        typer.Option(
            help="Group by model, model_served, tenant, endpoint, cache, compress, user, policy, experiment, arm, "
            "upstream, replica, status, outcome, tag:NAME, and one of hour, day, week; several with commas."
        ),
    ] = "",
    format: Annotated[
        str, typer.Option("--format", help="table, json, csv or html (default: by the file's ending, else table).")
    ] = "",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write it to a file.")] = None,
    monthly: Annotated[
        bool, typer.Option("--monthly", help="With --format csv: a line for each month, with what feedback said.")
    ] = False,
    ways: Annotated[
        str, typer.Option("--ways", help="What the trade-off tells apart: variant, model_served, policy or cache.")
    ] = "model_served",
    run: Annotated[
        list[Path] | None, typer.Option("--run", help="A file of `farthing eval run`, for the trade-off; several.")
    ] = None,
    config: ConfigOption = None,
    state: StateOption = None,
) -> None:
    """What was spent and saved by what, against the time before, and what the month will have cost."""
    from farthing.proxy.cli_report import Wanted
    from farthing.proxy.cli_report import report as tell

    wanted = Wanted(since, by, format, output, monthly, ways, tuple(run or ()))
    tell(_load(config, state_dir=state).state_dir, wanted, Console(width=_width()))


@app.command(epilog="Example: farthing demo --requests 200")
def demo(
    requests: Annotated[int, typer.Option(help="How many requests to replay.")] = 200,
    seed: Annotated[int, typer.Option(help="Which sample of the questions.")] = 1,
    once: Annotated[bool, typer.Option("--once", help="End after the report instead of serving on.")] = False,
    simulated: Annotated[bool, typer.Option("--simulated", help="Don't look for the small model.")] = False,
    state: StateOption = None,
    port: Annotated[int, typer.Option(help="The proxy's port (0: any free one).")] = 0,
    evals: Annotated[
        bool, typer.Option("--evals", help="How policies prove themselves, in a simulated world.")
    ] = False,
) -> None:
    """A real small model, the proxy before it, a real workload, and what was saved. No key, no internet."""
    if evals:
        from farthing.proxy.demo_evals import run as play

        raise typer.Exit(play(once=once, seed=seed, state=state))
    from farthing.proxy.demo import run

    raise typer.Exit(run(requests=requests, seed=seed, once=once, simulated=simulated, state=state, port=port))


Reach = Literal["tidy", "recode", "squeeze"]


@app.command(epilog="Example: farthing compress request.json --model gpt-4o-mini --diff")
def compress(
    file: Annotated[str, typer.Argument(help="A request's JSON body, a tool result, or - for standard input.")],
    model: Annotated[str, typer.Option(help="Whose tokenizer counts.")] = "gpt-4o-mini",
    diff: Annotated[bool, typer.Option("--diff", help="Show what changed side by side.")] = False,
    up_to: Annotated[Reach, typer.Option("--up-to", help="How far it may go.")] = "recode",
    keep: Annotated[float, typer.Option(help="With --up-to squeeze: the share of its tokens that a text keeps.")] = 0.5,
    question: Annotated[str, typer.Option(help="What is asked about a file that is no request.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the compressor would do to a request: before and after, with token counts and the rules that did it."""
    from farthing.compress.forms import Form
    from farthing.compress.view import inspect
    from farthing.proxy.build_compress import marks_of, rules_of
    from farthing.proxy.tokens import Tokenizer

    if not 0 < keep < 1:
        raise ConfigFault("--keep is a share between 0 and 1")
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigFault(f"can't read {file}: {error}") from None
    chosen = _load(config).compress
    form = None if up_to == "tidy" else Form(up_to, rules_of(chosen), keep if up_to == "squeeze" else None)
    view = inspect(text, model, Tokenizer().count, form, question, marks_of(chosen))
    if as_json:
        _emit(view.to_json())
    else:
        Console().print(view.render(diff=diff))


@app.command("compress advise", epilog="Example: farthing compress advise requests.jsonl --upstream URL --model M")
def compress_advise(
    file: Annotated[str, typer.Argument(help="Requests: JSON lines, an array or a single one; - for standard input.")],
    upstream: Annotated[str, typer.Option(help="A model server to try drafts on; without it nothing is tried.")] = "",
    model: Annotated[str, typer.Option(help="Asked, counted and priced for (default: each request's own).")] = "",
    drafter: Annotated[Literal["rules", "model"], typer.Option(help="Who writes the shorter version.")] = "rules",
    cases: Annotated[int, typer.Option(min=1, help="Requests that each draft is tried on, at most.")] = 250,
    noise: Annotated[float, typer.Option(min=0, max=1, help="Share of them asked twice as they are.")] = 0.5,
    max_worse: Annotated[float, typer.Option(min=0.0001, max=0.5, help="Answers that may differ.")] = 0.02,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999)] = 0.95,
    judge: Annotated[str, typer.Option(help="A model upstream that says whether a differing answer is as good.")] = "",
    max_usd: Annotated[
        float | None, typer.Option(min=0, help="What may be spent (default 1, if prices are known).")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many parts are drafted, the dearest first.")] = 3,
    at_once: Annotated[int, typer.Option(min=1, help="Calls at a time.")] = 4,
    seed: Annotated[int, typer.Option(help="Which sample of the requests.")] = 1,
    key_env: Annotated[str, typer.Option(help="The variable with the upstream's key.")] = "OPENAI_API_KEY",
    diff: Annotated[bool, typer.Option("--diff", help="Show every change.")] = False,
    out: Annotated[Path | None, typer.Option(help="Save drafts and figures there, as JSON.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which prompts of an app cost most, a shorter draft of each, and whether its answers stay as good."""
    from farthing.proxy.cli_advise import Wanted, run

    wanted = Wanted(
        model, upstream, drafter, cases, noise, max_worse, confidence, judge, max_usd, top, at_once, seed, key_env, diff
    )
    loaded = _load(config, upstream__url=upstream or None)
    raise typer.Exit(run(loaded, file, wanted, out, _emit if as_json else None, Console(width=_width())))


@app.command(epilog="Example: farthing replay trace.jsonl --sweep semantic.threshold=0.85:0.99:0.02 --html sweep.html")
def replay(
    trace: Annotated[Path, typer.Argument(help="farthing's captures or ledger, or logs of others; .gz too.")],
    config: ConfigOption = None,
    sweep: Annotated[list[str] | None, typer.Option(help="KEY=from:to:step or KEY=a,b,c; several make a grid.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE over the configuration.")] = None,
    by: Annotated[str, typer.Option(help="Group by model, endpoint, tenant, user or tag:NAME.")] = "",
    format: Annotated[str, typer.Option("--format", help="Of the trace, where it isn't told by its fields.")] = "",
    prices_at: Annotated[Literal["request", "now"], typer.Option(help="Whose prices hold.")] = "request",
    compress: Annotated[bool, typer.Option("--compress", help="Count what recode and squeeze would cut.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with figures and plot.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the plot (extra `plot`).")] = None,
    plot: Annotated[Path | None, typer.Option(help="Either, by the file's ending.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where Ctrl-C stopped it.")] = False,
    processes: Annotated[int, typer.Option(min=0, help="That read the trace; 0: one for each processor.")] = 0,
    seed: Annotated[int, typer.Option(help="Of variants and audits.")] = 1,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999)] = 0.95,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a configuration would have saved on recorded traffic, and how often been wrong. Calls nobody."""
    from farthing.proxy.cli_replay import Wanted
    from farthing.proxy.cli_replay import replay as run

    plots = [path for path in (html, png, plot) if path is not None]
    wanted = Wanted(
        sweep or (), set_ or (), by, format, prices_at, compress, plots, resume, processes, seed, confidence
    )
    loaded = _load(config, state_dir=state)
    width = None if sys.stdout.isatty() else 110 + 20 * len(wanted.sweeps)
    raise typer.Exit(run(loaded, trace, wanted, _emit if as_json else None, Console(width=width)))


@app.command(epilog="Example: farthing gate suite.yaml --config candidate.toml --junit gate.xml")
def gate(
    suite: Annotated[Path, typer.Argument(help="YAML: a dataset, and rules that a candidate must meet.")],
    config: Annotated[Path | None, typer.Option("--config", help="The candidate (default: the suite's).")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Keep the results, for `eval compare`.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the verdicts as JUnit XML.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page.")] = None,
    key_env: Annotated[str, typer.Option(help="The environment variable with the upstream's key.")] = "OPENAI_API_KEY",
    at_once: Annotated[int, typer.Option(min=1, help="Cases under way.")] = 4,
    max_usd: Annotated[float, typer.Option(min=0, help="What each arm may spend, and a model judge on each.")] = 5.0,
    run_code: Annotated[bool, typer.Option("--run-code", help="Judges may run code out of answers here.")] = False,
    learnt: Annotated[Path | None, typer.Option(help="A state directory whose evidence the candidate has.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn by chance.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """May a candidate ship? Exit status 0: every rule is shown to be met; 1: one is broken, or not decided."""
    from farthing.proxy.cli_gate import gate as run

    raise typer.Exit(
        run(
            suite, config, out, junit, html, key_env, at_once, max_usd, learnt, seed, run_code=run_code, as_json=as_json
        )
    )


@cache_app.command("stats", epilog="Example: farthing cache stats --json")
def cache_stats(config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """What the store holds."""
    from farthing.proxy.cli_cache import stats, table

    found = stats(_load(config, state_dir=state))
    if as_json:
        _emit(found)
    else:
        Console().print(table(found))


@cache_app.command("purge", epilog="Example: farthing cache purge --source kb-17")
def cache_purge(
    config: ConfigOption = None,
    state: StateOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every stored answer.")] = False,
    key: Annotated[str | None, typer.Option(help="The answer with this key (the ledger's key_hash).")] = None,
    model: Annotated[str | None, typer.Option(help="Answers asked of, or given by, this model.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Answers to requests with this tag, as doc=kb-17.")] = None,
    source: Annotated[str | None, typer.Option(help="Answers made from this document: --tag source=ID.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Answers stored before: 90m, 7d, or a date.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Answers of this tenant (the ledger's tenant).")] = None,
    scope: Annotated[str | None, typer.Option(help="Answers to requests with this x-farthing-scope.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove stored answers, from a running farthing or from its state. Of several conditions all must be met."""
    from farthing.proxy.cli_cache import purge

    named = {"key": key, "model": model, "tags": tag or None, "source": source, "older_than": older_than}
    named |= {"tenant": tenant, "scope": scope}
    asked = {name: value for name, value in named.items() if value is not None}
    if everything == bool(asked):
        raise ConfigFault(
            "say what to purge: --all, or any of --key, --model, --tag, --source, --older-than, --tenant and --scope"
        )
    found = purge(_load(config, state_dir=state), asked)
    if as_json:
        _emit(found)
        return
    count = found["purged"]
    near = f" ({found['near_duplicates']:,} known to the semantic cache)" if found["near_duplicates"] else ""
    typer.echo(f"{count:,} stored {'answer' if count == 1 else 'answers'} removed{near}")


@cache_app.command("explain", epilog="Example: farthing cache explain request.json")
def cache_explain(
    file: Annotated[str, typer.Argument(help="A request's JSON body, or {body, path, headers}; - for stdin.")],
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Why a request would, or wouldn't, be answered by a near-duplicate; asks the running farthing."""
    from farthing.proxy.cli_semantic import explain, explained

    found = explain(_load(config, state_dir=state), file)
    if as_json:
        _emit(found)
    else:
        Console().print(*explained(found), sep="\n")


@cache_app.command("calibrate", epilog="Example: farthing cache calibrate trace.jsonl --max-wrong 0.02")
def cache_calibrate(
    trace: Annotated[
        Path, typer.Argument(help="JSON lines: messages, and class or answer; tenant and model if known.")
    ],
    max_wrong: Annotated[float, typer.Option(min=0.0001, max=0.5, help="Wrong answers per served hit.")] = 0.01,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999)] = 0.95,
    as_json: JsonOption = False,
) -> None:
    """The lowest safe score on recorded traffic, and how sure that is; exit 1 where none is proved safe."""
    from farthing.proxy.cli_semantic import calibrated

    raise typer.Exit(calibrated(trace, max_wrong, confidence, _emit if as_json else None, Console()))


@prices_app.command("show", epilog="Example: farthing prices show gpt-4o-mini")
def prices_show(
    model: str, config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False
) -> None:
    """A model's price rows, of every date and tier, and where they come from; exit 1 where there is no price."""
    from farthing.proxy.cli_prices import show

    loaded = _load(config, state_dir=state)
    raise typer.Exit(show(loaded, model, _emit if as_json else None, Console(width=_width())))


@prices_app.command("check", epilog="Example: farthing prices check gpt-5.6")
def prices_check(
    model: Annotated[str | None, typer.Argument(help="This model alone.")] = None,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which models in the ledger have no price, and which of their tiers and tokens; exit 1 where there are any."""
    from farthing.proxy.cli_prices import check as run

    raise typer.Exit(run(_load(config, state_dir=state), Console(width=_width()), _emit if as_json else None, model))


@prices_app.command("recompute", epilog="Example: farthing prices recompute --since 2026-01-01")
def prices_recompute(
    since: Annotated[str, typer.Option(help="7d, 24h, or a date.")] = "30d",
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Price the ledger's rows again, each at the rates of its day; exit 1 where one comes to another amount."""
    from farthing.proxy.cli_prices import recomputed

    loaded = _load(config, state_dir=state)
    raise typer.Exit(recomputed(loaded, since, _emit if as_json else None, Console(width=_width())))


@ledger_app.command("export", epilog="Example: farthing ledger export --format parquet --since 30d -o rows.parquet")
def ledger_export(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file; without it, standard output.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="jsonl, csv or parquet.")] = "jsonl",
    since: Annotated[str, typer.Option(help="From: 90m, 24h, 7d, or a date; without it, from the first row.")] = "",
    until: Annotated[str, typer.Option(help="Up to: the same; without it, to the last row.")] = "",
    config: ConfigOption = None,
    state: StateOption = None,
) -> None:
    """The rows as a file, oldest first. Amounts are whole pico-dollars (1e-12 dollar)."""
    from farthing.proxy.cli_ledger import export

    loaded = _load(config, state_dir=state)
    raise typer.Exit(export(loaded, form, since, until, output, Console(stderr=True)))


@ledger_app.command("check", epilog="Example: farthing ledger check")
def ledger_check(config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Whether every row's savings add up, and roll-ups are the sums of their rows; exit 1 where not."""
    from farthing.proxy.cli_ledger import check as run

    raise typer.Exit(run(_load(config, state_dir=state), _emit if as_json else None, Console()))


@ledger_app.command("salvage", epilog="Example: farthing ledger salvage .farthing/ledger.corrupt-1800000000000.db")
def ledger_salvage(
    file: Annotated[Path, typer.Argument(help="A damaged ledger, which is only read.")],
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add the readable rows of a damaged ledger to the present one, which may be in use."""
    from farthing.proxy.cli_ledger import salvage

    raise typer.Exit(salvage(_load(config, state_dir=state), file, _emit if as_json else None, Console()))


@app.command(epilog="Example: farthing version")
def version() -> None:
    """Which version this is."""
    from farthing.proxy.version import version as current

    typer.echo(f"farthing {current()}")


if __name__ == "__main__":
    main()
