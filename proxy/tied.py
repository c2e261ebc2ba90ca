"""Runs a command that ends when the program that started it does, even if that one is killed.

    python -m farthing.proxy.tied PARENT_PID COMMAND [ARGUMENT ...]

It asks Linux for SIGTERM on the parent's death and then becomes the command, with the same process id. On other
systems it only becomes the command.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["command", "main"]

PR_SET_PDEATHSIG = 1  # linux/prctl.h; kept across execve (prctl(2))


def command(argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` tied to this program."""
    return [sys.executable, "-m", "farthing.proxy.tied", str(os.getpid()), *argv]


def main(argv: Sequence[str]) -> None:
    """Become `argv[1:]`, tied to the parent whose id is `argv[0]`. Returns only where that parent is gone already."""
    parent, argv = int(argv[0]), argv[1:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the request above was in force
            return
    os.execvp(argv[0], list(argv))


if __name__ == "__main__":
    main(sys.argv[1:])
