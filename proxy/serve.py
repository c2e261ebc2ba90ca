"""`farthing serve`: run until told to stop, reload on SIGHUP, drain on SIGTERM and Ctrl-C."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from farthing.proxy import state
from farthing.proxy.app import Running, running
from farthing.proxy.config import Config, is_loopback, mask_url
from farthing.proxy.config_spend import budgets_of, rates_of
from farthing.proxy.place import Place
from farthing.proxy.spend_admin import limits_in_words, rates_in_words
from farthing.proxy.tasks import TaskGroup

__all__ = ["serve", "work"]

log = structlog.get_logger("farthing")


def serve(config: Config, load: Callable[[], Config], console: Console) -> int:
    """Run the proxy; `load` reads the configuration anew. Returns the exit status: 0 after an orderly end, 2 where it
    can't start."""
    import uvloop

    multiply_alone(os.environ)
    return uvloop.run(_serve(config, load, console))


async def _serve(config: Config, load: Callable[[], Config], console: Console) -> int:
    stop = asyncio.Event()
    reload = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    loop.set_exception_handler(_told_by_kind)
    try:
        async with running(config) as proxy:
            collect_seldom()
            state.announce(config.state_dir, state.from_here(proxy.url))
            banner(config, proxy.url, console)
            while await _told(stop, reload):
                reload.clear()
                await _reload(proxy, load)
            log.info("draining", in_flight=proxy.lanes.state.in_flight.here)
    except OSError as error:
        said = error.strerror or str(error)
        console.print(f"can't listen on {config.server.host}:{config.server.port}: {said}; choose another with --port")
        return 2
    return 0


def work(config: Config, place: Place, console: Console) -> int:
    """Be one of several workers, until told to stop or the supervisor has gone. Returns the exit status."""
    import uvloop

    multiply_alone(os.environ)
    return uvloop.run(_work(config, place, console))


async def _work(config: Config, place: Place, console: Console) -> int:
    from farthing.proxy.board import Board
    from farthing.proxy.crew import Crew
    from farthing.proxy.metrics_push import push
    from farthing.proxy.peers import Peers

    stop, tasks = asyncio.Event(), TaskGroup()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # the supervisor's
    loop.set_exception_handler(_told_by_kind)
    peers, board = Peers(tasks, stop.set), Board(place.board, place.count)
    await peers.open(socket.socket(fileno=place.line))
    sockets = [socket.socket(fileno=fd) for fd in place.listeners]
    crew = Crew(place.slot, place.cell, peers, board, place.first, sockets)
    async with running(config, crew=crew) as proxy:
        metrics = proxy.services.state.metrics
        collect_seldom()
        if place.first and crew.keeper:
            banner(config, proxy.url, console)
        pushed = push(metrics, peers, tasks)
        peers.ready()
        await stop.wait()
        pushed.stop()
        log.info("draining", in_flight=proxy.lanes.state.in_flight.here)
    peers.counted(metrics.families())
    await peers.close()
    await tasks.drain(0)
    return 0


def multiply_alone(environ: MutableMapping[str, str]) -> None:
    """numpy's products take one thread unless the operator says otherwise: on several they wait for each other by
    spinning, on cores that other replicas serve requests on. To be called before numpy is imported."""
    environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def collect_seldom() -> None:
    """What is there now stays; and looking for garbage after every 700 new objects, as is the default, takes a tenth of
    the time of a cache hit. Nor after too many: each look holds the event loop the longer the more there are. Ends what
    starting.begin began."""
    # Without a collection before: one in seventy of a start's objects is garbage (1.5 MiB), and finding it takes 0.1 s.
    gc.freeze()
    gc.set_threshold(5_000, 80, 50)
    gc.enable()


def _told_by_kind(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody caught, without the exception's own words: they may hold a key or a prompt."""
    error = context.get("exception")
    log.error("uncaught", fault=type(error).__name__ if error is not None else "unknown", exc_info=error)


async def _told(stop: asyncio.Event, reload: asyncio.Event) -> bool:
    """Wait for a signal: True to reload, False to stop."""
    waits = [asyncio.get_running_loop().create_task(event.wait()) for event in (stop, reload)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return not stop.is_set()


async def _reload(proxy: Running, load: Callable[[], Config]) -> None:
    """Take the new configuration over; a bad one keeps the old one, says so and counts."""
    try:
        left = await proxy.reload(load())
    except Exception as error:  # noqa: BLE001 - one that only its use shows to be bad must not end the proxy either
        log.error("the new configuration is bad; the old one stays", fault=str(error) or type(error).__name__)
        proxy.services.state.metrics.reload_failed()
        return
    log.info("reloaded", config_id=proxy.services.config.id)
    if left:
        log.warning("some sections change only with a restart", sections=left)


def banner(config: Config, url: str, console: Console) -> None:
    """What an operator wants to see first: where, whereto, and what is on."""
    semantic = {
        "off": "off",
        "observe": "observe (looks up and records, serves nothing)",
        "serve": f"serve where at most {config.semantic.max_wrong:.2%} wrong per {config.semantic.per} is proved",
        "serve unproven": "[bold yellow]serve, unproven[/] (no bound on wrong answers has been proved)",
    }[config.semantic.shown]
    forms = config.compress.shown
    at_most = f"serve where at most {config.compress.max_worse:.2%} worse answers are proved"
    said = {
        "observe": "observe (told in the ledger, nothing is sent so)",
        "serve": at_most,
        "serve unproven": "[bold yellow]serve, unproven[/] (no bound on worse answers has been proved)",
    }
    lines = Table.grid(padding=(0, 2))
    for name, value in (
        ("listening", f"[bold]{url}/v1[/]   (set your client's base_url to this)"),
        *([("workers", str(config.server.workers))] if config.server.workers > 1 else []),
        (
            "upstream",
            escape(", ".join(map(mask_url, config.upstream.bases)))
            + ("  [yellow](simulated)[/]" if _simulated(config) else ""),
        ),
        (
            "exact cache",
            f"{config.cache.mode}, {config.cache.ttl_s // 3600} h" if config.cache.mode != "off" else "off",
        ),
        ("semantic", semantic),
        *((name, said.get(shown, shown)) for name, shown in forms.items()),
        *((name, escape(told)) for name, told in spending_lines(config)),
        ("ledger", str(config.state_dir / "ledger.db") if config.ledger.enabled else "off"),
        ("dashboard", f"{url}/farthing/" if is_loopback(config.server.host) else f"{url}/farthing/ (admin token)"),
    ):
        lines.add_row(f"[dim]{name}[/]", value)
    if console.is_terminal:
        console.print("[bold]farthing[/]", lines, sep="\n")
    else:
        log.info(
            "listening",
            url=f"{url}/v1",
            upstream=", ".join(map(mask_url, config.upstream.bases)),
            simulated=_simulated(config),
            cache=config.cache.mode,
            semantic=config.semantic.shown,
            tidy=config.compress.tidy,
            recode=forms["recode"],
            squeeze=forms["squeeze"],
            **{name.replace(" ", "_"): said for name, said in spending_lines(config)},
            dashboard=f"{url}/farthing/",
        )


def spending_lines(config: Config) -> list[tuple[str, str]]:
    """What holds spending and callers back, if anything does."""
    found = []
    if config.spend.daily_usd is not None:
        found.append(("daily limit", f"${config.spend.daily_usd}"))
    if config.budgets:
        found.append(("budgets", limits_in_words(budgets_of(config.budgets))))
    if config.rate_limits:
        found.append(("rate limits", rates_in_words(rates_of(config.rate_limits))))
    if config.auth.virtual_keys:
        found.append(("keys", "asked for (farthing keys list)"))
    return found


def _simulated(config: Config) -> bool:
    return config.upstream.name == "simulated"
