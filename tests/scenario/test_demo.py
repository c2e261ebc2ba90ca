"""`farthing demo` from end to end, as a user runs it: a pipe, the real proxy, the official client."""

import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from farthing.proxy import small_model
from farthing.proxy.demo import clear
from tests.fakes import commands

DEMO = [sys.executable, "-m", "farthing.proxy.cli", "demo"]
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300  # a real model beside other work takes minutes


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FARTHING_")}


def run_demo(state: Path, *options: str, target: str = "") -> subprocess.CompletedProcess[str]:
    """With a target: by make, as the README has it, where make has nothing left to install for that."""
    arguments = ["--state", str(state), *options]
    stamp = {"demo": ".model", "demo-evals": ".eval"}.get(target)
    by_make = ["make", "--no-print-directory", f"VENV={sys.prefix}"]
    made = stamp and shutil.which("make") and not ran([*by_make, "--question", f"{sys.prefix}/{stamp}"]).returncode
    if made:
        return ran([*by_make, target, f"ARGS={shlex.join(arguments)}"])
    return ran([*DEMO, *(["--evals"] if target == "demo-evals" else []), *arguments])


def ran(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment(), cwd=ROOT
    )


def ledger_counts(state: Path) -> dict[str, int]:
    with sqlite3.connect(state / "ledger.db") as ledger:
        rows = ledger.execute("select cache, count(*) from requests where endpoint = 'chat' group by cache")
        counts = {str(cache): int(count) for cache, count in rows}
    ledger.close()
    return counts


def shown_counts(output: str) -> dict[str, int]:
    """The last line of progress: what the client counted."""
    last = [line for line in output.splitlines() if " requests: exact " in line][-1]
    words = {"hit-exact": "exact", "hit-semantic": r"semantic \(unproven\)", "joined": "joined", "miss": "upstream"}
    found = {kind: re.search(rf"{word} (\d+)", last) for kind, word in words.items()}
    return {kind: int(match[1]) for kind, match in found.items() if match and int(match[1])}


def left_behind(state: Path) -> list[str]:
    """Command lines of processes that work in this state directory (Linux)."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cwd").readlink() == state:
                found.append((path / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def check_second_act(said: str) -> None:
    """Too short a run proves nothing, and says so: nothing is served, and nothing is called unproven."""
    assert "at most 10%" in said
    assert "handover  observing" in said
    assert "team      observing" in said
    assert said.count("is not proved for this route in this run") == 2
    assert "unproven" not in said


def check_replay(state: Path, said: str, requests: int) -> None:
    """The command that the demo ends with, run as it stands: the ledger's hits, from the trace that was left."""
    command = next(line.strip() for line in said.splitlines() if " replay " in line and "--sweep" not in line)
    name, *arguments = shlex.split(command)
    assert Path(name).name == "farthing"
    ended = commands.ran(*arguments, "--json", timeout_s=TIMEOUT_S)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    (replayed,) = found["replayed"]
    recorded = {kind: count for kind, count in found["recorded"]["statuses"].items() if count}
    assert (found["requests"], found["broken"]["count"], found["left_out"]) == (requests, 0, {})
    assert recorded == ledger_counts(state)
    # Whether one joins or comes a moment later is a matter of milliseconds, which a busy machine doesn't keep.
    for kinds in (["hit-exact", "joined"], ["hit-semantic"], ["miss"]):
        counts = [sum(one.get(kind, 0) for kind in kinds) for one in (replayed["statuses"], recorded)]
        assert counts[0] == counts[1], (kinds, replayed["statuses"], recorded)


def check_books(state: Path) -> None:
    """Savings add up in every row of the demo's own ledger, and roll-ups are the sums of their rows."""
    for ledger in (state / "ledger.db", *state.glob("second-*/ledger.db")):
        ended = commands.ran("ledger", "check", "--state", str(ledger.parent), timeout_s=TIMEOUT_S)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def check_run(state: Path, ended: subprocess.CompletedProcess[str], requests: int) -> str:
    """All but what its second act comes to, whose text is returned."""
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{requests}/{requests} requests" in ended.stdout
    counts = ledger_counts(state)
    assert counts == shown_counts(ended.stdout), ended.stdout
    assert sum(counts.values()) == requests
    assert counts["joined"] >= 1
    assert counts["hit-exact"] >= 1
    assert "unproven" in ended.stdout
    assert "/farthing/" not in ended.stdout.rpartition("what the ledger says")[2], "the address of what is gone"
    assert "without --once" in ended.stdout.splitlines()[-1]
    second, _, replay = ended.stdout.partition("from observe to serve")[2].partition("\nReplay ")
    check_replay(state, replay, requests)
    check_books(state)
    assert left_behind(state) == []
    return second


@pytest.mark.long
@pytest.mark.timeout(TIMEOUT_S)
def test_simulated_it_says_so_and_with_enough_requests_a_route_goes_from_observe_to_serve(tmp_path: Path) -> None:
    ended = run_demo(tmp_path, "--simulated", "--once", "--requests", "150")
    said = check_run(tmp_path, ended, 150)
    headings = [line for line in ended.stdout.splitlines() if "─" * 10 in line and "farthing demo" in line]
    assert headings
    assert all("simulated" in line for line in headings)
    with sqlite3.connect(tmp_path / "ledger.db") as ledger:
        sources = {row[0] for row in ledger.execute("select distinct price_source from requests")}
        money = ledger.execute("select sum(cost_usd), sum(baseline_usd) from requests").fetchone()
    ledger.close()
    assert any("gpt-4o-mini" in source and "simulated" in source for source in sources), sources
    assert 0 < money[0] < money[1]
    handover = next(line for line in said.splitlines() if "handover  SERVING" in line)
    assert "simulated" in handover
    bound = re.search(r"at most ([0-9.]+)%; promise: at most 10%", handover)
    assert bound and 0 < float(bound[1]) <= 10
    hits = re.search(r"(\d+) near-duplicates answered by the cache from request (\d+)", said)
    assert hits and int(hits[1]) >= 1
    assert int(hits[2]) >= 50, "served before enough could have been compared"
    assert "team      observing" in said
    (second,) = tmp_path.glob("second-*")
    with sqlite3.connect(second / "ledger.db") as ledger:
        reasons = dict(
            ledger.execute("select cache_reason, count(*) from requests where cache = 'hit-semantic' group by 1")
        )
    ledger.close()
    assert reasons == {"proved": int(hits[1])}


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_an_interrupted_demo_leaves_nobody_behind(tmp_path: Path) -> None:
    argv = [*DEMO, "--state", str(tmp_path), "--simulated", "--requests", "2000"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment()) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "/2000 requests" in line:
                break
        assert len(left_behind(tmp_path)) == 2
        demo.send_signal(signal.SIGINT)
        assert demo.wait(TIMEOUT_S) == 130
        assert "stopped" in demo.stdout.read()
    assert left_behind(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_demo_leaves_nobody_behind(tmp_path: Path) -> None:
    argv = [*DEMO, "--state", str(tmp_path), "--simulated", "--requests", "2000"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment()) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "/2000 requests" in line:
                break
        demo.kill()
    deadline = time.monotonic() + 20
    while left_behind(tmp_path):
        assert time.monotonic() < deadline, left_behind(tmp_path)
        time.sleep(0.1)


def test_of_a_temporary_folder_the_trace_is_left_and_nothing_else(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "second-1").mkdir(parents=True)
    for name in ("trace.jsonl", "demo.toml", "ledger.db", "capture.db", "second-1/ledger.db"):
        (home / name).touch()
    clear(home, [home / "trace.jsonl", home / "demo.toml"])
    assert sorted(path.name for path in home.rglob("*")) == ["demo.toml", "trace.jsonl"]
    clear(home, [])
    assert not home.exists()


@pytest.mark.parametrize("option", [["--requests", "0"], ["--port", "70000"]])
def test_nonsense_is_refused(tmp_path: Path, option: list[str]) -> None:
    assert run_demo(tmp_path, *option).returncode == 2


@pytest.mark.model
@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.skipif(bool(small_model.missing()), reason=f"{small_model.missing()} (see small_model.INSTALL)")
def test_the_demo_with_a_real_model(tmp_path: Path) -> None:
    # A sample that repeats itself soon: what is asked again costs no model's time.
    ended = run_demo(tmp_path, "--once", "--requests", "24", "--seed", "19", target="demo")
    check_second_act(check_run(tmp_path, ended, 24))
    assert "SmolLM2" in ended.stdout
    assert "simulated" not in ended.stdout
