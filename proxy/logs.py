"""How farthing logs: JSON lines in a pipe, readable lines on a terminal; never a key, never a prompt."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from farthing.proxy.config import Log
from farthing.proxy.errors import FarthingError

__all__ = ["set_up"]


def set_up(log: Log, *, terminal: bool | None = None) -> None:
    """Configure structlog, and send what libraries log at warning and above the same way."""
    if terminal is None:
        terminal = sys.stderr.isatty()
    readable = log.format == "text" or (log.format == "auto" and terminal)
    level = getattr(logging, log.level.upper())
    renderer: Callable[..., Any] = (
        structlog.dev.ConsoleRenderer(colors=terminal) if readable else structlog.processors.JSONRenderer()
    )
    shared: list[Callable[..., Any]] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        frames_only,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    # It complains at every try; otlp.py tells once that the collector is away, and once that it is back.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)


def frames_only(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Where an exception came from and of which kind it is, but not what it says: libraries put the bytes that they
    stumbled over into their messages, and these may be a key or a prompt."""
    given = event.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()[1]
    elif isinstance(given, tuple):
        given = given[1]
    if not isinstance(given, BaseException):
        return event
    parts, seen = [], set()
    while given is not None and id(given) not in seen:
        seen.add(id(given))
        told = f": {given}" if isinstance(given, FarthingError) else ""
        frames = "".join(traceback.format_tb(given.__traceback__))
        parts.append(f"{frames}{type(given).__module__}.{type(given).__qualname__}{told}")
        given = given.__cause__ or (None if given.__suppress_context__ else given.__context__)
    event["exception"] = "\n\nafter\n\n".join(parts)
    return event
