"""Entries whose bytes fail their checksum: told in the log, but not once for each of them. No threads."""

from __future__ import annotations

import structlog

__all__ = ["Damage"]

log = structlog.get_logger("farthing.store")


class Damage:
    """Counts damaged entries, which are misses, and tells of the first, the tenth, the hundredth and so on."""

    def __init__(self) -> None:
        self._met = 0
        self._told_at = 1

    def met(self, key: str) -> None:
        """One was met."""
        self._met += 1
        if self._met == self._told_at:
            self._told_at *= 10
            log.warning("an entry was lost or fails its checksum: a miss", key=key, so_far=self._met)
