"""Stored answers as lines of text, for a backup or another store. Pure; never pickle, and no line names a file.

The first line says what it is, each following one holds an entry as the codec wrote it (base64), the last one counts
them and carries an HMAC-SHA-256 of all lines before it, under the secret that tells tenants apart. So an archive that
was cut, changed, or made up by somebody without that secret is refused: a stored answer is served without asking
anybody. And one of another secret is told from a damaged one, since its answers, whose keys hang on that secret, could
never be found.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from typing import Any

import orjson

from farthing.cache.codec import decode
from farthing.cache.entry import Entry

__all__ = ["VERSION", "ArchiveFault", "Reader", "Writer"]

VERSION = 1
_KIND = "farthing cache archive"
_KEY = re.compile(r"[0-9a-f]{32}(\.[0-9a-z]{1,16}){0,2}")


class ArchiveFault(ValueError):
    """Not an archive that can be trusted here; the text says why."""


class Writer:
    """The lines of one archive, in turn: `head`, `line` for each entry, `foot`."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._mac = hmac.new(secret, digestmod="sha256")
        self.entries = 0

    def head(self, made_s: float) -> bytes:
        """The first line. `made_s`: seconds since the epoch."""
        return self._said({"kind": _KIND, "version": VERSION, "made_s": made_s, "secret": _mark(self._secret)})

    def line(self, raw: bytes) -> bytes:
        """One entry's line, from its encoded bytes."""
        self.entries += 1
        return self._said({"entry": base64.b64encode(raw).decode("ascii")})

    def foot(self) -> bytes:
        """The last line."""
        return orjson.dumps({"entries": self.entries, "mac": self._mac.hexdigest()}) + b"\n"

    def _said(self, value: dict[str, Any]) -> bytes:
        line = orjson.dumps(value) + b"\n"
        self._mac.update(line)
        return line


class Reader:
    """Reads lines in turn; nothing of them may be used before `end` has returned. All raise ArchiveFault."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._mac = hmac.new(secret, digestmod="sha256")
        self._lines = 0
        self._ended = False
        self.entries = 0

    def take(self, line: bytes) -> Entry | None:
        """The line's entry; None for the first and the last line."""
        self._lines += 1
        value = _parsed(line, self._lines)
        if self._ended:
            raise ArchiveFault(f"line {self._lines}: the archive had ended before")
        if self._lines == 1:
            self._begin(value)
        elif "mac" in value:
            self._finish(value)
            return None
        self._mac.update(line)
        return None if self._lines == 1 else self._entry(value)

    def end(self) -> int:
        """How many entries there were, once all of them have been read and the last line has vouched for them."""
        if not self._ended:
            raise ArchiveFault("the archive is cut off: its last line is missing")
        return self.entries

    def _begin(self, value: dict[str, Any]) -> None:
        if value.get("kind") != _KIND:
            raise ArchiveFault("this is no archive of `farthing cache export`")
        if value.get("version") != VERSION:
            raise ArchiveFault(f"an archive of version {value.get('version')!r}; this farthing reads {VERSION}")
        if value.get("secret") != _mark(self._secret):
            raise ArchiveFault(
                "the archive was made under another secret: none of its answers could ever be found here. Put the file "
                "`secret` of the state directory that it comes from into this one first, or begin with an empty cache"
            )

    def _entry(self, value: dict[str, Any]) -> Entry:
        try:
            entry = decode(base64.b64decode(value["entry"], validate=True))
        except (KeyError, TypeError, ValueError, binascii.Error):
            entry = None
        if entry is None or not _KEY.fullmatch(entry.key):
            raise ArchiveFault(f"line {self._lines}: no stored answer")
        self.entries += 1
        return entry

    def _finish(self, value: dict[str, Any]) -> None:
        shown = value.get("mac")
        if not isinstance(shown, str) or not hmac.compare_digest(shown.encode(), self._mac.hexdigest().encode()):
            raise ArchiveFault("the archive was changed or damaged after it was made: nothing of it is used")
        if value.get("entries") != self.entries:
            raise ArchiveFault(f"the archive tells of {value.get('entries')!r} answers and holds {self.entries}")
        self._ended = True


def _mark(secret: bytes) -> str:
    """Tells secrets apart without telling them."""
    return hmac.new(secret, b"farthing cache archive: which secret", "sha256").hexdigest()[:32]


def _parsed(line: bytes, number: int) -> dict[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise ArchiveFault(f"line {number}: not a JSON object")
    return value
