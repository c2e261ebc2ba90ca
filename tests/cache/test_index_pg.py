"""Vectors in a real PostgreSQL: what a replica writes another finds, and an outage costs hits and no wait."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import psycopg
import pytest
from structlog.testing import capture_logs

from farthing.cache.index_pg import PgVectors
from farthing.cache.semantic import SemanticCache
from farthing.proxy.clock import SystemClock
from tests.cache.test_replicas import DIM, LATER_S, Hashed
from tests.fakes.postgres import PostgresProcess, running_postgres


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresProcess]:
    with running_postgres() as server:
        yield server


def vectors(server: PostgresProcess, model: str, deadline_s: float = 10) -> PgVectors:
    return PgVectors(server.url, model=model, dim=DIM, deadline_s=deadline_s, clock=SystemClock(), pause_s=0.05)


def cached(server: PostgresProcess, model: str, **settings: float) -> SemanticCache:
    return SemanticCache.open(None, Hashed(), max_entries=100, elsewhere=vectors(server, model, **settings))


def tended(cache: SemanticCache) -> None:
    while cache.tend():
        pass


def found(cache: SemanticCache, scope: str, text: str) -> str | None:
    return cache.lookup(scope, "r", text, 0.0).entry_key


def test_a_cache_finds_what_it_put_once_it_is_written_and_never_across_scopes(server: PostgresProcess) -> None:
    cache = cached(server, "one")
    for at, country in enumerate(["France", "Spain", "Peru"]):
        cache.add(f"scope {at % 2}", f"what is the capital of {country}", country, LATER_S)
    tended(cache)

    assert found(cache, "scope 0", "what is the capital of France") == "France"
    assert found(cache, "scope 1", "what is the capital of France") == "Spain"
    cache.remove(["France"])
    assert found(cache, "scope 0", "what is the capital of France") == "Peru"
    tended(cache)
    assert not cache.restless
    cache.close()


def test_replicas_share_the_table_and_pass_over_what_they_do_not_know(server: PostgresProcess) -> None:
    one, other = cached(server, "two"), cached(server, "two")
    one.add("s", "what is the capital of France", "France", LATER_S)
    one.add("s", "what is the capital of Spain", "Spain", LATER_S)
    tended(one)
    other.add("s", "what is the capital of Spain", "Spain", LATER_S)
    tended(other)

    assert found(other, "s", "what is the capital of France") == "Spain"
    row = other.row("Spain")
    assert row is not None and row.vector == pytest.approx(Hashed().embed([row.text])[0], abs=1e-3)
    with psycopg.connect(server.url) as link:
        table = one._elsewhere.table  # type: ignore[union-attr]
        assert link.execute(f"select count(*) from {table}").fetchone() == (2,)
    one.close()
    other.close()


def test_a_server_that_stops_in_mid_connection_costs_one_deadline_and_one_line(server: PostgresProcess) -> None:
    table = vectors(server, "three", deadline_s=0.2)
    index = table.scope("s")
    vector = Hashed().embed(["x"])[0]
    index.add(1, vector)
    while index.tend():
        pass
    assert [number for number, _ in index.search(vector, 1)] == [1]
    pid = table._connection.info.backend_pid
    with capture_logs() as lines:
        server.freeze(pid)
        try:
            before = time.perf_counter()
            assert index.search(vector, 1) == []
            assert time.perf_counter() - before < 10
        finally:
            server.thaw(pid)
        assert [number for number, _ in index.search(vector, 1)] == [1], "with another connection"
    assert lines == [], "one failure opens no breaker"
    table.close()


def test_without_a_server_what_is_put_waits_and_nothing_is_asked(server: PostgresProcess) -> None:
    url, table = server.url, vectors(server, "four")
    table._url = "postgresql://postgres@127.0.0.1:1/none"
    index = table.scope("s")
    vector = Hashed().embed(["x"])[0]
    index.add(1, vector)
    with capture_logs() as lines:
        for _ in range(5):
            index.tend()
            assert index.search(vector, 1) == []
        assert len(lines) == 1
        time.sleep(0.06)
        table._url = url
        while index.restless:
            index.tend()
    assert [line["event"] for line in lines][1:] == ["the vectors' server is back"]
    assert np.isclose(index.search(vector, 1)[0][1], 1, atol=2e-3)
    table.close()
