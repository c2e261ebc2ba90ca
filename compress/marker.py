"""What stands in a text where something was taken out: the one place that writes and reads it. Pure.

A marker says in plain words what was there, how large it was, and which tool gives it back, so it is only ever written
where that tool is offered. It has no quote and no backslash, so it may stand inside a JSON string.

    [PNG image in base64, 1834 tokens, left out: fetch_removed gives it, handle 7f3a09c2]
"""

from __future__ import annotations

import re

__all__ = ["TOOL", "handles", "intact", "marker"]

TOOL = "fetch_removed"

_MARKER = re.compile(rf"tokens?, left out: {TOOL} gives it, handle ([a-z0-9]{{6,64}})\]")
_HANDLE = re.compile(r"[a-z0-9]{6,64}")
_UNFIT = re.compile(r'["\\\[\]\x00-\x1f]')


def marker(handle: str, what: str, tokens: int) -> str:
    """The text in place of what was removed. `handle`: 6 to 64 of a-z0-9; `what`: words for the reader.

    Raises ValueError for another handle: our fault.
    """
    if not _HANDLE.fullmatch(handle):
        raise ValueError("a handle is 6 to 64 of a-z0-9")
    plural = "" if tokens == 1 else "s"
    return f"[{_UNFIT.sub(' ', what)}, {tokens} token{plural}, left out: {TOOL} gives it, handle {handle}]"


def handles(text: str) -> tuple[str, ...]:
    """The handles of all markers in a text, in order, each once. Who asks must still be allowed to have them."""
    return tuple(dict.fromkeys(_MARKER.findall(text)))


def intact(text: str) -> bool:
    """Whether all that looks like a marker can be read as one."""
    return text.count(TOOL) == len(_MARKER.findall(text))
