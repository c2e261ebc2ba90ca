"""`farthing experiment list`: what is shown is what was said."""

from io import StringIO
from typing import Any

from rich.console import Console

from farthing.proxy.cli_experiment_table import overview


def shown(found: dict[str, Any]) -> str:
    console = Console(width=200, record=True, file=StringIO())
    console.print(overview(found))
    return console.export_text()


def test_a_reason_in_brackets_is_no_markup_and_nothing_that_a_terminal_would_obey() -> None:
    one = {
        "name": "cheaper",
        "state": "broken",
        "since_s": 1_790_000_000.0,
        "arms": [{"name": "control", "share": 0.5}, {"name": "b", "share": 0.5}],
        "reading": {"shares": {"units": {"control": 1_200}}},
        "headline": "the assignment is broken: [bold]slice [/]\x1b[31m",
    }
    text = shown({"experiments": [one], "waiting": {"later": "[red]no key[/red]"}})
    assert "the assignment is broken: [bold]slice [/]\N{REPLACEMENT CHARACTER}[31m" in text
    assert "control 50.0%" in text and "1,200" in text
    assert "later doesn't run: [red]no key[/red]" in text
