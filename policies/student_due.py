"""When is a student to be trained anew? Pure."""

from __future__ import annotations

__all__ = ["due"]


def due(now_s: float, made_s: float, tried_s: float, *, fell_back: bool, every_s: float, least_s: float) -> str:
    """Why it is time; '' where it isn't. `made_s`: when the latest student was trained; `tried_s`: the latest try;
    `fell_back`: it went back to observe since. `every_s` 0: never."""
    if not every_s or now_s - tried_s < least_s:
        return ""
    if fell_back:
        return "it went back to observe"
    return "its schedule" if now_s - max(made_s, tried_s) >= every_s else ""
