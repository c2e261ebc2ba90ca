"""scipy, asked for late: evaluation needs it, serving doesn't."""

from __future__ import annotations

from typing import Any

from farthing.proxy.errors import ConfigFault

__all__ = ["special", "stats"]

_LACKING = "evaluation needs scipy, which isn't installed here: pip install 'farthing[eval]'"


def stats() -> Any:
    """`scipy.stats`. Raises ConfigFault: it isn't installed."""
    try:
        import scipy.stats
    except ImportError:
        raise ConfigFault(_LACKING) from None
    return scipy.stats


def special() -> Any:
    """`scipy.special`. Raises ConfigFault: it isn't installed."""
    try:
        import scipy.special
    except ImportError:
        raise ConfigFault(_LACKING) from None
    return scipy.special
