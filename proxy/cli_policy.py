"""`farthing policy ...`: what answers, what is being rolled out, and how to take it back. Thin.

Exit status: 0 done, 1 a gate blocked it or there was nothing to do, 2 usage or a policy that is not valid, 3 no
farthing runs on that state directory.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from farthing.proxy.config import Config
    from farthing.proxy.versions import Book, Stored

__all__ = ["app"]

app = typer.Typer(
    help="What answers requests: versions, roll-outs, rollback, and the emergency switch.",
    epilog="Example: farthing policy promote candidate.toml",
    no_args_is_help=True,
)
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Configuration file (default: ./farthing.toml).")]
StateOption = Annotated[Path | None, typer.Option("--state", help="State directory (default: .farthing).")]
JsonOption = Annotated[bool, typer.Option("--json", help="For a machine to read.")]
_NOTHING_TO_DO = (
    "active_already",
    "nothing_before",
    "rollout_under_way",
    "experiment_under_way",
    "gate",
    "needs_ledger",
)


@app.command("list", epilog="Example: farthing policy list")
def list_versions(config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Every version, the active one, the roll-out under way with what its guard has seen, and the latest changes."""
    from farthing.proxy.cli_cache import ask
    from farthing.proxy.policy_admin import stored

    loaded = _load(config, state)
    found = ask(loaded, "/farthing/api/policy", None)
    if found is None:
        book = _book(loaded)
        found = stored(book, book.standing()) | {"running": False, "switched_off": (loaded.state_dir / "OFF").exists()}
    _show(found, as_json)


@app.command(epilog="Example: farthing policy show p-3f9c01ab77de")
def show(
    version: Annotated[str, typer.Argument(help="Its name, or how that begins; active, file, candidate.")] = "active",
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """A version's settings, all that are in force; those it was given stand out."""
    from dataclasses import asdict

    from farthing.proxy.cli_policy_table import settings

    found = _version(_book(_load(config, state)), version)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        _console().print(settings(found))


@app.command(epilog="Example: farthing policy diff candidate.toml")
def diff(
    after: Annotated[str, typer.Argument(help="A version (active, file, candidate, p-...), or a file.")],
    before: Annotated[str, typer.Argument(help="What it is compared with.")] = "active",
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """What differs between two policies; exit 1 where something does."""

    from farthing.policies.version import differences
    from farthing.proxy.cli_policy_table import changes

    loaded = _load(config, state)
    book = _book(loaded)
    (old, old_name), (new, new_name) = _sections(loaded, book, before), _sections(loaded, book, after)
    found = differences(old, new)
    if as_json:
        told = [{"path": one.path, "before": one.before, "after": one.after} for one in found]
        typer.echo(json.dumps({"before": old_name, "after": new_name, "changes": told}, indent=2))
    else:
        _console().print(changes(old_name, new_name, found))
    raise typer.Exit(1 if found else 0)


@app.command(epilog="Example: farthing policy promote candidate.toml --steps 0.05,0.5,1 --note 'semantic cache serves'")
def promote(
    policy: Annotated[str, typer.Argument(help="A file, of which the policy's sections are taken, or a version.")],
    now: Annotated[bool, typer.Option("--now", help="All traffic at once; finishes a roll-out under way.")] = False,
    steps: Annotated[str, typer.Option(help="Shares of traffic, as 0.01,0.1,0.5,1 (default: rollout.steps).")] = "",
    hold_s: Annotated[float | None, typer.Option("--hold", min=0, help="Seconds that each step lasts.")] = None,
    unit: Annotated[str, typer.Option(help="What never changes sides: request, user, tenant, session.")] = "",
    gate: Annotated[str, typer.Option(help="A suite that must pass first.")] = "",
    note: Annotated[str, typer.Option(help="Why; it is kept with the version.")] = "",
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let another policy answer: in steps under a guard, or at once. Exit 1 where a gate blocks it."""
    asked: dict[str, Any] = {"now": now, "note": note}
    if policy.endswith(".toml") or Path(policy).is_file():
        asked["sections"], aside = _file(Path(policy))
        if aside and not as_json:
            typer.echo(f"left aside, no part of a policy: {', '.join(aside)}", err=True)
    else:
        asked["version"] = policy
    asked |= {"steps": _shares(steps)} if steps else {}
    more = {"hold_s": hold_s, "unit": unit, "gate": str(Path(gate).resolve()) if gate else ""}
    asked |= {name: value for name, value in more.items() if value not in (None, "")}
    _show(_change(_load(config, state), "promote", asked), as_json)


@app.command(epilog="Example: farthing policy rollback --why 'answers got shorter'")
def rollback(
    version: Annotated[str, typer.Argument(help="To this one (default: end the roll-out, else the one before).")] = "",
    why: Annotated[str, typer.Option(help="Why; it goes into the log.")] = "",
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the candidate back, or return to the version before. In force at once; no request is dropped."""
    _show(_change(_load(config, state), "rollback", {"version": version, "why": why}), as_json)


@app.command(epilog="Example: farthing policy off")
def off(config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Turn all optimisation off at once: requests pass through unchanged. Takes effect within a second."""
    _switch(_load(config, state), as_json, off=True)


@app.command(epilog="Example: farthing policy on")
def on(config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Let the configured optimisation work again."""
    _switch(_load(config, state), as_json, off=False)


def _switch(config: Config, as_json: bool, *, off: bool) -> None:
    from farthing.proxy.clock import SystemClock
    from farthing.proxy.state import Switch

    switch = Switch(config.state_dir, SystemClock())
    try:
        switch.set(off=off)
    except OSError as error:
        way = f"POST /farthing/api/policy/{'off' if off else 'on'}"
        typer.echo(f"can't write {switch.path}: {error.strerror}; tell the running farthing itself: {way}", err=True)
        raise typer.Exit(3) from None
    if as_json:
        typer.echo(json.dumps({"switched_off": off}))
        return
    said = f"off: requests pass through unchanged ({switch.path})" if off else "on, as configured"
    typer.echo(f"optimisation is {said}")


def _load(config: Path | None, state: Path | None) -> Config:
    from farthing.proxy.config import load

    return load(config, flags={"state_dir": state})


def _book(config: Config) -> Book:
    from farthing.proxy.versions import Book

    return Book(config.state_dir / "policies")


def _show(found: dict[str, Any], as_json: bool) -> None:

    from farthing.proxy.cli_policy_table import status
    from farthing.proxy.clock import SystemClock

    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _console().print(status(found, SystemClock().now_s()))


def _change(config: Config, what: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The running farthing's answer; ends the command where there is none, or it refuses."""
    from farthing.proxy.cli_cache import Refused, ask
    from farthing.proxy.errors import ConfigFault

    try:
        found = ask(config, f"/farthing/api/policy/{what}", asked)
    except Refused as fault:
        typer.echo(fault.message, err=True)
        raise typer.Exit(1 if fault.code in _NOTHING_TO_DO else 2) from None
    except ConfigFault as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(3) from None
    if found is None:
        typer.echo(f"no farthing runs on {config.state_dir}: policies change in a running one", err=True)
        raise typer.Exit(3)
    return found


def _version(book: Book, name: str) -> Stored:
    """The version that is meant. Raises ConfigFault."""
    from farthing.proxy.errors import ConfigFault

    standing = book.standing()
    if standing is not None and name in ("active", "file", "candidate"):
        rollout = standing.rollout or {}
        name = {"active": standing.active, "file": standing.file, "candidate": rollout.get("version", "")}[name]
        if not name:
            raise ConfigFault("no policy is being rolled out")
    named = book.named(name)
    found = book.find(named[0]) if len(named) == 1 else None
    if found is None:
        several = f": {', '.join(named)}" if named else "; see farthing policy list"
        raise ConfigFault(f"there is no one policy version {name!r}{several}")
    return found


def _sections(config: Config, book: Book, name: str) -> tuple[dict[str, Any], str]:
    """The settings of a version, or of a file, and what to call them."""
    from farthing.proxy.student_pins import pinned
    from farthing.proxy.versions import policy_version, sections_of, with_sections

    if name.endswith(".toml") or Path(name).is_file():
        made = pinned(with_sections(config, _file(Path(name))[0]))
        return sections_of(made), f"{name} ({policy_version(made)})"
    found = _version(book, name)
    return found.sections, found.version


def _file(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The policy's sections in a file, and what else stands there. Raises ConfigFault."""
    from farthing.policies.version import SECTIONS
    from farthing.proxy.config import read_toml

    table = read_toml(path)
    return {name: table[name] for name in table if name in SECTIONS}, [name for name in table if name not in SECTIONS]


def _shares(text: str) -> list[float]:
    """Steps as they are written, in shares or per cent. Raises ConfigFault."""
    from farthing.proxy.errors import ConfigFault

    try:
        return [float(one[:-1]) / 100 if one.endswith("%") else float(one) for one in text.replace(" ", "").split(",")]
    except ValueError:
        raise ConfigFault(f"--steps: {text[:60]!r} are no shares; write 0.01,0.1,0.5,1 or 1%,10%,50%,100%") from None


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 110)
