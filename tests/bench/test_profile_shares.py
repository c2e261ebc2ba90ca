"""Where a profile's samples are said to be: each once, and all of them somewhere."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.profile import section
from bench.profile_shares import (
    CLIENT,
    LOOP,
    PARTS,
    ROOMS,
    SERVER,
    STAGES,
    UNKNOWN,
    Frame,
    by_library,
    by_part,
    by_start,
    samples,
    shares,
    side_by_side,
)
from bench.servers import ROOT
from tests.fakes.examples import examples

_LIB = "/usr/lib/python3.11"
_SITE = f"{_LIB}/site-packages"
RUN = Frame("Runner.run", f"{_LIB}/asyncio/runners.py")
SERVE = Frame("serve", "/x/proxy/serve.py")
HANDLE = Frame("Relay.handle", "/x/proxy/server.py")


@pytest.mark.parametrize(
    ("thread", "stack", "part", "library"),
    [
        ("MainThread", [SERVE, RUN], LOOP, "uvloop, with the kernel"),
        ("MainThread", [SERVE, RUN, HANDLE], "between: pipeline, relay, tasks, clock", "farthing, proxy"),
        (
            "MainThread",
            [RUN, HANDLE, Frame("digest_of", "/x/cache/key.py"), Frame("dumps", f"{_LIB}/json/__init__.py")],
            "the key: canonical form, digest",
            "Python's own",
        ),
        (
            "MainThread",
            [RUN, HANDLE, Frame("Relay._send", "/x/proxy/server.py")],
            "writing the answer",
            "farthing, proxy",
        ),
        ("MainThread", [RUN, Frame("data_received", f"{_SITE}/aiohttp/web_protocol.py")], SERVER, "aiohttp"),
        ("MainThread", [RUN, HANDLE, Frame("send", f"{_SITE}/aiohttp/client_reqrep.py")], CLIENT, "aiohttp"),
        ("MainThread", [RUN, Frame("decide", "/x/policies/eligibility.py")], STAGES, "farthing, policies"),
        (
            "MainThread",
            [RUN, Frame("Repeats.find", "/x/proxy/repeat.py"), Frame("passable", "/x/proxy/build.py")],
            "short way of a hit",
            "farthing, proxy",
        ),
        (
            "ledger",
            [Frame("Ledger._insert", "/x/proxy/ledger.py")],
            "ledger's threads: writing rows",
            "farthing, proxy",
        ),
        (
            "ledger",
            [Frame("Upkeep.step", "/x/proxy/ledger_upkeep.py"), Frame("sum", f"{_SITE}/numpy/core.py")],
            "ledger's threads: roll-up",
            "numpy",
        ),
        ("uvloop_1", [Frame("x", "/x/proxy/tokens.py")], "helpers' threads", "farthing, proxy"),
        ("MainThread", [Frame("who knows", "")], UNKNOWN, UNKNOWN),
    ],
)
def test_a_sample_is_what_its_thread_or_its_innermost_known_frame_says(
    thread: str, stack: list[Frame], part: str, library: str
) -> None:
    assert by_part(thread, stack) == part
    assert by_library(thread, stack) == library


def test_every_module_that_a_part_names_is_there() -> None:
    named = [module for modules in PARTS.values() for module in modules.split()]

    assert len(set(named)) == len(named)
    assert [module for module in named if not (ROOT / f"{module}.py").exists()] == []
    assert {module.partition("/")[0] for module in named} <= set(ROOMS)


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ([Frame("<module>", f"{_SITE}/aiohttp/client.py"), Frame("x", f"{_LIB}/enum.py")], "importing aiohttp"),
        ([Frame("<module>", f"{_LIB}/asyncio/events.py")], "importing Python's own"),
        (
            [Frame("<module>", "/x/proxy/row.py"), Frame("_process_class", f"{_LIB}/dataclasses.py")],
            "importing farthing: making dataclasses",
        ),
        ([Frame("<module>", "/x/proxy/row.py")], "importing farthing: its own code"),
        (
            [Frame("<module>", "/x/proxy/row.py"), Frame("get_data", "<frozen importlib._bootstrap_external>")],
            "importing farthing: finding and reading modules",
        ),
        ([Frame("compile", f"{_LIB}/re/_compiler.py")], "running farthing: regular expressions"),
        ([Frame("load", "/x/proxy/config.py")], "running farthing: its own code"),
        ([], UNKNOWN),
    ],
)
def test_a_start_says_what_is_imported_and_what_for(inner: list[Frame], said: str) -> None:
    assert by_start("MainThread", [Frame("<module>", ""), *inner]) == said


def a_profile(stacks: list[list[int]]) -> dict[str, Any]:
    frames = [
        {"name": "Runner.run", "file": f"{_LIB}/asyncio/runners.py"},
        {"name": "digest_of", "file": "/x/cache/key.py"},
        {"name": "_worker", "file": f"{_LIB}/concurrent/futures/thread.py"},
        {"name": "nobody", "file": ""},
    ]
    thread = {"name": 'Thread 12 "MainThread"', "samples": stacks, "weights": [0.002] * len(stacks)}
    return {"shared": {"frames": frames}, "profiles": [thread]}


@given(st.lists(st.lists(st.integers(0, 3), max_size=4), max_size=60))
@settings(max_examples=examples(60), deadline=None)
def test_shares_add_up_whatever_was_sampled(stacks: list[list[int]]) -> None:
    profile = a_profile(stacks)
    counted = [stack for stack in stacks if stack and stack[-1] != 2]

    for rule in (by_part, by_library, by_start):
        found = shares(samples(profile), rule)
        assert sum(found.values()) == pytest.approx(1.0 if counted else 0.0)
    assert len(list(samples(profile))) == len(counted)


def test_a_thread_weighs_what_the_processor_did_for_it_and_not_how_long_it_waited_for_it() -> None:
    profile = {
        "shared": {"frames": [{"name": "a", "file": "x.py"}, {"name": "wait", "file": "threading.py"}]},
        "profiles": [
            {"name": 'Thread 11 "MainThread"', "samples": [[0], [0], [0, 1]], "weights": [1, 1, 1]},
            {"name": 'Thread 12 "watch"', "samples": [[0]] * 6, "weights": [1] * 6},
        ],
        "cpu_s": {"11": 9.0, "12": 1.0, "13": 5.0},
    }
    assert shares(samples(profile), lambda thread, _: thread) == pytest.approx({"MainThread": 0.9, "watch": 0.1})
    del profile["cpu_s"]
    assert shares(samples(profile), lambda thread, _: thread) == pytest.approx({"watch": 0.75, "MainThread": 0.25})


def test_columns_stand_side_by_side_and_small_parts_in_one_row() -> None:
    rows = side_by_side({"a": {"x": 0.9, "y": 0.096, "z": 0.004}, "b": {"y": 0.5, UNKNOWN: 0.5}})

    assert rows == [
        ["x", "90.0%", "0.0%"],
        ["y", "9.6%", "50.0%"],
        ["less than 0.5% everywhere (1 more)", "0.4%", "0.0%"],
        [UNKNOWN, "0.0%", "50.0%"],
        ["together", "100.0%", "100.0%"],
    ]


def test_the_pages_section_has_all_loads_what_they_cost_and_how_busy_the_machine_was() -> None:
    profiles = {name: a_profile([[0], [0, 1]]) for name in ("hit", "miss", "start")}

    text = section(profiles, {"hit": (1.0, 10_000), "miss": (2.0, 1_000)}, "how.", 0.25)

    assert text.startswith("how.\n")
    assert "hit 100 µs, miss 2,000 µs" in text
    assert "Load average of the machine before: 0.2" in text
    assert "| what a start does " in text
    assert text.count("| together ") == 3
