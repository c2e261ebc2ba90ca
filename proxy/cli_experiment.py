"""`farthing experiment ...`: what is being tried, what came of it, and how to stop it. Thin.

Exit status: 0 done, 1 no such experiment, 2 usage, 3 no farthing runs on that state directory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from farthing.proxy.config import Config

__all__ = ["app"]

app = typer.Typer(
    help="Experiments and hold-outs: what each arm did, and how sure that is.",
    epilog="Example: farthing experiment list",
    no_args_is_help=True,
)
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Configuration file (default: ./farthing.toml).")]
StateOption = Annotated[Path | None, typer.Option("--state", help="State directory (default: .farthing).")]
JsonOption = Annotated[bool, typer.Option("--json", help="For a machine to read.")]


@app.command("list", epilog="Example: farthing experiment list")
def list_experiments(config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Every experiment and hold-out, the newest first, with what may be said of it."""
    from rich.console import Console

    from farthing.proxy.cli_experiment_table import overview

    found = _told(_load(config, state))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        Console().print(overview(found))


@app.command(epilog="Example: farthing experiment show shorter-prompts --html effect.html")
def show(
    name: Annotated[str, typer.Argument(help="Its name (the latest of that name), or its id.")],
    html: Annotated[Path | None, typer.Option(help="Write a page with the effect over time.")] = None,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """One experiment: each arm's metrics with their intervals, guardrails, slices, and its decision."""
    from farthing.proxy.experiment_book import Record
    from farthing.proxy.experiment_page import page
    from farthing.proxy.experiment_text import record_text

    found = _told(_load(config, state))["experiments"]
    one = next((each for each in found if name in (each["name"], each["id"])), None)
    if one is None:
        typer.echo(f"there is no experiment {name!r}; see farthing experiment list", err=True)
        raise typer.Exit(1)
    record = Record.read({key: value for key, value in one.items() if key != "headline"})
    if html is not None:
        html.write_bytes(page(record))
    typer.echo(json.dumps(one, indent=2) if as_json else record_text(record), nl=as_json)


@app.command(epilog="Example: farthing experiment power --config farthing.toml")
def power(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Before the start: how many units of each arm it will take, by what each declaration expects."""
    from farthing.proxy.experiment_reading import power as needed_by

    found = {one.name: needed_by(one) for one in _load(config, None).experiments}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for name, needed in found.items():
        if needed is None:
            typer.echo(f"{name}: unknown: declare least_effect and baseline, and deviation where it isn't a proportion")
        elif needed["units_per_arm"] is None:
            typer.echo(f"{name}: no number of units would show a difference of {needed['least_effect']:g}")
        else:
            told = f"a difference of {needed['least_effect']:g} is shown four times in five"
            typer.echo(f"{name}: about {needed['units_per_arm']:,} units in each arm, then {told}")
    if not found:
        typer.echo("no [[experiments]] are declared")


@app.command(epilog="Example: farthing experiment stop shorter-prompts --why 'the prompt changed'")
def stop(
    name: Annotated[str, typer.Argument(help="Its name.")],
    why: Annotated[str, typer.Option(help="Why; it is kept with the record.")] = "",
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """End an experiment: its requests go the way of all others from now on. It is not begun again."""
    from farthing.proxy.cli_cache import Refused, ask
    from farthing.proxy.errors import ConfigFault

    loaded = _load(config, state)
    try:
        found = ask(loaded, "/farthing/api/experiments/stop", {"name": name, "why": why})
    except Refused as fault:
        typer.echo(fault.message, err=True)
        raise typer.Exit(1 if fault.code == "unknown_experiment" else 2) from None
    except ConfigFault as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(3) from None
    if found is None:
        typer.echo(f"no farthing runs on {loaded.state_dir}: an experiment runs in a running one", err=True)
        raise typer.Exit(3)
    typer.echo(json.dumps(found, indent=2) if as_json else f"{found['name']} ({found['id']}): {found['headline']}")


def _load(config: Path | None, state: Path | None) -> Config:
    from farthing.proxy.config import load

    return load(config, flags={"state_dir": state})


def _told(config: Config) -> dict[str, Any]:
    """What the running farthing says, or what its records do where none runs."""
    from farthing.proxy.cli_cache import ask
    from farthing.proxy.experiment_admin import listed
    from farthing.proxy.experiment_book import Records

    found = ask(config, "/farthing/api/experiments", None)
    return found if found is not None else listed(Records(config.state_dir / "experiments").all(), {})
