"""`farthing reseal`: beside a running farthing, or in the state directory of a stopped one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from farthing.proxy.config import Config
    from farthing.proxy.reseal import Done, Tell
    from farthing.proxy.seal import Sealer

__all__ = ["add_to"]

_DEADLINE_MS = 10_000
_NAME_BYTES = 8


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: farthing reseal --json")(reseal)


def reseal(
    config: Annotated[Path | None, typer.Option("--config", help="Configuration file.")] = None,
    state: Annotated[Path | None, typer.Option("--state", help="State directory (default: .farthing).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For a machine to read.")] = False,
) -> None:
    """Seal all that is stored under the current key: what is under an old key, or in the open. It may be stopped and
    asked again. Status 1 where something is left that can't be opened."""
    import asyncio

    from farthing.proxy.clock import SystemRandomness
    from farthing.proxy.config import load
    from farthing.proxy.errors import ConfigFault, StoreFault
    from farthing.proxy.progress import Steps
    from farthing.proxy.reseal import asides, empty_pages
    from farthing.proxy.sealing import sealer

    loaded = load(config, flags={"state_dir": state})
    seal = sealer(loaded.store, SystemRandomness())
    if seal is None:
        raise ConfigFault("there is no key to seal with: set store.encryption_key")
    _same_keys(loaded, seal)
    try:
        with Steps(sys.stderr.isatty()) as steps:
            done = asyncio.run(_resealed(loaded, seal, steps.tell))
        emptied = empty_pages(loaded.state_dir)
    except StoreFault as fault:
        typer.echo(f"{fault}\nwhat is sealed anew stays so: ask again", err=True)
        raise typer.Exit(3) from None
    found = _found(done, seal) | {"aside": asides(loaded.state_dir), "emptied": emptied}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _show(found)
    if not found["done"]:
        raise typer.Exit(1)


def _same_keys(config: Config, seal: Sealer) -> None:
    """A farthing that runs here must open what is sealed now, and seal with the same key from now on. Raises
    ConfigFault."""
    from farthing.proxy.cli_cache import ask
    from farthing.proxy.errors import ConfigFault

    running = ask(config, "/farthing/api/cache/stats", {})
    if running is None:
        return
    ids = running.get("key_ids", [])
    if ids[:1] != list(seal.key_ids[:1]):
        under = f"seals under the key {ids[0]}" if ids else "seals nothing"
        raise ConfigFault(
            f"the farthing that runs here {under}, and the configuration has {seal.key_ids[0]}: restart it first"
        )


async def _resealed(config: Config, seal: Sealer, tell: Tell) -> dict[str, Done]:
    import asyncio

    from farthing.cache.store_redis import RedisStore
    from farthing.proxy.clock import SystemClock, SystemRandomness
    from farthing.proxy.reseal import Tally, reseal_files, until_done
    from farthing.proxy.reseal_redis import reseal_server

    url = config.store.url.get_secret_value()
    server = RedisStore(url, deadline_ms=_DEADLINE_MS, clock=SystemClock()) if url else None
    writer = SystemRandomness().token(_NAME_BYTES)

    async def one_pass() -> dict[str, Tally]:
        found = await asyncio.to_thread(reseal_files, config.state_dir, seal, tell)
        return found if server is None else found | await reseal_server(server, seal, writer, tell)

    try:
        return await until_done(one_pass)
    finally:
        if server is not None:
            await server.close()


def _found(done: dict[str, Done], seal: Sealer) -> dict[str, Any]:
    left: dict[str, int] = {}
    for one in done.values():
        for id, count in one.found.elsewhere.items():
            left[id] = left.get(id, 0) + count
    stores = {
        place: {
            "entries": one.found.entries,
            "resealed": one.resealed,
            "already": max(one.found.current - one.resealed, 0),
            "unreadable": one.found.elsewhere.total(),
            "damaged": one.found.damaged,
            "unfinished": one.found.resealed + one.found.missed,
        }
        for place, one in done.items()
    }
    finished = not left and not any(one["damaged"] or one["unfinished"] for one in stores.values())
    return {"key": seal.key_ids[0], "stores": stores, "left": left, "done": finished}


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2))
    for name in ("store", "entries", "sealed anew", "already", "unreadable", "damaged"):
        table.add_column(name, justify="left" if name == "store" else "right")
    for place, one in found["stores"].items():
        shown = (one[name] for name in ("entries", "resealed", "already", "unreadable", "damaged"))
        table.add_row(place, *(f"{count:,}" for count in shown))
    Console(width=None if sys.stdout.isatty() else 110).print(table)
    for id, count in found["left"].items():
        typer.echo(f"{count:,} under the key {id}, which is not here: name it in store.encryption_old_keys, ask again")
    stores = found["stores"].values()
    if damaged := sum(one["damaged"] for one in stores):
        typer.echo(f"{damaged:,} damaged, and left as they are: they are never served")
    if unfinished := sum(one["unfinished"] for one in stores):
        typer.echo(f"{unfinished:,} changed meanwhile: ask again")
    if found["aside"]:
        typer.echo(f"moved aside as damaged, and left as they are: {', '.join(found['aside'])}")
    if not found["emptied"]:
        typer.echo("answers.db keeps the pages of answers that were removed: they are emptied while no farthing runs")
    if found["done"]:
        typer.echo(f"no entry is left under another key than {found['key']}, nor in the open")
