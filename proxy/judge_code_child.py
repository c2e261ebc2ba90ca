"""The process in which an answer's code is run: limits itself, runs code and tests, then says that it got through.

    python -I judge_code_child.py FD CPU_S MEMORY_BYTES UNLIMITED      {"code", "tests", "word"} on standard input

`word` goes to FD only after the last test: code that ends the process early has passed nothing. UNLIMITED: the exit
status where a limit can't be set, and nothing was run. Standard library only.
"""

from __future__ import annotations

import json
import os
import resource
import sys

_FILE_BYTES = 1 << 20
_FILES = 64


def main() -> None:
    """Run it. Whatever the code raises is the exit status 1, without a trace: its text could be anything."""
    fd, cpu_s, memory_bytes, unlimited = (int(text) for text in sys.argv[1:5])
    told = json.loads(sys.stdin.read())
    for what, limit in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, _FILE_BYTES),
        (resource.RLIMIT_NOFILE, _FILES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, most = resource.getrlimit(what)
        least = limit if most == resource.RLIM_INFINITY else min(limit, most)
        try:
            resource.setrlimit(what, (least, least))
        except (OSError, ValueError, OverflowError):
            os._exit(unlimited)
    names: dict[str, object] = {"__name__": "answer"}
    try:
        exec(compile(told["code"], "answer", "exec"), names)
        exec(compile(told["tests"], "tests", "exec"), names)
    except BaseException:  # noqa: BLE001 - an answer may raise anything
        os._exit(1)
    os.write(fd, told["word"].encode())
    os._exit(0)


if __name__ == "__main__":
    main()
