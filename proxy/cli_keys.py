"""`farthing keys ...`: on the store that a running farthing looks at; a change is in force within a second."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from decimal import Decimal

    from farthing.policies.budget import Per
    from farthing.proxy.config import Config
    from farthing.proxy.keys import KeyBudget, KeyStore

__all__ = ["app"]

T = TypeVar("T")

app = typer.Typer(
    help="Virtual keys: given to clients, taken back at once.",
    epilog="Example: farthing keys create --name search-team --tenant search --budget day=5 --expires 90d",
    no_args_is_help=True,
)
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Configuration file (default: ./farthing.toml).")]
StateOption = Annotated[Path | None, typer.Option("--state", help="State directory (default: .farthing).")]
JsonOption = Annotated[bool, typer.Option("--json", help="For a machine to read.")]
_STORE_DEADLINE_MS = 5000.0


@app.command(epilog="Example: farthing keys create --name ann --model 'gpt-4o*' --budget day=5 --expires 30d")
def create(
    name: Annotated[str, typer.Option(help="Who it is for; budgets of=key count by it.")],
    tenant: Annotated[str, typer.Option(help="Whom it shares a cache with; else nobody.")] = "",
    expires: Annotated[str, typer.Option(help="When it ends: 12h, 30d, 8w, or a date (default: never).")] = "",
    model: Annotated[list[str] | None, typer.Option(help="A model it is for, * for any rest; may be repeated.")] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="PER=USD: day=5, week=20, month=50; may be repeated.")
    ] = None,
    soft: Annotated[bool, typer.Option("--soft", help="Its budgets are told of, and refuse nothing.")] = False,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and show it: this once, since only its hash is kept."""
    from farthing.proxy.clock import SystemClock, SystemRandomness
    from farthing.proxy.errors import ConfigFault
    from farthing.proxy.keys import made

    loaded, now_s = _load(config, state), SystemClock().now_s()
    if not name.strip() or len(name) > 100 or not name.isprintable():
        raise ConfigFault("--name: 1 to 100 printable characters")
    secret, record = made(
        SystemRandomness(),
        now_s,
        name=name,
        tenant=tenant,
        expires_s=_moment(expires, now_s) if expires else 0.0,
        models=model or (),
        budgets=_budgets(budget or (), hard=not soft),
    )
    _on(loaded, lambda store: store.add(record))
    if as_json:
        typer.echo(json.dumps({"key": secret} | record.told(now_s), indent=2))
    else:
        typer.echo(secret)
        typer.echo(f"key {record.id} of {name!r}; it isn't shown again", err=True)
    if not loaded.auth.virtual_keys:
        typer.echo("keys aren't asked for yet: set auth.virtual_keys = true", err=True)


@app.command("list", epilog="Example: farthing keys list --json")
def list_keys(config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Every key, oldest first: what it may, and whether it is good. Never the key."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from farthing.proxy.clock import SystemClock
    from farthing.proxy.report import disarmed

    now_s = SystemClock().now_s()
    told = [key.told(now_s) for key in _on(_load(config, state), lambda store: store.all())]
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    table = Table("id", "name", "ends in", "tenant", "state", "expires", "models", "budgets")
    for key in told:
        budgets = ", ".join(
            f"${one['usd']:g} a {one['per']}" + ("" if one["hard"] else " (soft)") for one in key["budgets"]
        )
        cells = (key["id"], key["name"], key["ending"], key["tenant"], key["state"], _date(key["expires_s"]),
                 ", ".join(key["models"]) or "all", budgets)  # fmt: skip
        table.add_row(*(Text(disarmed(cell)) for cell in cells))
    Console(width=None if sys.stdout.isatty() else 110).print(table)


@app.command(epilog="Example: farthing keys revoke 3f9c01ab")
def revoke(
    id: Annotated[str, typer.Argument(help="The key's id, of `farthing keys list`.")],
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a key back: requests that show it are refused within a second; those under way end as they began."""
    from farthing.proxy.clock import SystemClock

    now_s = SystemClock().now_s()
    found = _on(_load(config, state), lambda store: store.revoke(id, now_s))
    if as_json:
        typer.echo(json.dumps({"id": id, "revoked": found}))
    else:
        typer.echo(f"key {id} is revoked" if found else f"there is no key {id}: see farthing keys list", err=not found)
    raise typer.Exit(0 if found else 1)


def _on(config: Config, act: Callable[[KeyStore], Awaitable[T]]) -> T:
    """What `act` gives on the store that the configuration names; exit status 3 where it can't be reached."""
    import asyncio

    from farthing.proxy.errors import StoreFault

    async def run() -> T:
        store, close = await _open(config)
        try:
            return await act(store)
        finally:
            await store.close()
            await close()

    try:
        return asyncio.run(run())
    except StoreFault as fault:
        typer.echo(f"the keys can't be reached: {fault}", err=True)
        raise typer.Exit(3) from None


async def _open(config: Config) -> tuple[KeyStore, Callable[[], Awaitable[Any]]]:
    url = config.store.url.get_secret_value()
    if not url:
        from farthing.proxy.keys_file import FileKeys

        files = FileKeys(config.state_dir / "keys.db")
        return files, files.close
    from farthing.cache.store_redis import RedisStore
    from farthing.proxy.clock import SystemClock
    from farthing.proxy.keys_redis import RedisKeys

    server = RedisStore(url, deadline_ms=_STORE_DEADLINE_MS, clock=SystemClock())
    return RedisKeys(server), server.close


def _load(config: Path | None, state: Path | None) -> Config:
    from farthing.proxy.config import load

    return load(config, flags={"state_dir": state})


def _moment(text: str, now_s: float) -> float:
    """A moment to come: a span of time from now, or a date. Raises ConfigFault."""
    from datetime import UTC, datetime

    from farthing.proxy.errors import ConfigFault

    units_s = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
    if text[:-1].isascii() and text[:-1].isdigit() and text[-1:] in units_s and 0 < int(text[:-1]) < 10**6:
        return now_s + int(text[:-1]) * units_s[text[-1]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigFault(f"--expires: {text[:40]!r} is no span of time; write 12h, 30d, 8w, or a date") from None
    moment_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if moment_s <= now_s:
        raise ConfigFault(f"--expires: {text!r} is in the past")
    return moment_s


def _budgets(texts: Sequence[str], *, hard: bool) -> list[KeyBudget]:
    """PER=USD each. Raises ConfigFault: no budget, or one that another hard one ends before, as in [[budgets]]."""
    from farthing.proxy.config_spend import never_reached, pico
    from farthing.proxy.errors import ConfigFault
    from farthing.proxy.keys import KeyBudget

    asked = [_budget(text) for text in texts]
    for per, usd in asked:
        first = next((other for other in asked if hard and never_reached(usd, per, other[1], other[0])), None)
        if first is not None:
            raise ConfigFault(
                f"--budget {per}={usd}: is never reached: {first[0]}={first[1]} ends before; lower this one, raise that"
                " one, or leave one of them out"
            )
    return [KeyBudget(pico(usd), per, hard) for per, usd in asked]


def _budget(text: str) -> tuple[Per, Decimal]:
    """PER=USD. Raises ConfigFault."""
    from decimal import Decimal, InvalidOperation

    from farthing.proxy.config_spend import LEAST_USD
    from farthing.proxy.errors import ConfigFault

    per, _, amount = text.partition("=")
    try:
        usd = Decimal(amount.strip().removeprefix("$"))
    except InvalidOperation:
        usd = Decimal(0)
    if per not in ("day", "week", "month") or not usd.is_finite() or not LEAST_USD <= usd <= 1_000_000:
        raise ConfigFault(f"--budget: {text[:40]!r} must be day, week or month, =, and dollars: day=5")
    return per, usd  # type: ignore[return-value]


def _date(at_s: float | None) -> str:
    from datetime import UTC, datetime

    return "never" if at_s is None else datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M")
