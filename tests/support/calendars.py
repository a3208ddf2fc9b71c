"""Calendar feeds in tests: their tokens and events."""

from __future__ import annotations

from typing import Any

from icalendar import Calendar
from werkzeug.test import TestResponse

from tests.support.clinic import Clinic


def calendar_token(feed: dict[str, Any]) -> str:
    """Return the token in the URL of a new feed."""
    return str(feed["url"]).rpartition("/")[2].removesuffix(".ics")


def fetch(clinic: Clinic, feed: dict[str, Any], **headers: str) -> TestResponse:
    """Read a feed as a calendar program does: without a session. The keywords are headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return clinic.nobody.get(f"/calendar/{calendar_token(feed)}.ics", headers=named)


def events(response: TestResponse) -> list[Any]:
    """Return the events of a calendar, as the library reads them."""
    assert response.status_code == 200, response.get_data(as_text=True)
    return list(Calendar.from_ical(response.get_data()).events)
