"""Structured logs: one JSON line per event, with the request id and without values of patient records."""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

MAX_CAUSES = 10  # exceptions of one chain that are logged


class LossyStream:
    """The standard error stream. It drops what it cannot write: a full log disk must not fail a request.

    `sys.stderr` is read for each line: a test runner replaces it for some time and closes its replacement.
    Not an `io.TextIOBase`: its finalizer flushes when Python exits, and prints an error for a closed stream.
    """

    def write(self, text: str) -> int:
        """Write the text, or drop it on an OSError."""
        with suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream. Ignore an OSError."""
        with suppress(OSError):
            sys.stderr.flush()


_stream = cast(TextIO, LossyStream())
# One list: a logger keeps the list of its first line, and must follow a later configuration.
_line_processors: list[structlog.typing.Processor] = []
# Lines that libraries and the server write with the module `logging` get the format of the application.
_library_lines = logging.StreamHandler(_stream)


def configure(*, production: bool) -> None:
    """Configure structlog and `logging`: JSON lines in production, readable lines in development.

    Tracebacks contain no local variables, and in production no exception messages.
    """
    _line_processors[:] = [structlog.contextvars.merge_contextvars, *_processors(production=production)]
    structlog.configure(
        processors=_line_processors,
        logger_factory=structlog.WriteLoggerFactory(file=_stream),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    _library_lines.setFormatter(formatter(production=production))
    logging.getLogger().addHandler(_library_lines)
    # Without a handler of its own, SQLAlchemy adds one that writes plain text to the standard output.
    logging.getLogger("sqlalchemy.engine.Engine").addHandler(logging.NullHandler())
    logging.getLogger("werkzeug").setLevel(logging.WARNING)


# Parts of paths that are secrets. Servers quote the path of a request that they cannot read.
_SECRET_PATH = re.compile(r"(/calendar/|(?<![\w./])/[auv]/|/messages/callbacks/[^/\s\"'?<]+/)[^/\s\"'?<]+")


def _hide_secrets(_logger: object, _method: str, line: str) -> str:
    """Remove the tokens in paths from a rendered line."""
    return _SECRET_PATH.sub(r"\1(hidden)", line)


def _processors(*, production: bool) -> list[structlog.typing.Processor]:
    common: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if production:
        exceptions = structlog.processors.ExceptionRenderer(format_exception)
        renderer = structlog.processors.JSONRenderer(serializer=_to_json)
        return [*common, exceptions, renderer, cast(structlog.typing.Processor, _hide_secrets)]
    colors, traceback_format = sys.stderr.isatty(), structlog.dev.plain_traceback
    console = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=traceback_format)
    return [*common, console, cast(structlog.typing.Processor, _hide_secrets)]


def formatter(*, production: bool) -> logging.Formatter:
    """Return a formatter that gives records of `logging` the format of the application."""
    return structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *_processors(production=production),
        ]
    )


def server_config(logger: str, *, production: bool) -> dict[str, Any]:
    """Return the configuration of `logging` for the main process of a server that writes to `logger`."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": formatter, "production": production}},
        "handlers": {
            "error": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}
        },
        "root": {"handlers": ["error"], "level": "WARNING"},
        "loggers": {logger: {"handlers": ["error"], "level": "INFO", "propagate": False}},
    }


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
