"""Structured logs: one JSON line per event, with the request id and without values of patient records."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from contextlib import suppress
from typing import TextIO, cast

import structlog

MAX_CAUSES = 10  # exceptions of one chain that are logged


class LossyStream:
    """A text stream that drops what it cannot write: a full log disk must not fail a request.

    Not an `io.TextIOBase`: its finalizer flushes when Python exits, and prints an error for a closed stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write the text, or drop it on an OSError."""
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream. Ignore an OSError."""
        with suppress(OSError):
            self.stream.flush()


def configure(*, production: bool) -> None:
    """Configure structlog: JSON lines in production, readable lines in development.

    Tracebacks contain no local variables, and in production no exception messages.
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
        renderer = structlog.processors.JSONRenderer(serializer=_to_json)
        processors.append(structlog.processors.ExceptionRenderer(format_exception))
    structlog.configure(
        processors=[*processors, renderer],
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, LossyStream(sys.stderr))),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    logging.getLogger("werkzeug").setLevel(logging.WARNING)


_ENCODER = json.JSONEncoder(default=repr)


def _to_json(event: dict[str, object], **_options: object) -> str:
    return _ENCODER.encode(event)  # json.dumps with `default` creates an encoder for each line


def format_exception(exc_info: structlog.typing.ExcInfo) -> list[dict[str, object]]:
    """Return type, SQLSTATE and frames of an exception and its causes, the outermost first.

    Messages are left out: a database message quotes the refused row, a parser message the text.
    """
    causes: list[dict[str, object]] = []
    error: BaseException | None = exc_info[1]
    while error is not None and len(causes) < MAX_CAUSES:
        frames = traceback.extract_tb(error.__traceback__)
        causes.append(
            {
                "type": f"{type(error).__module__}.{type(error).__qualname__}",
                "state": getattr(error, "pgcode", None),
                "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
            }
        )
        error = error.__cause__ or error.__context__
    return causes
