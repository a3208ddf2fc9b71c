"""Requests and responses of calendar feeds."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from enums import CalendarDetail
from schemas.base import In, OfDoctor
from schemas.fields import InstantOut

MAX_DAYS = 366


class CalendarFeedIn(In):
    """A new calendar feed. `names` needs the setting `CALENDAR_FEED_NAMES`."""

    detail: CalendarDetail = CalendarDetail.BUSY
    days_back: Annotated[int, Field(ge=0, le=MAX_DAYS, description="Days before today.")] = 30
    days_ahead: Annotated[int, Field(ge=1, le=MAX_DAYS, description="Days after today.")] = 180


class CalendarFeedOut(OfDoctor):
    """A calendar feed of a doctor. `detail` says what it shows about the patients."""

    area: ClassVar[str] = "calendar_feed"

    id: int
    detail: CalendarDetail
    days_back: int
    days_ahead: int
    created_at: InstantOut
    ended_at: InstantOut | None
    last_fetched_at: InstantOut | None = Field(description="Exact to one minute.")
    user_agent: str | None = Field(description="The program of the last fetch.")


class NewCalendarFeedOut(CalendarFeedOut):
    """A new calendar feed with its address, which is shown only once."""

    url: str = Field(description="The secret address for calendar programs.")
