"""The short form of the suite: most faults once, each claim about it. `make chaos` is the long form, and has all.

`make chaos-short` runs two faults at a time, each with all of its load. Those over one Valkey share its replicas, one
after the other; none can hide behind the one before, since it must find every replica well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.alone import ALONE
from tests.chaos.faults import FAULTS
from tests.chaos.measured import Line
from tests.chaos.places import Cluster, three
from tests.chaos.run import SETTINGS
from tests.chaos.scene import FEW, Fault, Setting, measure
from tests.fakes.valkey import ValkeyProcess

Property = Callable[[str, object], None]

# The longest comes first, so that two processes end at about the same time.
OWN = (ALONE[-1], *(setting for setting in SETTINGS if setting.short and setting is not ALONE[-1]))

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster[ValkeyProcess]]:
    with three(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def every_claim_held(line: Line, fault: Fault[Any], record: Property) -> None:
    """And the load ran before, during and after the fault. What took how long goes into the report (`--junitxml`)."""
    for part, seconds in line.notes["took_s"].items():
        record(part, seconds)

    assert line.broken == [], str(line.told())  # whole: of a long repr pytest shows the ends
    assert line.requests > 50
    assert min(line.notes["before"], line.notes["after"]) > FEW, line
    assert line.notes["during"] > 0 or not fault.hold_s, line


@pytest.mark.xdist_group("three")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_three_over_one_valkey(
    cluster: Cluster[ValkeyProcess], fault: Fault[Cluster[ValkeyProcess]], record_property: Property
) -> None:
    line = await measure(cluster, fault)

    every_claim_held(line, fault, record_property)


@pytest.mark.parametrize("setting", OWN, ids=lambda setting: setting.fault.name)
async def test_in_a_place_of_its_own(tmp_path: Path, setting: Setting[Any], record_property: Property) -> None:
    if setting.needs():
        pytest.skip(setting.needs())
    began = time.monotonic()
    with setting.place(tmp_path) as place:
        record_property("start", round(time.monotonic() - began, 2))
        line = await measure(place, setting.fault)

    every_claim_held(line, setting.fault, record_property)
