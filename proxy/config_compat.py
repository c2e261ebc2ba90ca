"""Which other gateways' words are understood: for apps that move over."""

from __future__ import annotations

from pydantic import Field

from farthing.proxy.aliases import Product
from farthing.proxy.config_section import Section

__all__ = ["Compat"]


class Compat(Section):
    """Understanding other gateways' cache, tag and user headers (see proxy/aliases.py)."""

    aliases: tuple[Product, ...] = Field((), description="whose headers are read, answered in kind, and not sent on")
