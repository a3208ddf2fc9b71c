"""Structured logs: one JSON line per event, with the request's id and never a value of a patient's record."""

from __future__ import annotations

import io
import json
import logging
import sys
import traceback
from contextlib import suppress
from typing import TextIO, cast

import structlog

LONGEST_CHAIN = 10  # exceptions that led to each other


class Lines(io.TextIOBase):
    """A stream that loses what it cannot write: no request fails because the disk of its log is full."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self.stream.flush()


def configure(*, production: bool) -> None:
    """Set up structlog: JSON lines in production, readable ones else.

    Tracebacks show no local variables, and in production no messages either.
    """
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    if production:
        renderer = structlog.processors.JSONRenderer(serializer=_written)
        processors.append(structlog.processors.ExceptionRenderer(trace))
    structlog.configure(
        processors=[*processors, renderer],
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, Lines(sys.stderr))),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    logging.getLogger("werkzeug").setLevel(logging.WARNING)


_ENCODER = json.JSONEncoder(default=repr)


def _written(event: dict[str, object], **_options: object) -> str:
    return _ENCODER.encode(event)  # json.dumps would make an encoder for every line


def trace(exc_info: structlog.typing.ExcInfo) -> list[dict[str, object]]:
    """An exception and its causes by type and place, the outermost first.

    Never a message: a database quotes the row that it refuses, a parser the text that it cannot read.
    """
    told: list[dict[str, object]] = []
    one: BaseException | None = exc_info[1]
    while one is not None and len(told) < LONGEST_CHAIN:
        frames = traceback.extract_tb(one.__traceback__)
        told.append(
            {
                "type": f"{type(one).__module__}.{type(one).__qualname__}",
                "state": getattr(one, "pgcode", None),
                "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
            }
        )
        one = one.__cause__ or one.__context__
    return told
