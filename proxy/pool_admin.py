"""The replicas seen from outside: told, measured, drained."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from farthing.proxy.errors import ClientFault

if TYPE_CHECKING:
    from farthing.proxy.build import Services

__all__ = ["drain", "drain_these", "draining", "gauges", "told"]


def told(services: Services) -> list[dict[str, Any]]:
    """Each replica: health, circuit, draining, requests under way; where limits are learned, its keys by number."""
    return [told for one in services.upstreams for told in one.pool.told()]


async def drain(services: Services, asked: dict[str, Any]) -> dict[str, Any]:
    """Give `replica` no more requests, or with `drain` false some again; what is under way there ends as it began.

    Of a machine that several upstreams name it is drained in all of them. It lasts until it is taken back or the
    process ends. Raises ClientFault: 404 no such replica, 400 another value.
    """
    name, wanted = asked.get("replica"), asked.get("drain", True)
    if not isinstance(name, str) or not isinstance(wanted, bool):
        raise ClientFault('say {"replica": NAME, "drain": true or false}')
    found = [replica for one in services.upstreams if (replica := one.pool.find(name)) is not None]
    if not found:
        known = ", ".join(replica.name for one in services.upstreams for replica in one.pool.replicas)
        raise ClientFault(f"there is no replica {name!r}; there are: {known}", status=404, code="not_found")
    for replica in found:
        replica.draining = wanted
    return {"replicas": told(services)}


def draining(services: Services) -> list[str]:
    """The replicas that get no more requests on purpose."""
    return [replica.name for one in services.upstreams for replica in one.pool.replicas if replica.draining]


def drain_these(services: Services, names: Collection[str]) -> None:
    """Give these no more requests, as far as they are there."""
    for one in services.upstreams:
        for replica in one.pool.replicas:
            replica.draining = replica.draining or replica.name in names


def gauges(services: Services) -> dict[str, float]:
    """`replica_*:UPSTREAM:REPLICA`, as many as the configuration names."""
    found: dict[str, float] = {}
    for pool, _ in services.upstreams:
        upstream = pool.name.replace(":", "_")
        for replica in pool.replicas:
            where = f"{upstream}:{replica.name}"
            is_open = replica.circuit is not None and replica.circuit.open
            found[f"replica_healthy:{where}"] = float(replica.healthy and not is_open)
            found[f"replica_circuit_open:{where}"] = float(is_open)
            found[f"replica_draining:{where}"] = float(replica.draining)
            found[f"replica_in_flight:{where}"] = replica.in_flight
    return found
