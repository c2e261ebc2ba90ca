"""Who is at the other end, where reverse proxies stand between. Pure.

X-Forwarded-For is a list to which each proxy adds whom it got the request from, at the end; what stands before the
first one that is trusted was written by anybody. So it is read from the end.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

__all__ = ["Trusted"]

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Trusted:
    """The proxies whose word counts. `networks`: of the configuration."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: tuple[_Network, ...] = tuple(map(ipaddress.ip_network, networks))

    def client_of(self, peer: str, forwarded_for: Sequence[str], *, through: bool) -> str:
        """The client's address; '' where it can't be known: it came through a proxy that isn't trusted, or through one
        that names nobody.

        `forwarded_for`: the values of X-Forwarded-For, in the order of the header lines. `through`: some header says
        that a proxy stands between.
        """
        at = _address(peer)
        if at is None or not self._has(at):
            return "" if through else peer
        named = [part.strip() for line in forwarded_for for part in line.split(",")]
        while at is not None and self._has(at):
            if not named:
                return ""
            at = _address(named.pop())
        return "" if at is None else str(at)

    def _has(self, address: _Address) -> bool:
        return any(address in network for network in self._networks if network.version == address.version)


def _address(text: str) -> _Address | None:
    """The address, without a port or brackets; one of IPv4 in IPv6's clothes as IPv4."""
    text = text.strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
