"""What a terminal shows in the end: a small model of one. Pure.

The model: lines as wide and as many as the text needs, nothing scrolls away. It knows printing, tabs (every 8
columns), line ends, carriage return, backspace, cursor moves within what was written (CSI A-G), erasing (CSI K, and J
to the end), wide and combining characters. Styles (CSI m), modes that show nothing, titles and bells are passed over.
A link (OSC 8) is shown as its words and then its target in <>, since a target is worth reading; one to a file of that
machine as its words.

Whatever speaks of absolute places, another screen, scrolling, or is a sequence that isn't known gives None: what that
shows depends on a size that nobody told us. So do carriage returns that may be line ends of an old system.

Source: ECMA-48 (control functions); xterm's documentation of control sequences (OSC 8 by its published note).
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

__all__ = ["shown"]

_SHOWS_NOTHING = re.compile(
    "\x1b\\[(?:[0-9;:]*m|\\?(?!(?:47|104[79])[hl;])[0-9;]{1,20}[hl])"
    "|\x1b\\](?!8;)[^\x07\x1b]*(?:\x07|\x1b\\\\)|\x1b[()][0-9A-Z]|\x1b[=>]|\x07"
)
_LINK_BELL = re.compile("(\x1b\\]8;[^\x07\x1b]*)\x07")  # one of the two ways to end a link; a bell elsewhere is nothing
_PART = re.compile(
    "(?P<text>[^\x00-\x1f\x7f]+)|(?P<end>\r*\n)|(?P<start>\r)|(?P<back>\b)|(?P<tab>\t)"
    "|\x1b\\[(?P<count>[0-9]{0,4})(?P<move>[A-GKJ])"
    "|\x1b\\]8;[^;\x07\x1b]*;(?P<link>[^\x07\x1b]*)\x1b\\\\"
)
_SPARE_CELLS = 65_536  # blanks that cursor moves may put in, beside 8 for each character of the text
_MOST_JOINED = 32
_BAR = frozenset("%#=█━▏▎▍▌▋▊▉░▒▓■□⣿")


def shown(text: str) -> list[str] | None:
    """The lines that a terminal shows after the text, without blanks at their ends; None where that can't be told."""
    terminal = "\x1b" in text
    if terminal or "\x07" in text:
        text = _SHOWS_NOTHING.sub("", _LINK_BELL.sub("\\1\x1b\\\\", text))
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    if "\x1b" not in text and "\b" not in text and "\r" not in text:
        return [line.rstrip(" \t") for line in text.split("\n")]
    if "\r" in text and not terminal and not _redrawn(text):
        return None
    screen = _Screen(8 * len(text) + _SPARE_CELLS)
    at = 0
    while at < len(text):
        found = _PART.match(text, at)
        if found is None or not screen.take(found):
            return None
        at = found.end()
    return ["".join(row).rstrip(" \t") for row in screen.rows]


def _redrawn(text: str) -> bool:
    """Whether the carriage returns draw a line again, rather than end it as on old systems."""
    if "\n" not in text:
        return False
    for line in text.split("\n"):
        if "\r" in line:
            drawn = [part for part in line.split("\r") if part.strip()]
            if not all(_alike(a, b, len(drawn)) for a, b in pairwise(drawn)):
                return False
    return True


def _alike(before: str, after: str, drawn: int) -> bool:
    """Whether two texts look like states of one bar, counter or spinner."""
    if after.startswith(before.rstrip()):
        return True
    if drawn < 3:
        return False
    first, then = ("".join(filter(str.isalpha, part[:80])) for part in (before, after))
    if len(first) >= 3 and first[:3] == then[:3]:
        return True
    return bool(_BAR.intersection(before) and _BAR.intersection(after)) or max(len(before), len(after)) <= 3


class _Screen:
    """Rows of cells and a cursor. A wide character's second cell is ''; a combining one joins the cell before it."""

    def __init__(self, spare_cells: int) -> None:
        self.rows: list[list[str]] = [[]]
        self._row = self._column = 0
        self._link = ""
        self._spare = spare_cells
        self._known = True

    def take(self, part: re.Match[str]) -> bool:
        """Do what one part of the text says; False where the screen isn't ours to know."""
        kind = part.lastgroup
        if kind == "text":
            self._write(part[0])
        elif kind == "end":
            self._down(1)
            self._column = 0
        elif kind == "start":
            self._column = 0
        elif kind == "back":
            self._column = max(0, self._column - 1)
        elif kind == "tab":
            self._column = self._column // 8 * 8 + 8
        elif kind == "link":
            if self._link and not part["link"]:
                self._write(f" <{self._link}>")
            self._link = "" if part["link"].startswith("file:") else part["link"]
        else:
            self._move(part["move"], part["count"])
        return self._known and self._spare >= 0

    def _move(self, move: str, digits: str) -> None:
        count = max(1, int(digits or 1))
        if move in "AF":
            self._row = max(0, self._row - count)
        elif move in "BE":
            self._row = min(len(self.rows) - 1, self._row + count)
        elif move == "C":
            self._column += count
        elif move == "D":
            self._column = max(0, self._column - count)
        elif move == "G":
            self._column = count - 1
        elif move == "K":
            self._erase(digits)
        elif digits in ("", "0"):
            self._erase("")
            del self.rows[self._row + 1 :]
        else:
            self._known = False  # the whole screen is erased, and with it what the reader was to see
        if move in "EF":
            self._column = 0

    def _erase(self, which: str) -> None:
        row = self.rows[self._row]
        if which in ("", "0"):
            del row[self._column :]
        elif which == "2":
            row.clear()
        else:
            erased = min(len(row), self._column + 1)
            self._spare -= erased
            row[:erased] = " " * erased

    def _down(self, count: int) -> None:
        self._row += count
        if self._row >= len(self.rows):
            self.rows.append([])

    def _write(self, text: str) -> None:
        row = self.rows[self._row]
        if (blanks := self._column - len(row)) > 0:
            self._spare -= blanks
            if self._spare < 0:
                return
            row.extend(" " * blanks)
        if row[self._column : self._column + 1] == [""]:
            row[self._column - 1] = " "
        for char, width in [(text, len(text))] if text.isascii() else zip(text, map(_width, text), strict=True):
            if width:
                row[self._column : self._column + width] = text if char is text else [char, ""][:width]
                self._column += width
            elif self._column:
                row[self._column - 1] += char
                self._known &= len(row[self._column - 1]) <= _MOST_JOINED
        if row[self._column : self._column + 1] == [""]:
            row[self._column] = " "


def _width(char: str) -> int:
    """The columns of a printed character: 0, 1 or 2."""
    if char.isascii():
        return 1
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1
