"""The short form of the suite: every fault once, each claim about it (`make chaos` is the long form)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.places import Cluster, three
from tests.chaos.run import SETTINGS
from tests.chaos.scene import Fault, Setting, measure
from tests.fakes.valkey import ValkeyProcess

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster[ValkeyProcess]]:
    with three(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_three_over_one_valkey(cluster: Cluster[ValkeyProcess], fault: Fault[Cluster[ValkeyProcess]]) -> None:
    line = await measure(cluster, fault)

    assert line.broken == [], line
    assert line.requests > 50


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.fault.name)
async def test_in_a_place_of_its_own(tmp_path: Path, setting: Setting[Any]) -> None:
    if setting.needs():
        pytest.skip(setting.needs())
    with setting.place(tmp_path) as place:
        line = await measure(place, setting.fault)

    assert line.broken == [], line
    assert line.requests > 50
