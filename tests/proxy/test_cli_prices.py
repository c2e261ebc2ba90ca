"""`farthing prices`: names that a client chose are shown, and mean nothing to the terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from farthing.proxy.cli_prices import check, show
from farthing.proxy.config import Config
from farthing.proxy.config_prices import ModelPrice, Prices
from tests.fakes.rows import ledger, row

HOSTILE = ["[/x]", "[bold]x[/bold]", "[red", "a\x1b[31mb", "a\u202eb", "m" * 380_000]


def console() -> Console:
    return Console(file=io.StringIO(), width=400, force_terminal=True)


def said(on: Console) -> str:
    assert isinstance(on.file, io.StringIO)
    return on.file.getvalue()


@pytest.mark.parametrize("model", HOSTILE)
def test_hostile_names_are_shown_as_they_are(tmp_path: Path, model: str) -> None:
    ledger(tmp_path / "ledger.db", [row(model_requested=model, model_served="gpt-4o-mini")]).close()
    on = console()

    assert check(Config(state_dir=tmp_path), on) == 1
    shown = said(on)
    assert "gpt-4o-mini" in shown
    assert "a\x1b[31mb" not in shown and "\u202e" not in shown
    assert model.replace("\x1b", "\ufffd").replace("\u202e", "\ufffd")[:256] in "".join(shown.split("\n"))
    assert "m" * 257 not in shown


@pytest.mark.parametrize("model", HOSTILE[:-1])
def test_an_own_price_under_a_hostile_name_is_shown_too(model: str) -> None:
    price = ModelPrice(input_usd_per_mtok=1, source="[/y]\x07")  # type: ignore[arg-type]
    on = console()

    assert show(Config(prices=Prices(models={model: price})), model, None, on) == 0
    assert "[/y]\ufffd" in said(on)
    assert model.replace("\x1b", "\ufffd").replace("\u202e", "\ufffd") in said(on)
