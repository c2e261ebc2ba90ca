"""Base64 and hex data and data URLs: found, and cut out where what stands in their place can be followed. Pure.

Only what no reader reads is a blob: at least 1,024 characters of one alphabet without a break (base64 also in lines of
the usual widths), as mixed as data are. Hashes, ids, keys and tokens are far shorter; a run that begins like a JSON Web
Token is left alone at any length. Words, numbers, paths, and sequences of few letters aren't mixed enough.

Linear: one pass finds the runs, each run is looked at once.

Sources: RFC 4648 (base64, base64url, hex), RFC 2045 §6.8 (lines of 76), RFC 7468 (64), RFC 2397 (data URLs), RFC 7519
(tokens begin with the base64 of a JSON object).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from math import log2
from typing import Literal, NamedTuple

__all__ = ["Kind", "Piece", "cut_blobs", "find_blobs"]

Kind = Literal["base64", "hex", "data url"]

_FEWEST_CHARS = 1024
_RUN = re.compile(r"[A-Za-z0-9+/_\-]{56,}={0,2}")
_RUN_START = re.compile(r"(?<![A-Za-z0-9+/_\-])(?:(?<=\\)(?:u[0-9a-fA-F]{4}|[nrtbf/]))?(?=[A-Za-z0-9+/_\-]{56})")
_HEX = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_LINE_END = re.compile(r"(?:\r?\n|(?:\\r)?\\n)[ \t]{0,16}")
_LAST_LINE = re.compile(r"[A-Za-z0-9+/_\-]{0,76}={1,2}(?![A-Za-z0-9+/=_\-])")
_WIDTHS = (60, 64, 72, 76)
_URL_HEAD = re.compile(
    r"data:([a-z]{1,20}/[a-z0-9.+\-]{1,80})?(?:;(?!base64,)[a-z0-9=.+\-]{1,60}){0,4}(;base64)?,", re.IGNORECASE
)
_URL_HEAD_CHARS = 360
_URL_DATA = re.compile(r"[^\s\"'<>()\\]*")
_LEAST_BITS = {"base64": 4.5, "hex": 3.0}  # of 6 and 4: data with many zero bytes are less mixed than noise
_STARTS = {
    "iVBORw0KGgo": "PNG image",
    "/9j/": "JPEG image",
    "R0lGOD": "GIF image",
    "UklGR": "WebP image or sound",
    "JVBERi0": "PDF file",
    "UEsDB": "ZIP file",
    "H4sI": "gzip data",
    "f0VMRg": "ELF program",
    "AAAAIGZ0eX": "MP4 video",
    "89504e47": "PNG image",
    "ffd8ff": "JPEG image",
    "25504446": "PDF file",
    "504b0304": "ZIP file",
    "1f8b08": "gzip data",
    "7f454c46": "ELF program",
}


class Piece(NamedTuple):
    """A blob: text[start:end]. `what`: words for a marker. `size_bytes`: about what it decodes to."""

    start: int
    end: int
    kind: Kind
    what: str
    size_bytes: int


def cut_blobs(text: str, handle: Callable[[str, str], str]) -> tuple[str, tuple[Piece, ...]] | None:
    """The text with each blob replaced by what `handle` gives for it, and the blobs; None where there is none.

    `handle`: takes a blob's text and words for it, and returns the marker that tells the reader how to have it back.
    May only be called where that marker can be followed. A blob whose marker isn't shorter stays.
    """
    parts: list[str] = []
    cut: list[Piece] = []
    at = 0
    for piece in find_blobs(text):
        blob = text[piece.start : piece.end]
        mark = handle(blob, piece.what)
        if len(mark) < len(blob):
            parts += (text[at : piece.start], mark)
            cut.append(piece)
            at = piece.end
    return ("".join([*parts, text[at:]]), tuple(cut)) if cut else None


def find_blobs(text: str) -> tuple[Piece, ...]:
    """The blobs of a text in order; they don't overlap. Linear."""
    if len(text) < _FEWEST_CHARS:
        return ()
    found: list[Piece] = []
    at = 0
    for piece in sorted([*_plain_urls(text), *_runs(text)]):
        if piece.start >= at:
            found.append(piece)
            at = piece.end
    return tuple(found)


def _plain_urls(text: str) -> Iterator[Piece]:
    """Data URLs whose data aren't in base64."""
    at = 0
    while (head := _URL_HEAD.search(text, at)) is not None:
        at = head.end()
        if head[2] is None and head[1] is not None:
            data = _URL_DATA.match(text, at)
            at = data.end() if data is not None else at
            if at - head.end() >= _FEWEST_CHARS:
                yield Piece(head.start(), at, "data url", f"{head[1]} as a data URL", at - head.end())


def _runs(text: str) -> Iterator[Piece]:
    """Base64 and hex; a data URL in base64 is taken with its head, the rest of a JSON escape before it isn't."""
    at = 0
    while (begin := _RUN_START.search(text, at)) is not None and (run := _RUN.match(text, begin.end())) is not None:
        start, at = run.span()
        first = run[0]
        kind: Kind = "hex" if _HEX.fullmatch(first) else "base64"
        data, at = (first, at) if kind == "hex" else _lines(text, first, at)
        token = data.startswith("eyJ") or (text[start - 1 : start] == "." and text[start - 2 : start - 1].isalnum())
        if token or len(data) < _FEWEST_CHARS or not _mixed(data, kind):
            continue
        heads = list(_URL_HEAD.finditer(text, max(0, start - _URL_HEAD_CHARS), start))
        head = heads[-1] if heads and heads[-1].end() == start else None
        name = next((name for begin, name in _STARTS.items() if data.startswith(begin)), "data")
        size_bytes = len(data) // 2 if kind == "hex" else len(data.rstrip("=")) * 3 // 4
        if kind == "base64" and head is not None and head[2]:
            yield Piece(head.start(), at, "data url", f"{head[1] or name} as a data URL", size_bytes)
        else:
            yield Piece(start, at, kind, f"{name} in {kind}", size_bytes)


def _lines(text: str, first: str, at: int) -> tuple[str, int]:
    """The data that begin with the run `first`, which ends at `at`, and where they end: lines of one usual width."""
    if len(first) not in _WIDTHS or first.endswith("="):
        return first, at
    data = [first]
    while (end := _LINE_END.match(text, at)) is not None:
        run = _RUN.match(text, end.end())
        if run is not None and len(run[0]) == len(first):
            data.append(run[0])
            at = run.end()
            continue
        last = _LAST_LINE.match(text, end.end())
        if last is not None and len(last[0]) < len(first):
            data.append(last[0])
            at = last.end()
        break
    return "".join(data), at


def _mixed(data: str, kind: Kind) -> bool:
    """Whether the characters are as mixed as those of encoded data: entropy in bits a character, and all classes."""
    counts = Counter(data)
    bits = -sum(n / len(data) * log2(n / len(data)) for n in counts.values())
    classes = any(map(str.isdigit, counts)) and any(map(str.isalpha, counts))
    if kind == "base64":
        classes = classes and any(map(str.isupper, counts)) and any(map(str.islower, counts))
    return classes and bits >= _LEAST_BITS[kind]
