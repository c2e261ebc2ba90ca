"""`farthing policy` on a terminal: every name is shown as it is."""

from __future__ import annotations

import io

from rich.console import Console

from farthing.policies.version import Change
from farthing.proxy.cli_policy_table import changes


def test_what_differs_names_the_route_it_differs_in() -> None:
    out = io.StringIO()
    found = [Change("routes[r-hedge].variants", ["large"], ["bad"]), Change("variants[/red].model", "x", "[bold]y")]
    Console(file=out, width=200).print(changes("active (p-1)", "file.toml", found))

    assert [line.split() for line in out.getvalue().splitlines()[1:]] == [
        ["routes[r-hedge].variants", '["large"]', '["bad"]'],
        ["variants[/red].model", "x", "[bold]y"],
    ]
