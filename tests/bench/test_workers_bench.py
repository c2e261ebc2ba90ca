"""The ruler for several processes: the balancer that is shipped, and tables that say what was measured."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from bench import crowd
from bench.load import Window
from bench.machine import Place
from bench.servers import Running, state_of
from bench.workers import report_of
from farthing.proxy.clock import SystemRandomness
from farthing.proxy.state import local_secret


def of(server: str, at_once: int, per_s: float, errors: int = 0) -> Window:
    return Window(server, at_once, 100, errors, per_s, 1.0, 2.0, 0.0, 0.01)


def test_the_balancer_is_the_shipped_one_but_for_its_places(tmp_path: Path) -> None:
    conf, upstreams = crowd.balanced(9100, [9001, 9002], tmp_path)

    assert "listen 127.0.0.1:9100;" in conf and f"{tmp_path}/nginx.pid" in conf and "/tmp/nginx" not in conf
    assert "least_conn" in conf
    assert upstreams.count("server 127.0.0.1:900") == 2


def test_replicas_have_one_secret_so_that_each_finds_what_another_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Place(tmp_path, "0", "0")
    seen: list[str] = []

    def started(name: str, *given: object) -> AbstractContextManager[Running]:
        folder = state_of(name, here)
        seen.append(local_secret(folder, SystemRandomness()).hex())
        return nullcontext(Running(name, 1, 1))

    monkeypatch.setattr(crowd, "farthing", started)
    for number in range(2):
        with crowd.replica(f"replica {number}", 9000, "redis://127.0.0.1:1/0", "5a" * 32, here):
            pass
    assert seen == ["5a" * 32] * 2
    assert len(list(tmp_path.glob("*/secret"))) == 2


def test_a_shipped_file_that_has_changed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "nginx.conf"
    other.write_text("http {}")
    monkeypatch.setattr(crowd, "SHIPPED", other)
    with pytest.raises(ValueError, match="has no 'listen 8080;' any more"):
        crowd.balanced(9100, [9001], tmp_path)


def test_rows_are_medians_in_the_order_of_what_is_asked_and_at_once() -> None:
    windows = {
        ("direct (the upstream itself)", "hit", 1): [of("d", 1, 9)],
        ("one", "hit", 16): [of("one", 16, 10), of("one", 16, 30), of("one", 16, 20, errors=2)],
        ("one", "hit", 1): [of("one", 1, 5)],
        ("two", "hit", 1): [of("two", 1, 7)],
        ("direct (the upstream itself)", "miss", 1): [of("d", 1, 40)],
    }
    rows = report_of("tiers", "t", windows).rows

    assert [row[:4] for row in rows] == [
        ["one", "hit", "1", "5"],
        ["two", "hit", "1", "7"],
        ["one", "hit", "16", "20"],
        ["direct (the upstream itself)", "miss", "1", "40"],
    ]
    assert [row[-1] for row in rows] == ["0", "0", "2", "0"]
    assert rows[0][6] == "100"
