"""How farthing logs: JSON lines in a pipe, readable lines on a terminal; never a key, never a prompt."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import structlog

from farthing.proxy.config import Log

__all__ = ["set_up"]


def set_up(log: Log, *, terminal: bool | None = None) -> None:
    """Configure structlog, and send what libraries log at warning and above the same way."""
    if terminal is None:
        terminal = sys.stderr.isatty()
    readable = log.format == "text" or (log.format == "auto" and terminal)
    level = getattr(logging, log.level.upper())
    renderer: Callable[..., Any] = (
        structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback)
        if readable
        else structlog.processors.JSONRenderer()
    )  # a traceback that shows local variables would show prompts
    shared: list[Callable[..., Any]] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not readable:
        shared.append(structlog.processors.format_exc_info)
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
