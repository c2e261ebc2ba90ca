"""`farthing capture ...`: through a running farthing where one listens, else on its file directly."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from farthing.proxy.config import Config

__all__ = ["app"]

app = typer.Typer(
    help="Whole requests and answers, kept for evaluation and replay.",
    epilog="Example: farthing capture status",
    no_args_is_help=True,
)
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Configuration file (default: ./farthing.toml).")]
StateOption = Annotated[Path | None, typer.Option("--state", help="State directory (default: .farthing).")]
JsonOption = Annotated[bool, typer.Option("--json", help="For a machine to read.")]


@app.command(epilog="Example: farthing capture status --json")
def status(config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Whether requests are captured, what is kept and since when."""
    loaded = _load(config, state)
    found = _status(loaded)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"capture is {loaded.capture.shown}" + ("" if found.get("healthy", True) else " (failing)"))
    typer.echo(f"kept: {_count(found['rows'], 'request')}, {found['bytes']:,} bytes, {_span(found)}")
    typer.echo(f"leaves after {loaded.capture.keep_days:g} days, or beyond {loaded.capture.max_bytes:,} bytes")
    if found.get("dropped"):
        typer.echo(f"dropped since the start: {found['dropped']:,}")
    for kind, count in sorted(found.get("redactions", {}).items()):
        typer.echo(f"redacted since the start: {count:,} {kind}")
    if found["damaged_files"]:
        typer.echo(f"{_count(found['damaged_files'], 'damaged file')} may hold text too: farthing capture purge")


@app.command(epilog="Example: farthing capture export trace.jsonl --since 7d")
def export(
    file: Annotated[str, typer.Argument(help="Where to; - for standard output. Readable by its owner only.")] = "-",
    output: Annotated[str, typer.Option("--output", "-o", help="The same, as `farthing ledger export` has it.")] = "",
    since: Annotated[str, typer.Option(help="How far back: 90m, 24h, 7d, or a date (default: all that is kept).")] = "",
    config: ConfigOption = None,
    state: StateOption = None,
) -> None:
    """What is kept, as JSON lines that `farthing replay` reads."""
    from farthing.proxy import capture_file
    from farthing.proxy.clock import SystemClock, SystemRandomness
    from farthing.proxy.errors import ConfigFault
    from farthing.proxy.figures import farthing_since
    from farthing.proxy.sealing import sealer

    if output and file not in ("-", output):
        raise ConfigFault(f"two files are named, {file} and {output}: where to?")
    file = output or file
    loaded = _load(config, state)
    now_s, seal = SystemClock().now_s(), sealer(loaded.store, SystemRandomness())
    since_s = now_s - loaded.capture.keep_days * 86_400
    if since:
        try:
            since_s = max(since_s, farthing_since(since, now_s))
        except ValueError as error:
            raise ConfigFault(f"--since: {error}") from None
    path = _path(loaded)
    if not path.exists():
        typer.echo(f"nothing has been captured in {loaded.state_dir}", err=True)
        raise typer.Exit(3)
    _status(loaded)  # a running one writes what it still holds
    count = 0
    try:
        found = capture_file.lines(path, since_s, seal)
        first = [*islice(found, 1)]  # whether it can be opened, before the target is emptied
        with closing(os.fdopen(_target(file), "wb", closefd=file != "-")) as out:
            for text in chain(first, found):
                out.write(text + b"\n")
                count += 1
    except (sqlite3.Error, OSError, capture_file.Unopened) as error:
        typer.echo(f"stopped after {_count(count, 'request')}: {error}", err=True)
        raise typer.Exit(3) from None
    typer.echo(f"{_count(count, 'request')} exported", err=True)


@app.command(epilog="Example: farthing capture erase --user u-1234")
def erase(
    user: Annotated[str | None, typer.Option(help="All requests of this user.")] = None,
    tenant: Annotated[str | None, typer.Option(help="All requests of this tenant (the ledger's tenant).")] = None,
    older_than: Annotated[str | None, typer.Option(help="Requests from before: 90m, 7d, or a date.")] = None,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove requests for good. Of several conditions all must be met."""
    named = {"user": user, "tenant": tenant, "older_than": older_than}
    _erase(_load(config, state), {name: value for name, value in named.items() if value is not None}, as_json)


@app.command(epilog="Example: farthing capture purge")
def purge(config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Remove everything that was captured."""
    _erase(_load(config, state), {"all": True}, as_json)


def _load(config: Path | None, state: Path | None) -> Config:
    from farthing.proxy.config import load

    return load(config, flags={"state_dir": state})


def _path(config: Config) -> Path:
    from farthing.proxy.capture_admin import FILE

    return config.state_dir / FILE


def _status(config: Config) -> dict[str, Any]:
    from farthing.proxy import capture_file
    from farthing.proxy.cli_cache import ask
    from farthing.proxy.errors import ConfigFault

    running = ask(config, "/farthing/api/capture", None)
    if running is not None:
        return running
    path = _path(config)
    try:
        kept = capture_file.stats(path)
    except sqlite3.Error as error:
        raise ConfigFault(f"{path} can't be read: {error}") from None
    damaged = len(capture_file.asides(path))
    return {"enabled": config.capture.enabled, **kept._asdict(), "damaged_files": damaged}


def _erase(config: Config, asked: dict[str, Any], as_json: bool) -> None:
    from farthing.proxy import capture_file
    from farthing.proxy.capture_admin import selection_of
    from farthing.proxy.cli_cache import ask
    from farthing.proxy.clock import SystemClock
    from farthing.proxy.errors import ClientFault, ConfigFault

    try:
        what = selection_of(asked, SystemClock().now_s())
    except ClientFault as fault:
        raise ConfigFault(fault.message) from None
    found = ask(config, "/farthing/api/capture/erase", asked)
    if found is None:
        path = _path(config)
        try:
            rows = 0
            if path.exists():
                conn, _ = capture_file.connect_anew(path, SystemClock().now_s())
                with closing(conn):
                    rows = capture_file.erase(conn, what)
            found = {"erased": rows, "damaged_files": capture_file.remove_asides(path)}
        except (sqlite3.Error, OSError) as error:
            typer.echo(f"not everything could be erased: {error}", err=True)
            raise typer.Exit(3) from None
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    more = f", {_count(found['damaged_files'], 'damaged file')} removed" if found["damaged_files"] else ""
    typer.echo(f"{_count(found['erased'], 'request')} erased{more}")


def _count(number: int, word: str) -> str:
    return f"{number:,} {word if number == 1 else word + 's'}"


def _target(file: str) -> int:
    if file == "-":
        sys.stdout.flush()
        return sys.stdout.fileno()
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(handle, 0o600)
    return handle


def _span(found: dict[str, Any]) -> str:
    if found["oldest_s"] is None:
        return "none yet"
    oldest, newest = (
        datetime.fromtimestamp(found[name], UTC).isoformat(" ", "minutes") for name in ("oldest_s", "newest_s")
    )
    return f"{oldest} to {newest}"
