"""A replay's course: broken lines, order of time, bounds, stopping and going on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.cache.embedder import open_embedder
from farthing.cache.verifier import Verifier
from farthing.proxy.errors import ConfigFault
from farthing.proxy.prices import RateCard
from farthing.proxy.replay_facts import reading_of
from farthing.proxy.replay_lane import Lane
from farthing.proxy.replay_near import NearLane, Reader
from farthing.proxy.replay_read import Trace, open_trace
from farthing.proxy.replay_run import Run, play
from farthing.proxy.replay_state import load as load_state
from farthing.proxy.replay_state import save as save_state
from farthing.proxy.replay_table import as_json, headline, notes
from tests.fakes.traces import BEGIN_S, config_with, line, run_on, traffic, written

THINGS = "router charger garden kettle bicycle camera engine mirror carpet blanket wallet tablet printer scooter"


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
    assert notes(run)[-1] == "16 lines could not be used; the first 10:"  # the lines are printed after it
    alone = notes(run_on(written(tmp_path / "one.jsonl", [good, "}"])))
    assert alone[-1] == "1 line could not be used:" and len(alone) > 1


def test_a_headline_promises_nothing_where_nothing_is_known(tmp_path: Path) -> None:
    unpriced = [line(BEGIN_S + n, "a") for n in range(2)]
    for one in unpriced:
        one["body"]["model"] = "nobodys"
    trace = written(tmp_path / "t.jsonl", unpriced)
    both = (config_with(), config_with(cache__ttl_s=5))

    assert headline(run_on(trace, *both), [{"n": 1}, {"n": 2}], 0.95) == "No price is known for any of 2 requests."
    assert headline(run_on(trace, stop=lambda: True), [{}], 0.95).startswith("Stopped before any request")


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
    assert as_json(stopped, chosen, [(), ()], 0.95) == as_json(straight, chosen, [(), ()], 0.95)
    assert stopped.lanes[0].tally.total.hits != stopped.lanes[1].tally.total.hits


def test_what_near_duplicates_have_learnt_is_kept_while_a_run_is_stopped(tmp_path: Path) -> None:
    """Index, words, policy and chance: all that a route knows goes on where it was."""
    reader = Reader(open_embedder("minilm-int8"), Verifier.open())
    config = config_with(semantic__mode="serve", semantic__max_wrong=0.25, semantic__confidence=0.8)
    card = RateCard(config.prices.models)
    services = {"config": config, "card": card, "reader": reader, "embedder": reader.embedder}
    services["verifier"] = reader.verifier
    readings = [reading_of(config, near=True, beyond=False)]
    things = [f"{verb} my {thing}" for verb in ("clean", "sell", "move") for thing in THINGS.split()]
    texts = [text.format(thing) for thing in things for text in ("How do I {}?", "How can I {}?")]
    path = written(tmp_path / "t", [line(BEGIN_S + n, text, latency_ms=300) for n, text in enumerate(texts)])
    trace = replace(open_trace(path), block_bytes=4000)

    def begun() -> Run:
        return Run([Lane(config, 0, card, near=NearLane(config.semantic, reader))])

    straight, stopped = begun(), begun()
    play(straight, trace, readings, "", processes=1)
    while not stopped.finished:
        play(stopped, trace, readings, "", processes=1, stop=lambda: True)
        save_state(tmp_path / "state", stopped, "f", b"k" * 32, services)
        stopped = load_state(tmp_path / "state", "f", b"k" * 32, services)

    assert as_json(stopped, [{}], [()], 0.95) == as_json(straight, [{}], [()], 0.95)
    assert straight.lanes[0].tally.total.statuses["hit-semantic"] > 3
    assert straight.lanes[0].tally.all_wrong.count == straight.lanes[0].tally.total.statuses["hit-semantic"]


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
