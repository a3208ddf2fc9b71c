"""Endpoints of calendar feeds."""

from __future__ import annotations

from flask import Response, request

from api.cached_document import private_response
from api.endpoint import endpoint
from api.request_context import current_actor, visitor
from api.resource import ApiResource
from api.serialization import Serializer
from api.server_url import server_url
from config import settings
from models import CalendarFeed, Doctor
from schemas.calendar_feed import CalendarFeedIn, CalendarFeedOut, NewCalendarFeedOut
from security.permissions import Permission
from services.calendar_feeds import feed_content, feeds
from services.calendar_feeds.ical import MEDIA_TYPE
from services.listing.spec import ListQuery, Page
from services.scheduling import doctors

CALENDAR_FEED = Serializer(CalendarFeedOut)


class CalendarFeedList(ApiResource):
    """Route `/doctors/<doctor_id>/calendar-feeds`."""

    @endpoint(Permission.CALENDAR_FEEDS, load=doctors.get, list_spec=feeds.LIST, returns=CALENDAR_FEED)
    def get(self, row: Doctor, query: ListQuery) -> Page[CalendarFeed]:
        """List a doctor's calendar feeds, with their last fetch. Doctors: own only."""
        return feeds.find(current_actor(), row, query)

    @endpoint(
        Permission.CALENDAR_FEEDS,
        load=doctors.get,
        body=CalendarFeedIn,
        returns=Serializer(NewCalendarFeedOut),
        status=201,
        secret=True,
    )
    def post(self, row: Doctor, data: CalendarFeedIn) -> CalendarFeed:
        """Create a calendar feed of a doctor. Doctors: own only.

        Only this response shows the `url`. Every program that knows it can read the calendar, until the feed
        ends. A doctor has at most 5 feeds. `detail` is `busy`, `initials` or `names`.
        """
        feed, token = feeds.create(current_actor(), row, **data.model_dump())
        feed.url = f"{settings().public_url or server_url()}/calendar/{token}.ics"
        return feed


class CalendarFeedItem(ApiResource):
    """Route `/doctors/<doctor_id>/calendar-feeds/<calendar_feed_id>`."""

    @endpoint(Permission.CALENDAR_FEEDS, load=feeds.get, returns=CALENDAR_FEED)
    def get(self, row: CalendarFeed) -> CalendarFeed:
        """Show a doctor's calendar feed. Doctors: own only."""
        return row

    @endpoint(Permission.CALENDAR_FEEDS, load=feeds.get, returns=CALENDAR_FEED)
    def delete(self, row: CalendarFeed) -> CalendarFeed:
        """End a doctor's calendar feed. Doctors: own only.

        Its `url` is unknown from the next request on. The row stays.
        """
        return feeds.end(row)


class CalendarDocument(ApiResource):
    """Route `/calendar/<calendar_token>.ics`."""

    @endpoint(Permission.PUBLIC, media_types=(MEDIA_TYPE,), etag=True)
    def get(self, calendar_token: str) -> Response:
        """Read a calendar feed, for calendar programs.

        The token in the path is the permission. Send `If-None-Match` with the last `ETag`: if nothing has
        changed, the response is 304 without a body.
        """
        content = feed_content.read(visitor(), calendar_token, request.user_agent.string)
        response = private_response(b"", MEDIA_TYPE, digest=content.digest, last_modified=content.changed_at)
        if response.status_code != 304:
            response.set_data(content.document())
            content.record_read()
        return response
