"""redis-py's client for a URL, without its retries, and how the URL is told."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from farthing.proxy.errors import ConfigFault

__all__ = ["client_of", "is_cluster", "shown"]

_CLUSTER = "+cluster://"


def is_cluster(url: str) -> bool:
    """Whether it names a cluster: redis+cluster:// or rediss+cluster://."""
    return _CLUSTER in url


def shown(url: str) -> str:
    """The URL's address alone: a password must not reach a log."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def client_of(url: str, max_connections: int, *, connect_s: float, answer_s: float, **more: Any) -> Any:
    """The client: `connect_s` for a connection, `answer_s` for an answer, at most. Raises ConfigFault: redis-py can't
    read the URL."""
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    scheme, mark, rest = url.partition(_CLUSTER)
    options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "max_connections": max_connections,
        "socket_connect_timeout": connect_s,
        "socket_timeout": answer_s,
        **more,
    }
    try:
        if mark:
            return RedisCluster.from_url(f"{scheme}://{rest}", **options)
        return Redis.from_url(url, **options)
    except ValueError as error:
        raise ConfigFault(f"store.url: {error}") from None
