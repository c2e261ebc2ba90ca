"""JSON decoded and encoded without a number losing a digit, and fast where none would. Pure."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import orjson

__all__ = ["dumps", "loads"]


def loads(text: bytes) -> Any:
    """The value; numbers that a double or 64 bits can't hold come as decimals.

    Raises ValueError: not JSON, duplicate keys. RecursionError: too deep.
    """
    try:
        value = orjson.loads(text)
        if orjson.dumps(value) == text:
            return value
    except (ValueError, TypeError):
        pass
    try:
        return json.loads(
            text.decode(),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_real,
            parse_constant=_no_number,
        )
    except ArithmeticError:
        raise ValueError("a number beyond all bounds") from None


def dumps(value: Any) -> bytes:
    """The value as JSON. Raises TypeError: lone surrogates, too deep."""
    return orjson.dumps(value, default=_digits)


def _digits(value: Any) -> orjson.Fragment:
    if not isinstance(value, Decimal):
        raise TypeError(f"{type(value).__name__} is not JSON")
    return orjson.Fragment(str(value))


def _integer(text: str) -> int | Decimal:
    return int(text) if len(text) < 19 else Decimal(text)


def _real(text: str) -> float | Decimal:
    exact, nearest = Decimal(text), float(text)
    return nearest if Decimal(repr(nearest)) == exact else exact


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("duplicate keys")
    return table


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
