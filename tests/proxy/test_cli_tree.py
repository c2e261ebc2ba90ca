"""Of the command line no more is made than was asked for, and what is asked for is the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from farthing.proxy.cli import app
from farthing.proxy.cli_tree import asked_for

TOP = typer.main.get_command(app).commands  # type: ignore[attr-defined]
WORDS = sorted({name.partition(" ")[0] for name in TOP})


@pytest.mark.parametrize("word", WORDS)
def test_whatever_is_asked_for_is_there_as_it_was(word: str) -> None:
    found = typer.main.get_command(asked_for(app, [word])).commands  # type: ignore[attr-defined]

    assert {name for name in found if name.partition(" ")[0] == word} == {
        name for name in TOP if name.partition(" ")[0] == word
    }
    assert len(found) <= 3
    for arguments in ([word, "--help"], [word, "--no-such-option"]):
        few, all_of_them = (CliRunner().invoke(one, arguments) for one in (asked_for(app, arguments), app))
        assert (few.exit_code, few.output) == (all_of_them.exit_code, all_of_them.output)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["servve"], ["--no-such-option", "serve"], [""]])
def test_where_no_command_is_named_all_are_there(arguments: list[str]) -> None:
    assert asked_for(app, arguments) is app


@pytest.mark.parametrize("arguments", [["version"], ["compress", "advise", "--help"], ["cache", "purge", "--help"]])
def test_the_console_script_finds_them(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "farthing.proxy.cli", *arguments]

    shown = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=dict(os.environ))

    assert (shown.returncode, shown.stderr) == (0, "")
    assert ("farthing " if arguments == ["version"] else f" {' '.join(arguments[:-1])} [OPTIONS]") in shown.stdout
