"""`farthing prices`: names that a client chose are shown, and mean nothing to the terminal."""

from __future__ import annotations

import io
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from farthing.proxy import state
from farthing.proxy.cli_cache import ask
from farthing.proxy.cli_prices import check, recomputed, show
from farthing.proxy.clock import SystemClock
from farthing.proxy.config import Config
from farthing.proxy.config_prices import ModelPrice, Prices
from farthing.proxy.errors import ConfigFault
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


def hosted(**more: object) -> Config:
    machine = {"usd_per_hour": 3.6, "tokens_per_s": 500, "input_tokens_per_s": 10_000, "instances": 2, "busy": 0.5}
    return Config.model_validate({"prices": {"models": {"llama": {"hosted": machine}}}, **more})


def test_every_row_of_a_model_is_shown_with_its_tier_date_and_source() -> None:
    on = console()
    assert show(Config(), "gpt-5.5", None, on) == 0
    shown = said(on)
    for expected in ("272,000", "flex", "2026-10-12", "12.5", "genai-prices", "newest change of a price"):
        assert expected in shown
    out: list[Any] = []
    assert show(Config(), "gpt-5.5", out.append, on) == 0
    rows = out[0]["rows"]
    assert {row["tier"] for row in rows} == {"standard", "flex", "priority", "fast", "batch"}
    past = [row for row in rows if row["past_tokens"] == 272_000 and row["tier"] == "standard"]
    assert {(row["direction"], row["cache"]): row["usd_per_million"] for row in past} == {
        ("in", ""): "10",
        ("in", "read"): "1",
        ("out", ""): "45",
    }


def test_own_machines_at_full_load_on_the_average_and_as_the_ledger_saw_them(tmp_path: Path) -> None:
    now_s = SystemClock().now_s()
    rows = [
        row(id="a", ts=now_s - 1000, model_served="llama", tokens_in_sent=1_000_000, tokens_out=50_000),
        row(id="b", ts=now_s - 10, model_served="llama", cache="hit-exact", tokens_in_sent=0, tokens_out=9_000_000),
        row(id="c", ts=now_s - 30 * 86_400, model_served="llama", tokens_in_sent=10**9, tokens_out=10**9),
    ]
    ledger(tmp_path / "ledger.db", rows).close()
    out: list[Any] = []
    assert show(hosted(state_dir=tmp_path), "llama", out.append, console()) == 0
    found = out[0]["hosted"]
    assert found["at_full_load"] == "$0.1 per million tokens read, $2 made"
    assert found["on_the_average"] == "$0.2 and $4, busy 0.5 of the paid time"
    assert 0.099 < float(found["measured_busy"]) <= 0.1  # 200 s of work in 1,000 s of two machines
    assert "$1.90" in found["in_the_ledger"]  # $2 for 1,050,000 tokens
    on = console()
    assert show(hosted(state_dir=tmp_path / "none"), "llama", None, on) == 0
    assert "at full load" in said(on)


def test_no_price_and_no_ledger(tmp_path: Path) -> None:
    on = console()
    assert show(Config(), "nobodys-model", None, on) == 1
    assert "no price is known" in said(on)
    config = Config(state_dir=tmp_path)
    assert check(config, on) == recomputed(config, "7d", None, on) == 3
    with pytest.raises(ConfigFault, match="--since"):
        recomputed(config, "yesterday", None, on)


def test_what_a_ledgers_models_lack(tmp_path: Path) -> None:
    def used(text: str) -> str:
        return f'[{{"status":200,"usage":{text}}}]'

    rows = [
        row(id="a", model_served="gpt-4o", attempts_detail=used('{"audio_in":7}'), cost_usd=None),
        row(id="b", model_served="gpt-4o", attempts_detail=used('{"tier":"scale"}'), cost_usd=None),
        row(id="c", model_served="gpt-4o", attempts_detail=used('{"image_in":7}')),
        row(id="d", model_served="gpt-4o", attempts_detail=used("7")),
        row(id="e", model_served="gpt-4o", attempts_detail="usage"),
        row(id="f", model_served="claude-sonnet-5", attempts_detail=used('{"cache_write_1h":7}')),
        row(id="g", model_served="", model_requested="nobodys", cost_usd=None),
        row(id="h", model_served="gpt-4", tokens_in_cached=9),
    ]
    ledger(tmp_path / "ledger.db", rows).close()
    config, out = Config(state_dir=tmp_path), []
    assert check(config, console(), out.append) == 1
    found = {each["model"]: each for each in out[0]}
    assert found["gpt-4o"]["tiers_without_price"] == {"scale": 1}
    assert found["gpt-4o"]["tokens_without_price"] == {"audio_in": 7}
    assert (found["gpt-4o"]["requests"], found["gpt-4o"]["requests_without_price"]) == (5, 2)
    assert found["nobodys"]["source"] is None
    assert found["gpt-4"]["priced_as_fresh_input"] == ["cached"]
    assert check(config, console(), model="claude-sonnet-5") == 0
    on = console()
    assert check(config, on, model="gpt-4o") == 1
    assert "tier 'scale' (1 request); audio_in (7); 2 requests without a price" in said(on)


def test_a_ledger_priced_again_says_what_differs(tmp_path: Path) -> None:
    source = f"genai-prices {version('genai-prices')}"
    plain = {"model_served": "gpt-4o", "tokens_in_sent": 1000, "attempts_detail": '[{"status":200}]', "ts": time.time()}
    right = row(id="a", cost_usd=2_500_000_000, price_source=source, **plain)
    rows = [right, right._replace(id="b", price_source="genai-prices 0.0.1", cost_usd=1)]
    conn = ledger(tmp_path / "ledger.db", rows)
    config, out = Config(state_dir=tmp_path), []
    assert recomputed(config, "7d", out.append, console()) == 0
    assert out[0]["rows"]["same"] == {"rows": 1, "then_usd": "0.002500000000", "now_usd": "0.002500000000"}
    assert [(each["id"], each["source_now"]) for each in out[0]["examples"]] == [("b", source)]
    conn.execute("update requests set cost_usd = 3 where id = 'a'")
    conn.commit()
    conn.close()
    on = console()
    assert recomputed(config, "7d", None, on) == 1
    assert "differs" in said(on) and "0.000000000003" in said(on)


def test_a_moment_that_no_calendar_has_is_said_with_its_row(tmp_path: Path) -> None:
    plain = {"model_served": "gpt-4o", "tokens_in_sent": 1000, "attempts_detail": '[{"status":200}]', "cost_usd": 5}
    ledger(tmp_path / "ledger.db", [row(id="far-off", ts=1e300, **plain), row(id="never", ts=-1e300, **plain)]).close()
    out: list[Any] = []
    assert recomputed(Config(state_dir=tmp_path), "7d", out.append, console()) == 1
    assert [(each["id"], each["why"]) for each in out[0]["examples"]] == [("far-off", "unreadable")]


def test_a_ledger_that_cannot_be_read_is_a_fault_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no database, but long enough for a header" * 40)
    config = Config(state_dir=tmp_path)
    with pytest.raises(ConfigFault, match="can't read the ledger"):
        check(config, console())
    with pytest.raises(ConfigFault, match="can't read the ledger"):
        recomputed(config, "7d", None, console())


def test_a_state_directory_that_cannot_be_used_is_not_one_in_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigFault, match="can't use the state directory") as fault:
        state.claim(tmp_path / "file")
    assert not isinstance(fault.value, state.Held)
    with pytest.raises(ConfigFault, match="can't use the state directory"):
        ask(Config(state_dir=tmp_path / "file"), "/farthing/api/capture", None)
    with state.claim(tmp_path), pytest.raises(state.Held):
        state.claim(tmp_path)
