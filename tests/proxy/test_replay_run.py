"""A replay's course: broken lines, order, stopping and going on, sweeps, and what is printed."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from farthing.proxy.cli_replay import Wanted, replay
from farthing.proxy.config import Config, load
from farthing.proxy.errors import ConfigFault
from farthing.proxy.prices import RateCard
from farthing.proxy.replay_facts import reading_of
from farthing.proxy.replay_lane import Lane
from farthing.proxy.replay_page import page
from farthing.proxy.replay_read import Trace, open_trace
from farthing.proxy.replay_run import Run, play
from farthing.proxy.replay_state import load as load_state
from farthing.proxy.replay_state import save as save_state
from farthing.proxy.replay_sums import Compared
from farthing.proxy.replay_sweep import grid, implied, parse_set, parse_sweep, with_settings
from farthing.proxy.replay_table import as_json
from tests.fakes.proxying import PRICES

BEGIN_S = 1_790_000_000.0


def config_with(**flags: Any) -> Config:
    return load(None, {}, {"prices": PRICES} | {name.replace("__", "."): value for name, value in flags.items()})


def line(
    at_s: float | None, text: str, *, latency_ms: float | None = None, said: str = "fine", **more: Any
) -> dict[str, Any]:
    answer = {
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }
    body = {"model": "m", "messages": [{"role": "user", "content": text}]} | more.pop("body", {})
    return {"ts": at_s, "body": body, "response": answer, "latency_ms": latency_ms} | more


def written(path: Path, lines: Sequence[Any]) -> Path:
    texts = [one if isinstance(one, str) else json.dumps(one) for one in lines]
    content = "".join(text + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def run_on(
    trace: Path | Trace,
    *configs: Config,
    stop: Callable[[], bool] = lambda: False,
    run: Run | None = None,
    by: Any = (),
) -> Run:
    configs = configs or (config_with(),)
    if run is None:
        run = Run([Lane(one, at, RateCard(one.prices.models), by=by) for at, one in enumerate(configs)], by)
    readings = [reading_of(one, near=False, beyond=False) for one in configs]
    play(run, open_trace(trace) if isinstance(trace, Path) else trace, readings, "", processes=1, stop=stop)
    return run


def statuses(run: Run) -> dict[str, int]:
    return {name: count for name, count in run.lanes[0].tally.total.statuses.items() if count}


# -- lines


def test_broken_lines_are_told_with_their_numbers_and_the_rest_is_replayed(tmp_path: Path) -> None:
    good = line(BEGIN_S, "a")
    lines = [good, "{not json", "", '"text"', good, "[1]", json.dumps({"x": 1}), *["}"] * 12, good]

    run = run_on(written(tmp_path / "t.jsonl", lines))

    assert run.requests == 3
    assert run.broken.count == 16
    assert [number for number, _ in run.broken.told] == [2, 4, 6, 7, 8, 9, 10, 11, 12, 13]
    assert run.broken.told[0][1].startswith("not JSON") and "no request" in run.broken.told[3][1]
    assert statuses(run) == {"miss": 1, "hit-exact": 2}


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.json"])
def test_lines_zipped_lines_and_arrays_are_the_same(tmp_path: Path, name: str) -> None:
    lines = [line(BEGIN_S + n, f"q{n % 7}") for n in range(30)]
    if name == "t.json":
        path = tmp_path / name
        path.write_text(json.dumps(lines, indent=1), "utf-8")
    else:
        path = written(tmp_path / name, lines)

    assert statuses(run_on(path)) == {"miss": 7, "hit-exact": 23}


@pytest.mark.parametrize("array", [False, True])
def test_a_trace_with_the_newest_first_is_read_from_its_end(tmp_path: Path, array: bool) -> None:
    """No hit may be had from the future: with a life of 10 s a repeat after 9 s is a hit, after 11 s it isn't."""
    times = [0, 9, 20, 29, 40]
    lines = [line(BEGIN_S + at, "a") for at in times][::-1]
    path = tmp_path / "t.json"
    if array:
        path.write_text(json.dumps(lines), "utf-8")
    else:
        written(path, lines)
    trace = open_trace(path)

    assert trace.newest_first
    for size in (10**6, 100, 7):
        run = run_on(replace(trace, block_bytes=size), config_with(cache__ttl_s=10))
        assert statuses(run) == {"miss": 3, "hit-exact": 2}
        assert run.back == 0


def test_a_zipped_trace_with_the_newest_first_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl.gz", [line(BEGIN_S - at, "a") for at in range(5)])

    with pytest.raises(ConfigFault, match="unpack"):
        open_trace(path)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t").write_bytes(content)

    with pytest.raises(ConfigFault, match="empty"):
        open_trace(tmp_path / "t")
    with pytest.raises(ConfigFault, match="can't read"):
        open_trace(tmp_path / "missing")


@given(
    lines=st.lists(st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"")), min_size=1, max_size=40),
    size=st.integers(1, 60),
    ends=st.booleans(),
    back=st.booleans(),
)
@settings(deadline=None)
def test_blocks_are_the_files_lines_whatever_their_size(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], size: int, ends: bool, back: bool
) -> None:
    path = tmp_path_factory.mktemp("t") / "t"
    path.write_bytes(b"\n".join(lines) + (b"\n" if ends else b""))
    whole = path.read_bytes().split(b"\n")
    whole = whole[:-1] if not whole[-1] else whole
    trace = Trace(path, path.stat().st_size, False, False, back, b"", size)

    blocks = list(trace.blocks())
    numbered = [pair for block in blocks for pair in enumerate(block.lines, block.line)]

    assert sorted(numbered) == list(enumerate(whole, 1))
    for at, block in enumerate(blocks[:-1]):  # and from any place on, the same follows
        assert list(trace.blocks(block.until)) == blocks[at + 1 :]


# -- time


def test_requests_are_put_in_order_and_steps_back_are_counted(tmp_path: Path) -> None:
    """Logs are written as answers end: the second line began before the first, and is the one that was kept."""
    lines = [line(BEGIN_S + 5, "a", latency_ms=10), line(BEGIN_S, "a", latency_ms=1000), line(BEGIN_S + 9, "b")]

    run = run_on(written(tmp_path / "t", lines))

    assert (run.back, run.late) == (1, 0)
    assert statuses(run) == {"miss": 2, "hit-exact": 1}


@pytest.mark.parametrize(
    ("second_s", "stream", "expected"),
    [(0.5, False, "joined"), (1.5, False, "hit-exact"), (0.5, True, "miss"), (11.5, False, "miss")],
)
def test_what_overlaps_joins_what_comes_later_hits(
    tmp_path: Path, second_s: float, stream: bool, expected: str
) -> None:
    first, second = line(BEGIN_S, "a", latency_ms=1000), line(BEGIN_S + second_s, "a", latency_ms=1000)
    second["body"]["stream"] = stream

    run = run_on(written(tmp_path / "t", [first, second]), config_with(cache__ttl_s=10))

    assert statuses(run) == ({"miss": 2} if expected == "miss" else {"miss": 1, expected: 1})


def test_without_latencies_nothing_is_joined_and_without_times_nothing_expires(tmp_path: Path) -> None:
    run = run_on(written(tmp_path / "t", [line(None, "a"), line(None, "a")]))

    assert statuses(run) == {"miss": 1, "hit-exact": 1}
    assert (run.timeless, run.measured, run.first_s) == (2, 0, None)


def test_the_store_is_as_small_as_configured(tmp_path: Path) -> None:
    lines = [line(BEGIN_S + n, f"q{n % 3}") for n in range(9)]
    path = written(tmp_path / "t", lines)

    assert statuses(run_on(path, config_with(store__max_entries=2))) == {"miss": 9}
    assert statuses(run_on(path, config_with(store__max_entries=3))) == {"miss": 3, "hit-exact": 6}


def test_failed_answers_are_not_kept_and_refused_credentials_get_nothing(tmp_path: Path) -> None:
    lines = [
        line(BEGIN_S, "a", tenant="t"),
        line(BEGIN_S + 1, "b", tenant="t", status=401),
        line(BEGIN_S + 2, "a", tenant="t"),  # refused meanwhile, so asked again; a success clears it
        line(BEGIN_S + 3, "a", tenant="t"),
        line(BEGIN_S + 4, "c", tenant="t", status=500),
        line(BEGIN_S + 5, "c", tenant="t", status=500),
    ]

    run = run_on(written(tmp_path / "t", lines))

    assert statuses(run) == {"miss": 5, "hit-exact": 1}


def test_groups_and_prices(tmp_path: Path) -> None:
    lines = [line(BEGIN_S + n, "a", tags={"team": "x" if n % 2 else "y"}) for n in range(4)]

    run = run_on(written(tmp_path / "t", lines), by=("tag:team", "model"))

    tally = run.lanes[0].tally
    assert {key: sums.requests for key, sums in tally.groups.items()} == {("x", "m"): 2, ("y", "m"): 2}
    one = 10 * 2_000_000 + 5 * 8_000_000  # pico-dollars: 10 tokens at $2, 5 at $8 per million
    assert (tally.total.baseline, tally.total.cost, tally.total.saved_exact) == (4 * one, one, 3 * one)
    assert sum(sums.net for sums in tally.groups.values()) == tally.total.net == 3 * one


# -- stopping and going on


def traffic(count: int, seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    lines = []
    for n in range(count):
        text = f"please tell me about item {chance.randrange(12)} in shop {chance.randrange(3)}"
        at_s = BEGIN_S + n + chance.uniform(-3, 3)
        lines.append(line(at_s, text, latency_ms=chance.uniform(0, 4000), said=text[-20:], tags={"n": str(n % 2)}))
    return lines


def test_a_run_that_is_stopped_again_and_again_ends_with_the_same_figures(tmp_path: Path) -> None:
    path = written(tmp_path / "t", [*traffic(200, 1), "{broken", *traffic(50, 2)])
    trace = replace(open_trace(path), block_bytes=3000)
    configs = (config_with(cache__ttl_s=20, cache__variants=2), config_with(cache__ttl_s=60))
    chosen = [{"cache.ttl_s": "20"}, {"cache.ttl_s": "60"}]
    services = {f"config {n}": one for n, one in enumerate(configs)}
    cards = [RateCard(one.prices.models) for one in configs]
    services |= {f"prices {n}": card for n, card in enumerate(cards)}
    by = ("tag:n",)

    def begun() -> Run:
        return Run([Lane(one, at, cards[at], by=by) for at, one in enumerate(configs)], by)

    straight = run_on(trace, *configs, run=begun())
    stopped, stops = begun(), 0
    while not stopped.finished:
        asked: list[int] = []
        run_on(trace, *configs, run=stopped, stop=lambda asked=asked: bool(asked.append(1)) or len(asked) >= 2)
        save_state(tmp_path / "state", stopped, "f", b"k" * 32, services)
        stopped, stops = load_state(tmp_path / "state", "f", b"k" * 32, services), stops + 1

    assert stops > 5
    assert as_json(stopped, chosen, (), 0.95) == as_json(straight, chosen, (), 0.95)
    assert stopped.lanes[0].tally.total.hits != stopped.lanes[1].tally.total.hits


def test_a_state_of_others_is_refused(tmp_path: Path) -> None:
    path, run = tmp_path / "state", Run([])
    with pytest.raises(ConfigFault, match="nothing to resume"):
        load_state(path, "f", b"k" * 32, {})
    save_state(path, run, "f", b"k" * 32, {})

    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigFault, match="other settings"):
        load_state(path, "g", b"k" * 32, {})
    with pytest.raises(ConfigFault, match="not written by this farthing"):
        load_state(path, "f", b"x" * 32, {})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigFault, match="damaged"):
        load_state(path, "f", b"k" * 32, {})


def test_a_state_holds_no_key_of_the_upstream(tmp_path: Path) -> None:
    config = config_with(upstream__api_key="sk-very-secret")
    run = Run([Lane(config, 0, RateCard({}))])

    save_state(tmp_path / "state", run, "f", b"k" * 32, {"config 0": config})

    assert b"sk-very-secret" not in (tmp_path / "state").read_bytes()


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
