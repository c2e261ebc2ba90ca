"""`farthing check`: the configuration as it is understood, and what of it may not be meant."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from farthing.proxy.config import Config, effective
from farthing.proxy.config_warnings import warnings
from farthing.proxy.otlp import require

__all__ = ["checked"]


def checked(config: Config, aside: Console) -> dict[str, Any]:
    """The configuration in force, secrets masked. Warnings go to `aside`. Raises ConfigFault: an extra is missing."""
    require(config.otlp)
    for path, message in warnings(config):
        aside.print(f"warning: {path}: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    return effective(config)
