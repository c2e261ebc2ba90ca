"""Progress of long work in steps: a bar on a terminal; in a pipe a line for every tenth part."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import Progress

__all__ = ["Steps"]


class Steps:
    """A context. `told`: which steps are worth a line in a pipe."""

    def __init__(self, terminal: bool, told: Callable[[str], bool] = lambda what: True) -> None:
        self._bar = Progress(console=Console(stderr=True), transient=True) if terminal else None
        self._told = told
        self._what, self._tenth = "", 0
        self._task: Any = None

    def __enter__(self) -> Steps:
        """Show it."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        if self._bar is not None:
            self._bar.stop()

    def tell(self, what: str, done: int, total: int) -> None:
        """So far `done` of `total` of this step."""
        new, self._what = what != self._what, what
        if self._bar is not None:
            if new:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(what, total=total)
            self._bar.update(self._task, completed=done)
            return
        tenth = 10 * done // max(total, 1)
        if (new or tenth > self._tenth) and self._told(what):
            sys.stderr.write(f"{what}: {done:,} of {total:,}\n")
        self._tenth = tenth
