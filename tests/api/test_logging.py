"""The lines of the log."""

import io
from contextlib import redirect_stderr

import pytest
import structlog

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
