"""Marks of processes: held while they live, dead when they are gone, however they go."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from farthing.cache.alive import Alive

HOLD = """
import sys
from pathlib import Path
from farthing.cache.alive import Alive
mark = Alive(Path(sys.argv[1]), sys.argv[2])
mark.begin()
print(mark.name, flush=True)
sys.stdin.read()
"""


def begun(folder: Path, name: str) -> Alive:
    mark = Alive(folder, name)
    mark.begin()
    return mark


def test_a_process_that_is_killed_is_dead_and_one_that_lives_is_not(tmp_path: Path) -> None:
    us = begun(tmp_path / "alive", "us")
    command = [sys.executable, "-c", HOLD, str(tmp_path / "alive"), "other"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "other\n"
        assert not us.dead("other")
        us.sweep()
        assert not us.dead("other"), "nobody takes a living one's mark away"
        other.kill()
        other.wait()
        assert us.dead("other")
    us.sweep()
    assert [path.name for path in (tmp_path / "alive").iterdir()] == ["us"]
    assert us.dead("other"), "its mark is removed"
    us.close()


def test_one_that_closes_is_gone_and_one_that_asks_of_itself_lives(tmp_path: Path) -> None:
    one, two = begun(tmp_path / "alive", "one"), begun(tmp_path / "alive", "two")
    assert not one.dead("one") and not one.dead("two")
    two.close()
    two.close()
    assert two.name == ""
    assert one.dead("two")


def test_a_name_that_is_taken_is_not_taken_over(tmp_path: Path) -> None:
    one = begun(tmp_path / "alive", "one")
    again = begun(tmp_path / "alive", "one")
    assert (one.name, again.name) == ("one", "")
    again.close()
    assert not again.dead("one")


def test_where_no_mark_can_be_made_there_is_none_and_nobody_is_dead_who_cannot_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    mark = begun(tmp_path / "file", "one")
    assert mark.name == ""
    assert not mark.dead("two")
    mark.sweep()
    mark.close()


def test_a_mark_that_is_removed_between_making_and_locking_it_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process sweeps just then: a mark that nobody finds would say that this one is dead."""
    made = os.open

    def opened_and_swept(path: Path, flags: int, mode: int = 0o777) -> int:
        handle = made(path, flags, mode)
        path.unlink()
        return handle

    monkeypatch.setattr(os, "open", opened_and_swept)
    assert begun(tmp_path / "alive", "one").name == ""
