"""What the shared store's keys are called. Pure.

The braces are Cluster's hash tag (Redis, "Cluster specification"), round an answer's key without its `.N`, so that all
that belongs to an answer is in one slot.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Names"]


@dataclass(frozen=True, slots=True)
class Names:
    """`<prefix>:e:{<key>}` holds an encoded entry, `<prefix>:v:{<key>}` the names of its variants,
    `<prefix>:l:{<key>}...` who may write it now. Of a large entry `<prefix>:c:{<key>}` holds the pieces, and
    `<prefix>:n:{<key>}:<version>` those that are still being written. `<prefix>:alive:<process>` is a channel."""

    prefix: str

    @property
    def entries(self) -> str:
        """What every entry's name begins with."""
        return f"{self.prefix}:e:"

    def entry(self, key: str) -> str:
        """Of the entry under this key, variant or not."""
        return f"{self.entries}{self._tagged(key)}"

    @property
    def all_of_entries(self) -> str:
        """A pattern for every entry's name, and for those of pieces."""
        return f"{self.prefix}:[ecn]:*"

    @property
    def all_of_pieces(self) -> str:
        """A pattern for the names of pieces alone."""
        return f"{self.prefix}:[cn]:*"

    def pieces(self, key: str) -> str:
        """Of the pieces of the entry under this key."""
        return f"{self.prefix}:c:{self._tagged(key)}"

    def coming(self, key: str, version: str) -> str:
        """Of the pieces of that version of it while they are written."""
        return f"{self.prefix}:n:{self._tagged(key)}:{version}"

    def entry_of(self, pieces: bytes) -> bytes:
        """The name of the entry whose pieces have this name; empty where they are no entry's yet."""
        start = f"{self.prefix}:c:".encode()
        return self.entries.encode() + pieces.removeprefix(start) if pieces.startswith(start) else b""

    def pieces_of(self, entry: bytes) -> bytes:
        """The name of that entry's pieces; of what is no entry's name its own."""
        start = self.entries.encode()
        return f"{self.prefix}:c:".encode() + entry.removeprefix(start) if entry.startswith(start) else entry

    def variants(self, base: str) -> str:
        """Of the set of an answer's variants."""
        return f"{self.prefix}:v:{{{base}}}"

    def lease(self, key: str, lease: str) -> str:
        """Of a lease on the answer under this key: `lease` begins with that key."""
        base = key.partition(".")[0]
        return f"{self.prefix}:l:{{{base}}}{lease.removeprefix(base)}"

    def alive(self, process: str) -> str:
        """Of the channel that this process listens to as long as it lives, and on which nothing is said."""
        return f"{self.prefix}:alive:{process}"

    def key(self, entry: str) -> str:
        """Of the entry that has this name; '' where it is no entry's."""
        if not entry.startswith(f"{self.entries}{{"):
            return ""
        base, _, rest = entry[len(self.entries) + 1 :].partition("}")
        return base + rest

    def _tagged(self, key: str) -> str:
        base, dot, variant = key.partition(".")
        return f"{{{base}}}{dot}{variant}"
