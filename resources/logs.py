"""Structured logs: one JSON line per event, with the request's id and never a value of a patient's record."""

from __future__ import annotations

import logging
import sys

import structlog


def configure(*, production: bool) -> None:
    """Set up structlog: JSON lines in production, readable ones else. Tracebacks show no local variables."""
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    if production:
        renderer = structlog.processors.JSONRenderer()
        processors.append(
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            )
        )
    structlog.configure(
        processors=[*processors, renderer],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
