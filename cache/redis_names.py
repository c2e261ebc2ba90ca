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
    `<prefix>:l:{<key>}...` who may write it now."""

    prefix: str

    @property
    def entries(self) -> str:
        """What every entry's name begins with."""
        return f"{self.prefix}:e:"

    def entry(self, key: str) -> str:
        """Of the entry under this key, variant or not."""
        base, dot, variant = key.partition(".")
        return f"{self.entries}{{{base}}}{dot}{variant}"

    def variants(self, base: str) -> str:
        """Of the set of an answer's variants."""
        return f"{self.prefix}:v:{{{base}}}"

    def lease(self, key: str, lease: str) -> str:
        """Of a lease on the answer under this key: `lease` begins with that key."""
        base = key.partition(".")[0]
        return f"{self.prefix}:l:{{{base}}}{lease.removeprefix(base)}"

    def key(self, entry: str) -> str:
        """Of the entry that has this name; '' where it is no entry's."""
        if not entry.startswith(f"{self.entries}{{"):
            return ""
        base, _, rest = entry[len(self.entries) + 1 :].partition("}")
        return base + rest
