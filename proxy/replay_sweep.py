"""What a replay is asked to try: settings laid over a configuration, one by one or every combination of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from itertools import product
from typing import Any

from pydantic import ValidationError

from farthing.proxy.config import Config, explain, put
from farthing.proxy.errors import ConfigFault

__all__ = ["Settings", "grid", "implied", "parse_set", "parse_sweep", "with_settings"]

# One combination: dotted key -> value, in the order in which they were named.
Settings = Mapping[str, str]

_MOST_LANES = 200
_SECTIONS = ("cache", "semantic", "compress", "prices", "store")
_UNUSED = {
    "semantic.deadline_ms": "a replay has no deadlines",
    "semantic.second_stage": "a replay asks no judge and no cross-encoder",
    "store.url": "a replay opens no store",
    "store.deadline_ms": "a replay has no deadlines",
}


def parse_sweep(text: str) -> tuple[str, list[str]]:
    """`KEY=from:to:step` or `KEY=a,b,c`: the key and its values, `to` among them. Raises ConfigFault."""
    key, values = _pair(text, "--sweep")
    if ":" not in values:
        found = [one.strip() for one in values.split(",") if one.strip()]
        if not found:
            raise ConfigFault(f"--sweep {text}: no values")
        return key, found
    try:
        first, last, step = (Decimal(part) for part in values.split(":"))
        steps = int((last - first) / step) if step else 0
    except (InvalidOperation, ValueError, ArithmeticError):
        raise ConfigFault(f"--sweep {text}: write KEY=from:to:step, or KEY=a,b,c") from None
    if not (first.is_finite() and last.is_finite()) or step <= 0 or last < first or steps >= _MOST_LANES:
        raise ConfigFault(f"--sweep {text}: `from` up to `to` in positive steps, at most {_MOST_LANES} of them")
    return key, [f"{first + step * n:f}" for n in range(steps + 1)]


def parse_set(text: str) -> tuple[str, str]:
    """`KEY=VALUE`. Raises ConfigFault."""
    return _pair(text, "--set")


def grid(sweeps: Sequence[tuple[str, Sequence[str]]]) -> list[Settings]:
    """Every combination, the last key changing fastest; one empty one where nothing is swept. Raises ConfigFault."""
    keys = [key for key, _ in sweeps]
    if len(set(keys)) < len(keys):
        raise ConfigFault("--sweep names a key twice")
    found: list[Settings] = [
        dict(zip(keys, values, strict=True)) for values in product(*(values for _, values in sweeps))
    ]
    if len(found) > _MOST_LANES:
        raise ConfigFault(f"--sweep asks for {len(found):,} combinations; {_MOST_LANES} at most")
    return found


def with_settings(config: Config, settings: Settings) -> Config:
    """The configuration with these keys set. Raises ConfigFault: no such key, no such value, or without effect here."""
    if not settings:
        return config
    raw: dict[str, Any] = config.model_dump(by_alias=True, exclude_unset=True)  # as a file would have it
    for key, value in settings.items():
        section = key.partition(".")[0]
        if section not in _SECTIONS or key in _UNUSED:
            why = _UNUSED.get(key, f"a replay depends on {', '.join(_SECTIONS)} alone")
            raise ConfigFault(f"{key} changes nothing in a replay: {why}")
        put(raw, key.split("."), value, key)
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigFault("\n".join(["these settings are not valid:", *explain(error)])) from None


def implied(keys: Sequence[str]) -> dict[str, str]:
    """What a sweep of these keys goes without saying: a near-duplicate's threshold matters only where it serves."""
    found = {}
    if any(key.startswith("semantic.") for key in keys) and "semantic.mode" not in keys:
        found["semantic.mode"] = "serve"
    if "semantic.threshold" in keys and "semantic.unproven" not in keys:
        found["semantic.unproven"] = "true"
    return found


def _pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or "." not in key.strip():
        raise ConfigFault(f"{option} {text}: write SECTION.KEY=..., as cache.ttl_s=3600")
    return key.strip(), value.strip()
