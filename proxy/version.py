"""Which version this is."""

from __future__ import annotations

from importlib import metadata

__all__ = ["version"]


def version() -> str:
    """The installed distribution's version."""
    return metadata.version("farthing")
