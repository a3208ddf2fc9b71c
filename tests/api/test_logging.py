"""The lines of the log."""

import io
from contextlib import redirect_stderr

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


def test_a_logger_follows_a_later_configuration() -> None:
    logging.configure(production=False)
    log = structlog.get_logger().bind()
    logging.configure(production=False)

    with structlog.testing.capture_logs() as entries:
        log.warning("captured line")

    assert [entry["event"] for entry in entries] == ["captured line"]
