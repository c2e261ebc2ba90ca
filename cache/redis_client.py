"""The way to a Redis or Valkey, as a URL says it; redis-py's client, without its retries.

    redis://, rediss:// (TLS), unix://        one server
    redis+sentinel://, rediss+sentinel://     the primary that sentinels name, at HOST:PORT,HOST:PORT/SERVICE/DB
    redis+cluster://, rediss+cluster://       a cluster, some nodes of which are at HOST:PORT,HOST:PORT

What follows a `?` is redis-py's, for the servers. Sentinels are asked with the same TLS, and with the same user and
password where the URL says `sentinel_auth=true`: with a password that it doesn't want, a sentinel refuses.

A sentinel is asked for each new connection, and one that doesn't answer is passed by after `_SENTINEL_S`. Source:
Redis documentation, "Guidelines for Redis clients with support for Redis Sentinel".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from farthing.proxy.errors import ConfigFault

__all__ = [
    "Nodes",
    "Way",
    "everywhere",
    "figures_of",
    "find_nodes",
    "hang_up_all",
    "is_cluster",
    "nodes_of",
    "open_way",
    "still_primary",
    "where_of",
]

_CONNECT_S, _ANSWER_S = 2.0, 5.0
_SENTINEL_S = 0.3
_PORT, _SENTINEL_PORT = 6_379, 26_379
# What redis-py's cluster client takes from a URL, and its client to one node doesn't.
_OF_CLUSTERS = (
    "address_remap",
    "cluster_error_retry_attempts",
    "dynamic_startup_nodes",
    "load_balancing_strategy",
    "policy_resolver",
    "read_from_replicas",
    "reinitialize_steps",
    "require_full_coverage",
)
_TO_A_NODE = 10_000  # redis-py's own bound of connections is below what the store reads at once, which is the real one


class Way(NamedTuple):
    """`client`: redis-py's. `close`: hang up, and let go of whoever was asked for the address."""

    client: Any
    close: Callable[[], Awaitable[None]]


class Nodes(NamedTuple):
    """`places`: host and port of those that a cluster's URL names. `open`: redis-py's client to the node at a place; it
    connects when it is needed, and whoever opened it closes it."""

    places: tuple[tuple[str, int], ...]
    open: Callable[[str, int], Any]


def is_cluster(url: str) -> bool:
    """Whether it names a cluster."""
    return url.partition("://")[0].endswith("+cluster")


def open_way(url: str, max_connections: int, *, answer_s: float = _ANSWER_S, **more: Any) -> Way:
    """The client; it connects when it is needed.

    `answer_s`: the longest that it waits for an answer. `more`: redis-py's own options. Raises ConfigFault: a URL that
    can't be read.
    """
    from redis.asyncio import Redis

    options = {**_options(answer_s), "max_connections": max_connections, **more}
    plain, _, kind = url.partition("://")[0].partition("+")
    try:
        if kind == "sentinel":
            return _by_sentinels(urlsplit(url), plain, options)
        if kind == "cluster":
            return _to_cluster(urlsplit(url), plain, options)
        client = Redis.from_url(url, **options)
        return Way(client, client.aclose)
    except ValueError as error:
        raise ConfigFault(f"store.url: {error}") from None


def nodes_of(url: str, *, answer_s: float = _ANSWER_S, **more: Any) -> Nodes:
    """The way to each node of a cluster by itself, with the URL's user, password and TLS; else as `open_way`."""
    from redis.asyncio import Redis
    from redis.asyncio.connection import parse_url

    parts = urlsplit(url)
    auth, at, hosts = parts.netloc.rpartition("@")
    try:
        places = tuple(_place(one, _PORT) for one in hosts.split(","))
        given: dict[str, Any] = {**parse_url(f"{parts.scheme.partition('+')[0]}://{auth}{at}there?{parts.query}")}
    except ValueError as error:
        raise ConfigFault(f"store.url: {error}") from None
    if given.pop("connection_class", None) is not None:
        given["ssl"] = True
    for name in ("host", "port", *_OF_CLUSTERS):
        given.pop(name, None)
    options = {**given, **_options(answer_s), "max_connections": _TO_A_NODE, **more}

    def to(host: str, port: int) -> Any:
        return Redis(host=host, port=port, **options)

    try:
        to(*places[0])  # it connects when it is asked
    except (TypeError, ValueError) as error:
        raise ConfigFault(f"store.url: {error}") from None
    return Nodes(places, to)


async def still_primary(client: Any, link: Any) -> bool:
    """Whether the sentinels name the server at the other end of `link`; true where there are none to ask. `client`: of
    `open_way`. Raises redis-py's ConnectionError: no sentinel that answers knows a primary."""
    ask = getattr(client.connection_pool, "get_master_address", None)
    return ask is None or tuple(await ask()) == (link.host, link.port)


def everywhere(client: Any) -> dict[str, Any]:
    """What makes a command about the server (INFO, DBSIZE) ask every primary, given with it: unless told, a cluster's
    client (redis-py 8.1) asks one node. `client`: of `open_way`."""
    return {"target_nodes": "primaries"} if hasattr(client, "get_primaries") else {}


async def find_nodes(client: Any) -> None:
    """Let a cluster's client ask anew who is there: by itself it learns of a primary that joined only when a node sends
    it there. Raises what redis-py raises. `client`: of `open_way`."""
    if hasattr(client, "nodes_manager"):
        await client.nodes_manager.initialize()


async def figures_of(client: Any) -> tuple[int, int, int]:
    """Keys, bytes and evictions of the server; of all its primaries where it is a cluster. `client`: of `open_way`."""
    await find_nodes(client)
    entries = await client.dbsize(**everywhere(client))
    info = await client.info(**everywhere(client))
    nodes = [info] if "used_memory" in info else list(info.values())
    return (
        int(entries),
        sum(int(node["used_memory"]) for node in nodes),
        sum(int(node["evicted_keys"]) for node in nodes),
    )


async def hang_up_all(client: Any) -> None:
    """Close every connection of it, idle or not, where sentinels say who is primary: the next one asks them again."""
    if hasattr(client, "connection_pool") and hasattr(client.connection_pool, "get_master_address"):
        await client.connection_pool.disconnect(inuse_connections=True)


def where_of(url: str) -> str:
    """The URL's address alone: a password must not reach a log."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _options(answer_s: float) -> dict[str, Any]:
    """Of redis-py, for every way: no retries of its own."""
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return {
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": _CONNECT_S,
        "socket_timeout": answer_s,
    }


def _by_sentinels(parts: SplitResult, plain: str, options: dict[str, Any]) -> Way:
    """Raises ValueError."""
    from redis.asyncio.connection import parse_url
    from redis.asyncio.sentinel import Sentinel

    auth, at, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.removeprefix("/").partition("/")
    if not service:
        raise ValueError("the service that the sentinels watch is missing: redis+sentinel://HOST:PORT/SERVICE")
    asked = dict(parse_qsl(parts.query))
    with_password = asked.pop("sentinel_auth", "") == "true"
    given: dict[str, Any] = {**parse_url(f"{plain}://{auth}{at}there/{db}?{urlencode(asked)}")}
    del given["host"]
    if given.pop("connection_class", None) is not None:
        given["ssl"] = True
    of_sentinels = {name: value for name, value in given.items() if name.startswith("ssl")}
    if with_password:
        of_sentinels |= {name: given[name] for name in ("username", "password") if name in given}
    timeouts = {"socket_connect_timeout": _SENTINEL_S, "socket_timeout": _SENTINEL_S}
    places = [_place(one, _SENTINEL_PORT) for one in hosts.split(",")]
    by_name: Any = Sentinel  # untyped there
    sentinels = by_name(places, sentinel_kwargs=of_sentinels | timeouts | {"retry": options["retry"]})
    client = sentinels.master_for(unquote(service), **given, **options)

    async def close() -> None:
        await client.aclose()
        await sentinels.aclose()

    return Way(client, close)


def _place(text: str, port: int) -> tuple[str, int]:
    """Host and port; `port` where none is said. Raises ValueError."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("an address is empty")
    return parts.hostname, parts.port or port


def _to_cluster(parts: SplitResult, plain: str, options: dict[str, Any]) -> Way:
    """Raises ValueError."""
    from redis.asyncio import RedisCluster
    from redis.asyncio.cluster import ClusterNode

    class Informed(RedisCluster):
        """One that knows who has which keys before it sends anything. Those of redis-py 8.1 that are sent before go to
        any node; of several at once the redirections make it close all connections, and so what is under way fails, the
        next time too."""

        async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
            await self.initialize()
            return await super().execute_command(*args, **kwargs)

    if parts.path.strip("/") not in ("", "0"):
        raise ValueError("a cluster has one db, 0: leave it out")
    auth, at, hosts = parts.netloc.rpartition("@")
    first, *others = hosts.split(",")
    nodes = [ClusterNode(*_place(one, _PORT)) for one in others]
    url = f"{plain}://{auth}{at}{first}" + (f"?{parts.query}" if parts.query else "")
    cluster = Informed.from_url(url, startup_nodes=nodes, **options)
    return Way(cluster, cluster.aclose)
