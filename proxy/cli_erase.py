"""`farthing erase`: forget a user, in a running farthing or in the state directory of a stopped one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from farthing.proxy.config import Config

__all__ = ["erase"]

_CALL = "/farthing/api/erase"


def erase(
    user: Annotated[str, typer.Option(help="Whom to forget: as `x-farthing-user` or the body named them.")],
    texts: Annotated[
        bool, typer.Option("--texts", help="What compression keeps goes too, of all of the user's tenants.")
    ] = False,
    config: Annotated[Path | None, typer.Option("--config", help="Configuration file.")] = None,
    state: Annotated[Path | None, typer.Option("--state", help="State directory (default: .farthing).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For a machine to read.")] = False,
) -> None:
    """Remove a user's words from every place that can tell them, and look again. Status 1 where something is left."""
    from farthing.proxy.cli_cache import ask
    from farthing.proxy.config import load

    loaded = load(config, flags={"state_dir": state})
    asked: dict[str, Any] = {"user": user} | ({"texts": True} if texts else {})
    found = ask(loaded, _CALL, asked)
    if found is None:
        found = _alone(loaded, asked)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        for name, count in found["erased"].items():
            typer.echo(f"{name.replace('_', ' '):24} {count:,}")
        left = ", ".join(f"{count:,} {name}" for name, count in found["left"].items() if count)
        typer.echo(f"left: {left}; ask again later" if left else "a second look finds nothing")
        if found.get("elsewhere"):
            typer.echo(f"ask each replica that shares this store: {', '.join(found['elsewhere'])} are its own")
    if not found["verified"]:
        raise typer.Exit(1)


def _alone(config: Config, asked: dict[str, Any]) -> dict[str, Any]:
    """With nothing running: a farthing that listens on loopback just for this."""
    import asyncio

    from farthing.proxy.app import running
    from farthing.proxy.erasing import erase, erasure_of
    from farthing.proxy.errors import ClientFault, ConfigFault

    async def erased() -> dict[str, Any]:
        here = config.server.model_copy(update={"host": "127.0.0.1", "port": 0})
        async with running(config.model_copy(update={"server": here})) as proxy:
            return await erase(proxy.services, asked)

    try:
        erasure_of(asked)
        return asyncio.run(erased())
    except ClientFault as fault:
        raise ConfigFault(fault.message) from None
