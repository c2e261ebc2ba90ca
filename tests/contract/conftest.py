"""What several contract suites stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from farthing.proxy.clock import FakeClock
from tests.fakes.decisions import KINDS, Opened
from tests.fakes.valkey import ValkeyProcess
from tests.fakes.valkey_many import ValkeyCluster, WatchedValkey


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as server:
        yield server


@pytest.fixture(scope="module")
def valkey_cluster() -> Iterator[ValkeyCluster]:
    with ValkeyCluster(replicas=False) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def valkey_sentinels() -> Iterator[WatchedValkey]:
    with WatchedValkey() as watched:
        yield watched


@pytest.fixture
def clock() -> FakeClock:
    # After every day on which this is run: by its own clock the server removes what is long over.
    return FakeClock(4_000_000_000.0)


@pytest.fixture(params=KINDS)
async def opened(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock, valkey: ValkeyProcess
) -> AsyncIterator[Opened]:
    """Each kind of store of decisions in turn, empty."""
    if request.param.startswith("redis"):
        valkey.command("FLUSHALL")
    stores = Opened(request.param, tmp_path / "state" / "decided.db", clock, valkey)
    yield stores
    await stores.close()
