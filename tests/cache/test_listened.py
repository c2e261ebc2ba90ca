"""Who is listened to, behind every kind of URL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from redis.exceptions import RedisError, ResponseError

from farthing.cache.listened import listened, together
from farthing.cache.redis_client import nodes_of
from farthing.proxy.errors import ConfigFault
from tests.fakes.valkey import ValkeyProcess
from tests.fakes.valkey_many import ValkeyCluster, until


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with ValkeyCluster(replicas=False) as cluster:
        yield cluster


async def test_all_primaries_are_found_from_one_that_answers(cluster: ValkeyCluster) -> None:
    url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{cluster.nodes[1].port}?require_full_coverage=false"
    there = listened(url)
    async with there.found() as servers:
        ports = {server.client.connection_pool.connection_kwargs["port"] for server in servers}
        assert ports == {node.port for node in cluster.nodes}
        assert not there.at("farthing:e:{a}").heard, "before they have agreed"
        assert await there.still([])
        for name in ("a", "b", "c", "farthing:e:{a}.1"):
            at = there.at(name)
            assert at.heard and at.server is not None
            assert at.server.client.connection_pool.connection_kwargs["port"] == cluster.owner(name).port
        assert there.at("farthing:e:{a}.1").server is there.at("a").server
    assert all(server.left for server in servers) and not there.at("a").heard
    await there.close()


async def test_while_one_is_held_to_be_down_they_are_not_those(cluster: ValkeyCluster) -> None:
    """It answers again, but the others may have chosen another one."""
    there = listened(cluster.url)
    async with there.found():
        assert await there.still([])
        cluster.nodes[0].freeze()
        try:
            until("a verdict", lambda: b"master,fail " in cluster.nodes[1].command("CLUSTER NODES"))
        finally:
            cluster.nodes[0].thaw()
        assert not await there.still([]) and not there.at("a").heard
        cluster.await_whole()
        for node in cluster.nodes:
            until("it taken back", lambda node=node: b"master,fail " not in node.command("CLUSTER NODES"))
        assert await there.still([]) and there.at("a").heard


async def test_a_node_that_is_a_cluster_by_itself_is_not_asked_who_has_what(cluster: ValkeyCluster) -> None:
    with ValkeyProcess("--cluster-enabled", "yes") as lone:
        there = listened(f"redis+cluster://127.0.0.1:{lone.port},127.0.0.1:{cluster.nodes[0].port}")
        async with there.found() as servers:
            assert len(servers) == 3 and await there.still([]) and there.at("a").server is not None
        alone = listened(f"redis+cluster://127.0.0.1:{lone.port}")
        with pytest.raises(OSError, match="no primary"):
            async with alone.found():
                pass


async def test_readers_leave_room_for_the_question_who_has_what(cluster: ValkeyCluster) -> None:
    there = listened(cluster.url)
    async with there.found() as servers:
        pool = servers[0].client.connection_pool
        readers = [await pool.get_connection() for _ in range(130)]  # the store reads 128 at once
        assert await there.still([])
        for reader in readers:
            await pool.release(reader)


async def test_another_node_at_a_nodes_address_is_not_it(cluster: ValkeyCluster) -> None:
    there: Any = listened(cluster.url)
    async with there.found():
        first, second, *_ = there._servers.values()
        first.client, second.client = second.client, first.client
        with pytest.raises(OSError, match="another node"):
            await there.still([])


async def test_where_nobody_answers_or_is_a_cluster() -> None:
    with pytest.raises(RedisError):
        async with listened("redis+cluster://127.0.0.1:1").found():
            pass
    with ValkeyProcess() as alone, pytest.raises(ResponseError, match="cluster support disabled"):
        async with listened(f"redis+cluster://127.0.0.1:{alone.port}").found():
            pass


async def test_one_server_is_itself() -> None:
    with ValkeyProcess() as alone:
        there = listened(alone.url)
        async with there.found() as servers:
            assert len(servers) == 1 and await there.still([])
            assert there.at("a").heard and there.at("a").server is None
        await there.close()


async def test_of_several_ways_the_first_error_ends_the_others() -> None:
    async def fails() -> None:
        raise OSError("gone")

    async def one() -> int:
        return 1

    assert await together(one(), one()) == [1, 1]
    with pytest.raises(OSError, match="gone"):
        await together(one(), fails())


def test_nodes_are_reached_as_the_cluster_is() -> None:
    nodes = nodes_of("rediss+cluster://u:p%40@a:7000,b/0?reinitialize_steps=1&ssl_cert_reqs=none", protocol=2)
    assert nodes.places == (("a", 7000), ("b", 6379))
    kwargs = nodes.open("c", 1).connection_pool.connection_kwargs
    assert (kwargs["host"], kwargs["port"], kwargs["username"], kwargs["password"]) == ("c", 1, "u", "p@")
    assert "reinitialize_steps" not in kwargs and kwargs["ssl_cert_reqs"] == "none" and kwargs["protocol"] == 2
    nodes_of("redis+cluster://a:7000?cluster_error_retry_attempts=3&load_balancing_strategy=round_robin")
    with pytest.raises(ConfigFault, match="wrong_name"):
        nodes_of("redis+cluster://a:7000?wrong_name=1")
    with pytest.raises(ConfigFault, match="address"):
        nodes_of("redis+cluster://a:7000,")
