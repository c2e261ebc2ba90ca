"""`farthing cache ...`: through a running farthing where one listens, else on its state directly."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import httpx
from rich.table import Table

from farthing.proxy import state
from farthing.proxy.clock import SystemClock, SystemRandomness
from farthing.proxy.config import Config
from farthing.proxy.errors import ClientFault, ConfigFault, StoreFault
from farthing.proxy.purge import purge_alone, selector_of
from farthing.proxy.sealing import key_ids
from farthing.proxy.server_tls import trusting
from farthing.proxy.storing import open_store

__all__ = ["Refused", "ask", "purge", "stats", "table"]


class Refused(ConfigFault):
    """The running farthing refuses. `message`, `code`: of its error, if it sent one."""

    def __init__(self, url: str, text: str) -> None:
        super().__init__(f"{url} refused: {text[:300]}")
        self.message, self.code = text[:300], ""
        with suppress(ValueError, TypeError, KeyError):
            error = json.loads(text)["error"]
            self.message, self.code = str(error["message"]), str(error["code"])


def stats(config: Config) -> dict[str, Any]:
    """What the store holds. Raises ConfigFault where the running farthing refuses."""
    answer = ask(config, "/farthing/api/cache/stats", {})
    if answer is not None:
        return answer
    return asyncio.run(_stats(config))


def purge(config: Config, asked: dict[str, Any]) -> dict[str, int]:
    """Remove what `asked` names (see proxy/purge.py): how many answers, and how many near-duplicates could find.

    Raises ConfigFault: it can't be understood, the running farthing refuses, or not all could be removed.
    """
    clock = SystemClock()
    try:
        selector_of(asked, clock.now_s())
    except ClientFault as fault:
        raise ConfigFault(fault.message) from None
    answer = ask(config, "/farthing/api/cache/purge", asked)
    if answer is not None:
        return {name: int(answer[name]) for name in ("purged", "near_duplicates")}
    try:
        return asyncio.run(purge_alone(config, asked, clock, SystemRandomness()))
    except StoreFault as fault:
        raise ConfigFault(f"not everything could be removed, so ask again: {fault}") from None


def table(found: dict[str, Any]) -> Table:
    """The figures, aligned."""
    shown = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in found.items():
        if isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        shown.add_row(f"[dim]{name.replace('_', ' ')}[/]", text)
    return shown


def ask(config: Config, path: str, body: dict[str, Any] | None) -> dict[str, Any] | None:
    """The running farthing's answer, to a GET where there is no body; None where nothing holds the state directory."""
    try:
        state.claim(config.state_dir).close()
        return None
    except state.Held:
        pass  # somebody serves from it: it must be asked, since it keeps an index in memory
    headers = {"x-farthing-admin": "1"}
    token = config.server.admin_token
    if token is not None:
        headers["Authorization"] = f"Bearer {token.get_secret_value()}"
    url = state.announced(config.state_dir)
    if not url:
        raise ConfigFault(
            f"a farthing uses {config.state_dir}, but does not say where it listens; is it just starting?"
        )
    try:
        method = "GET" if body is None else "POST"
        verify = True if config.server.tls_cert is None else trusting(config.server.tls_cert)
        answer = httpx.request(method, url + path, json=body, headers=headers, timeout=60, verify=verify)
    except httpx.HTTPError as error:
        raise ConfigFault(
            f"a farthing uses {config.state_dir}, but {url} does not answer ({type(error).__name__})"
        ) from None
    if answer.status_code != 200:
        raise Refused(url, answer.text)
    found: dict[str, Any] = answer.json()
    return found


async def _stats(config: Config) -> dict[str, Any]:
    store = await open_store(config, SystemClock(), SystemRandomness())
    try:
        found = await store.stats()
        shown: dict[str, Any] = {name: getattr(found, name) for name in found.__slots__}
        return shown | {"key_ids": list(key_ids(config.store, SystemRandomness()))}
    finally:
        await store.close()
