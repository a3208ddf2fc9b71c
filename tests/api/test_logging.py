"""The lines of the log."""

import io
from contextlib import redirect_stderr
from logging import ERROR, LogRecord

import pytest
import structlog
import structlog.testing

from api import logging


def test_a_line_goes_to_the_standard_error_stream_of_its_moment(capsys: pytest.CaptureFixture[str]) -> None:
    log = structlog.get_logger()
    with redirect_stderr(io.StringIO()) as replaced:  # as a test runner does
        logging.configure(production=False)
        log.warning("first line")
        first = replaced.getvalue()
    replaced.close()

    log.warning("second line")

    assert "first line" in first
    assert "second line" in capsys.readouterr().err


@pytest.mark.parametrize("production", [True, False])
def test_the_secrets_in_paths_are_not_written(capsys: pytest.CaptureFixture[str], production: bool) -> None:
    formatter = logging.formatter(production=production)
    paths = (
        "/calendar/s3cret.ics",
        "/a/s3cret",
        "/u/s3cret?x=1",
        "/v/s3cret",
        "/messages/callbacks/http/s3cret",
    )
    texts = [
        *(f"Error handling request {path}" for path in paths),
        "Invalid request line: 'GET /calendar/s3cret x HTTP/1.1'",
        "Invalid request target: http://clinic.example/calendar/s3cret.ics",
    ]
    kept = ["GET /calendar/<calendar_token>.ics", "/srv/clinic/a/file.py", "/appointments/1.ics"]

    def written(text: str) -> str:
        return formatter.format(LogRecord("gunicorn.error", ERROR, "", 0, text, None, None))

    assert not [line for line in map(written, texts) if "s3cret" in line]
    assert all("(hidden)" in line for line in map(written, texts))
    assert all(text in written(text) for text in kept)
    logging.configure(production=production)
    structlog.get_logger().error("unexpected", exc_info=ValueError("no route: /calendar/s3cret.ics"))
    assert "s3cret" not in capsys.readouterr().err


def test_a_logger_follows_a_later_configuration() -> None:
    logging.configure(production=False)
    log = structlog.get_logger().bind()
    logging.configure(production=False)

    with structlog.testing.capture_logs() as entries:
        log.warning("captured line")

    assert [entry["event"] for entry in entries] == ["captured line"]
