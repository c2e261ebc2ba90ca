"""The short form of a log: its notation, and how it is read back. Pure; `recode_log` writes it.

Grammar of a short text, line by line after the header, which is always the first line:

    @ A…B…                                 the form of the lines below that begin with a digit (ASCII)
    07.31 rest                             such a line: A07.31Brest
    @ the 2 lines above, 46 times more     what stands above, again
    @ then the same 11 lines as after the last line like this one
    | text                                 `text`, which would else read as one of these
    text                                   itself
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["DIGITS", "HEADER", "HOLE", "copied_line", "decode_log", "times_line"]

HEADER = (
    '[Log in short form, nothing left out: a line "@ A…B…" is the form of the lines below it that begin with a digit; '
    'their words fill the "…" in order, the last takes the rest. A "| " at the start is not part of its line.]'
)
HOLE = "…"
DIGITS = frozenset("0123456789")
_MOST_COPIED = 50_000_000  # characters that a short text may decode to: hostile input must not fill the memory

_TIMES = re.compile(r"@ the ([0-9]{1,3}) lines? above, ([0-9]{1,7}) times more")
_SAME = re.compile(r"@ then the same ([0-9]{1,7}) lines as after the last line like this one")


def times_line(lines: int, times: int) -> str:
    """The line that says that the lines above it come again."""
    return f"@ the {lines} line{'s' * (lines > 1)} above, {times} times more"


def copied_line(lines: int) -> str:
    """The line that says that what follows is what followed the last line like the one above it."""
    return f"@ then the same {lines} lines as after the last line like this one"


def decode_log(short: str) -> str | None:
    """The text of a short form; None where `short` isn't one."""
    first, found, body = short.partition("\n")
    if first != HEADER or not found:
        return None
    literals: list[str] | None = None
    out: list[str] = []
    last: dict[str, tuple[int, int]] = {}  # of each line: its last place, and the one before
    left = _MOST_COPIED

    def put(line: str) -> None:
        last[line] = (len(out), last.get(line, (-1, -1))[0])
        out.append(line)

    for line in body.split("\n"):
        if line.startswith("| "):
            put(line[2:])
        elif line.startswith("@ "):
            if line.endswith(HOLE):
                literals = line[2:].split(HOLE)[:-1]
                continue
            copied = _copied(line, out, last)
            if copied is None:
                return None
            for again in copied:
                left -= len(again) + 1
                if left < 0:
                    return None
                put(again)
        elif literals is not None and line[:1] in DIGITS:
            words = line.split(" ", len(literals) - 1)
            if len(words) != len(literals):
                return None
            put("".join(part for pair in zip(literals, words, strict=True) for part in pair))
        else:
            put(line)
    return "\n".join(out)


def _copied(marker: str, out: list[str], last: dict[str, tuple[int, int]]) -> Iterator[str] | None:
    """The lines that a marker stands for; None where it can't be followed."""
    if (times := _TIMES.fullmatch(marker)) is not None:
        period, count = int(times[1]), int(times[2])
        if not 0 < period <= len(out):
            return None
        block = out[-period:]
        return (line for _ in range(count) for line in block)
    if (same := _SAME.fullmatch(marker)) is not None and out:
        start = last[out[-1]][1] + 1
        if start == 0 or start + int(same[1]) > len(out):
            return None
        return iter(out[start : start + int(same[1])])
    return None
