"""What a replay is asked to try, and what it says: sweeps, the command, the page, estimates."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from farthing.proxy.cli_replay import Wanted, replay
from farthing.proxy.errors import ConfigFault
from farthing.proxy.replay_page import page
from farthing.proxy.replay_sums import Compared
from farthing.proxy.replay_sweep import grid, implied, parse_set, parse_sweep, with_settings
from tests.fakes.traces import BEGIN_S, config_with, line, run_on, traffic, written

# -- sweeps


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("semantic.threshold=0.85:0.99:0.02", [f"0.{n}" for n in range(85, 100, 2)]),
        ("cache.ttl_s=60:180:60", ["60", "120", "180"]),
        ("cache.ttl_s=60,3600", ["60", "3600"]),
        ("cache.sampled=true,false", ["true", "false"]),
        ("cache.ttl_s=60", ["60"]),
    ],
)
def test_sweeps_are_read(text: str, values: list[str]) -> None:
    assert parse_sweep(text) == (text.partition("=")[0], values)


NONSENSE = """x cache.ttl_s ttl=1:2:3 cache.ttl_s=1:2 cache.ttl_s=1:2:0 cache.ttl_s=2:1:1 cache.ttl_s= cache.ttl_s=a:b:c
cache.ttl_s=0:1000000:1 cache.ttl_s=nan:1:1"""


@pytest.mark.parametrize("text", NONSENSE.split())
def test_sweeps_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigFault, match="sweep"):
        parse_sweep(text)


def test_several_sweeps_are_a_grid() -> None:
    found = grid([("cache.ttl_s", ["1", "2"]), ("cache.join", ["true", "false"])])

    assert [tuple(one.values()) for one in found] == [("1", "true"), ("1", "false"), ("2", "true"), ("2", "false")]
    assert grid([]) == [{}]
    with pytest.raises(ConfigFault, match="twice"):
        grid([("a.b", ["1"]), ("a.b", ["2"])])
    with pytest.raises(ConfigFault, match="combinations"):
        grid([("a.b", ["1"] * 20), ("a.c", ["1"] * 20)])


def test_settings_are_laid_over_and_checked() -> None:
    config = config_with()

    assert with_settings(config, {"cache.ttl_s": "60", "cache.sampled": "false"}).cache.ttl_s == 60
    with pytest.raises(ConfigFault, match=r"did you mean 'ttl_s'"):
        with_settings(config, {"cache.tl_s": "60"})
    with pytest.raises(ConfigFault, match="greater than or equal"):
        with_settings(config, {"cache.ttl_s": "0"})
    for key in ("server.port", "semantic.second_stage", "semantic.deadline_ms"):
        with pytest.raises(ConfigFault, match="changes nothing"):
            with_settings(config, {key: "1"})
    assert parse_set("cache.ttl_s = 5") == ("cache.ttl_s", "5")
    assert implied(["semantic.threshold"]) == {"semantic.mode": "serve", "semantic.unproven": "true"}
    assert implied(["cache.ttl_s"]) == {}


def test_a_longer_life_never_hits_less_and_a_page_shows_it(tmp_path: Path) -> None:
    path = written(tmp_path / "t", [*traffic(150, 3), "<script>alert(1)</script>"])
    chosen = grid([parse_sweep("cache.ttl_s=5:65:20")])
    configs = [with_settings(config_with(), one) for one in chosen]

    run = run_on(path, *configs)

    hits = [lane.tally.total.hits for lane in run.lanes]
    assert hits == sorted(hits) and hits[0] < hits[-1]
    html = page(run, chosen, 0.95).decode()
    assert "<script" not in html and "http://" not in html and "https://" not in html
    assert html.count("<circle") == 8 and "cache.ttl_s" in html
    assert '<table class="words"><thead><tr><th>line</th><th>why</th>' in html, "words stand to the left"
    for lane in run.lanes:
        assert f"{lane.tally.total.statuses['hit-exact']:,}</td>" in html


# -- the command


def asked(trace: Path, **wanted: Any) -> dict[str, Any]:
    """The command's JSON."""
    found: list[dict[str, Any]] = []
    config = config_with(state_dir=trace.parent / "state")
    assert replay(config, trace, Wanted(**wanted), found.append, Console(quiet=True)) == 0
    return found[0]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"format": "x"}, "not one of farthing, ledger"),
        ({"by": "colour"}, "--by"),
        ({"sweeps": ["cache.tl_s=1,2"]}, "ttl_s"),
        ({"plots": [Path("nowhere/x.html")]}, "no such folder"),
        ({"plots": [Path("x.gif")]}, "is .png or .html"),
        ({"resume": True}, "nothing to resume"),
        ({"sweeps": ["semantic.model=minilm-int8,other"]}, "one embedding model"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(
    tmp_path: Path, wanted: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigFault, match=said):
        asked(written(tmp_path / "t", [line(BEGIN_S, "a")]), **wanted)
    with pytest.raises(ConfigFault, match="can't read"):
        asked(tmp_path / "missing")


def test_a_threshold_is_swept_without_more_ado_and_drawn(tmp_path: Path) -> None:
    """A higher threshold serves less; what it goes without saying is said."""
    lines = [
        line(BEGIN_S + n, text, said=f"Press the {thing} button.", latency_ms=500)
        for n, (thing, text) in enumerate(
            (thing, text)
            for thing in ("printer", "camera", "scooter", "kettle")
            for text in (
                f"How do I repair my {thing}?",
                f"How can I repair my {thing}?",
                f"how to fix a {thing} please",
            )
        )
    ]
    path = written(tmp_path / "t", lines)

    found = asked(path, sweeps=["semantic.threshold=0.5:1:0.25"], plots=[tmp_path / "p.html", tmp_path / "p.png"])

    assert found["implied"] == {"semantic.mode": "serve", "semantic.unproven": "true"}
    hits = [one["statuses"]["hit-semantic"] for one in found["replayed"]]
    assert hits == sorted(hits, reverse=True) and hits[0] > hits[-1] == 0
    assert [one["settings"]["semantic.threshold"] for one in found["replayed"]] == ["0.50", "0.75", "1.00"]
    first = found["replayed"][0]
    assert first["wrong"]["compared"] == hits[0]
    assert 0 <= first["wrong"]["low"] <= first["wrong"]["share"] <= first["wrong"]["high"] <= 1
    assert "wrong" in (tmp_path / "p.html").read_text("utf-8")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_what_recode_would_cut_is_counted_where_it_is_asked_for(tmp_path: Path) -> None:
    rows = json.dumps([{"id": n, "name": f"item {n}", "price": n * 10} for n in range(30)])
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "what is there"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": rows},
    ]
    path = written(tmp_path / "t", [line(BEGIN_S + n, "", body={"messages": turns}) for n in range(2)])

    cut = asked(path, beyond=True)["replayed"][0]["would_cut"]

    assert list(cut) == ["recode"] and cut["recode"] > 100  # of the one that is sent, not of the hit
    assert asked(path)["replayed"][0]["would_cut"] == {}


def test_prices_of_today_are_other_prices(tmp_path: Path) -> None:
    """gpt-4o-mini's price hasn't changed; o3's has (June 2025)."""
    path = written(tmp_path / "t", [line(1_740_000_000.0, "a", body={"model": "o3"}) | {"response": None,
                                    "usage": {"prompt_tokens": 1000, "completion_tokens": 0}}])  # fmt: skip

    then, now = asked(path)["replayed"][0], asked(path, prices_at="now")["replayed"][0]

    assert then["baseline_usd"] > now["baseline_usd"] > 0


def test_a_sweeps_best_setting_is_shown_by_slice_and_its_wrong_rate_with_its_interval(tmp_path: Path) -> None:
    lines = [
        line(BEGIN_S + n, f"How {word} I repair my {thing}?", said=f"Press the {thing} button.", latency_ms=500)
        for n, (thing, word) in enumerate((a, b) for a in ("printer", "camera", "kettle") for b in ("do", "can", "may"))
    ]
    path = written(tmp_path / "t", lines)
    screen = Console(record=True, width=200, file=io.StringIO())
    wanted = Wanted(sweeps=["semantic.threshold=0.5,1"], by="model")
    assert replay(config_with(state_dir=tmp_path / "state"), path, wanted, None, screen) == 0
    shown = screen.export_text()
    assert "By model, with semantic.threshold = 0.5" in shown
    assert "Near-duplicates that were wrong, with semantic.threshold = 0.5" in shown
    assert re.search(r"of \d+ near-duplicates that could be compared [0-9.]+% are judged wrong \([0-9.]+% – ", shown)


@pytest.mark.parametrize("text", ["no request at all\n" * 30, "{}\n[]\n17\n", '{"a": 1}\n'])
def test_a_trace_without_a_request_is_refused_with_what_is_wrong(tmp_path: Path, text: str) -> None:
    (tmp_path / "t").write_text(text, "utf-8")
    with pytest.raises(ConfigFault, match=r"(?s)holds no request.*could not be used.*line 1: "):
        asked(tmp_path / "t")


# -- estimates


@pytest.mark.parametrize(
    ("same", "different", "unsure"), [(100, 0, 0), (90, 5, 5), (0, 10, 0), (0, 0, 1), (1000, 10, 0)]
)
def test_an_estimate_lies_in_its_interval_and_doubt_counts_as_wrong(same: int, different: int, unsure: int) -> None:
    found = Compared(same, different, unsure).estimate(0.95)

    assert found is not None
    assert found.share == pytest.approx((different + unsure) / (same + different + unsure))
    assert 0 <= found.low <= found.share <= found.high <= 1
    assert Compared().estimate(0.95) is None
    wider = Compared(same, different, unsure).estimate(0.999)
    assert wider is not None and wider.low <= found.low and wider.high >= found.high
