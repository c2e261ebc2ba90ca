"""The benchmark of sealing has a line for every place that is sealed, and reads back what it stores."""

from __future__ import annotations

import os

import pytest

from bench.sealing_cost import PLACES, rows
from farthing.proxy.seal import Seal, Sealer


def test_each_place_and_size_has_a_line() -> None:
    lines = list(rows([10, 5_000], rounds=1, round_s=0.0))
    assert len(lines) == 2 + 2 * (len(PLACES) + 1)
    assert all(line.count("|") == lines[0].count("|") for line in lines)


@pytest.mark.parametrize("name", [name for name, _ in PLACES])
def test_what_is_read_is_what_was_stored(name: str) -> None:
    seals: list[Seal | None] = [None, Sealer([os.urandom(32)], os.urandom)]
    bare, shut = (dict(PLACES)[name](300, seal) for seal in seals)
    assert str(bare.read()) == str(shut.read()) != "None" and bare.size < shut.size <= bare.size + 50
