"""How other gateways are had: by uv or pip, and beside what measures no time."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from bench import peers, run
from bench.hot import Effort, Tell
from bench.machine import Place
from bench.peers import NotInstalled, environment
from bench.report import Report

WAIT_S = 20.0


def test_pip_installs_a_peer_where_uv_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def ran(command: list[str], install: bool) -> None:
        asked.append(command)
        if "uv" in command:
            raise NotInstalled("no such index")

    monkeypatch.setattr(peers, "_run", ran)
    monkeypatch.setenv("FARTHING_BENCH_ODD", str(tmp_path / "odd"))

    assert environment("odd", "odd[all] ==1") == tmp_path / "odd"

    assert [command[2] for command in asked] == ["venv", "uv", "pip"]
    assert all(command[-2:] == ["odd[all]", "==1"] for command in asked[1:])


def test_what_neither_can_install_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARTHING_BENCH_ODD", str(tmp_path / "odd"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")

    with pytest.raises(NotInstalled, match=r"not installed: .*no-such-package-of-farthing"):
        environment("odd", "no-such-package-of-farthing==1")


def test_peers_are_fetched_beside_the_run_over_memory_and_are_there_when_they_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, measured, there = (threading.Event() for _ in range(3))
    seen: list[str] = []

    def fetch() -> None:
        begun.set()
        assert measured.wait(WAIT_S)
        time.sleep(0.2)  # whoever does not wait starts without it
        there.set()

    def memory(here: Place, effort: Effort, tell: Tell) -> Report:
        assert begun.wait(WAIT_S)
        measured.set()
        seen.append("memory")
        return Report("memory", "Memory", ["a"])

    def with_peers(here: Place, effort: Effort, tell: Tell) -> Report:
        assert there.is_set()
        seen.append("peers")
        return Report("peers", "Peers", ["a"])

    for name, value in {
        "fetch": fetch,
        "EXPERIMENTS": {"memory": memory, "peers": with_peers},
        "place": lambda folder: Place(folder, 0, 0),
        "ROOT": tmp_path,
        "RESULTS": tmp_path / "results",
    }.items():
        monkeypatch.setattr(run, name, value)

    assert run.main(["all", "--no-docs"]) == 0

    assert seen == ["memory", "peers"]
