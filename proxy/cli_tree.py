"""How the command line's commands are found: names of two words, and no more of them made than was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import typer
from typer.core import TyperGroup
from typer.models import CommandInfo

__all__ = ["TwoWords", "asked_for"]


class TwoWords(TyperGroup):
    """Lets a command's name have two words, so that `compress advise` stands beside `compress FILE`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        two = " ".join(args[:2])
        return super().resolve_command(ctx, [two, *args[2:]] if two in self.commands else args)


def asked_for(app: typer.Typer, arguments: Sequence[str]) -> typer.Typer:
    """The app with the commands that the first argument can mean; all of it where that is none of their names.

    typer makes each command out of its function's signature before it looks which one is asked for. Fifty take 0.1 s.
    """
    first = arguments[0] if arguments else ""
    groups = [one for one in app.registered_groups if one.name == first]
    commands = [one for one in app.registered_commands if _name(one).partition(" ")[0] == first]
    if not groups and not commands:
        return app
    found = copy(app)
    found.registered_groups = groups
    # A command that is alone would lose its name.
    found.registered_commands = commands + [one for one in app.registered_commands if one not in commands][-1:]
    return found


def _name(command: CommandInfo) -> str:
    return command.name or getattr(command.callback, "__name__", "").replace("_", "-")
