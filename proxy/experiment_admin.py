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

__all__ = ["gauges", "listed", "stop", "told"]


def told(proxy: Running) -> dict[str, Any]:
    """Every experiment, the newest first, and why a declared one doesn't run."""
    return listed(proxy.experiments.records, proxy.experiments.waiting)


def listed(records: Sequence[Record], waiting: Mapping[str, str]) -> dict[str, Any]:
    """The same from the records alone."""
    shown = [asdict(one) | {"headline": headline(one)} for one in reversed(records)]
    return {"experiments": shown, "waiting": dict(waiting)}


def gauges(proxy: Running) -> dict[str, float]:
    """For /metrics; see metrics.LABELLED_GAUGES. Each experiment's latest run, with its latest reading."""
    found: dict[str, float] = {}
    for record in {one.name: one for one in proxy.experiments.records}.values():
        found[f"experiment_running:{record.name}"] = float(record.state == "running")
        told = record.reading
        if told is None:
            continue
        shares = told["shares"]
        found |= {f"experiment_units:{arm}:{record.name}": float(count) for arm, count in shares["units"].items()}
        found[f"experiment_shares_p_value:{record.name}"] = shares["p"]
        found[f"experiment_shares_broken:{record.name}"] = float(shares["broken"])
        for arm, said in told.get("candidates", {}).items():
            found[f"experiment_verdict:{said['word']}:{arm}:{record.name}"] = 1.0
    return found


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
