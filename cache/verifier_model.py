"""Where the verifier's model lies, and which one it is: for who names it and doesn't read with it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["MODEL", "VERSION"]

VERSION = 1
MODEL = Path(__file__).parent / "lexical" / "verifier.json"
