"""Experiments seen from outside, and how an operator stops one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from farthing.proxy.errors import ClientFault
from farthing.proxy.experiment_book import Record
from farthing.proxy.experiment_text import headline

if TYPE_CHECKING:
    from farthing.proxy.app import Running

__all__ = ["listed", "stop", "told"]


def told(proxy: Running) -> dict[str, Any]:
    """Every experiment, the newest first, and why a declared one doesn't run."""
    return listed(proxy.experiments.records, proxy.experiments.waiting)


def listed(records: Sequence[Record], waiting: Mapping[str, str]) -> dict[str, Any]:
    """The same from the records alone."""
    shown = [asdict(one) | {"headline": headline(one)} for one in reversed(records)]
    return {"experiments": shown, "waiting": dict(waiting)}


async def stop(proxy: Running, asked: Mapping[str, Any]) -> dict[str, Any]:
    """End {"name"}; "why" is kept. Raises ClientFault: none of that name runs."""
    name = asked.get("name")
    if not isinstance(name, str) or set(asked) - {"name", "why"}:
        raise ClientFault("say which experiment by name, and why if you like", param="name")
    record = await proxy.experiments.stop(name, str(asked.get("why", ""))[:200])
    if record is None:
        raise ClientFault(
            f"no experiment {name[:64]!r} is running", status=404, code="unknown_experiment", param="name"
        )
    return asdict(record) | {"headline": headline(record)}
