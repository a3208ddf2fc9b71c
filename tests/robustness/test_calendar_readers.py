"""Calendar feeds, read by khal with vdirsyncer and by ical.js: they see what `GET /appointments` returns.

Only on the long level. It installs the programs into a temporary folder. Without npm and a network it fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from tests.conftest import ENGINES, NewDatabase, settings_for
from tests.robustness.calendar_readers import CalendarReaders, Periods, clock_change
from tests.robustness.load_level import selected_level
from tests.support.clinic import Clinic
from tests.support.servers import AppServer, start_app

__test__ = selected_level().long

ZONES = ("Europe/Berlin", "America/New_York")


@dataclass
class Subscription:
    """A doctor's feed on a running server, and the two readers of it."""

    clinic: Clinic
    server: AppServer
    readers: CalendarReaders
    name: str
    first: datetime
    url: str

    def seen(self) -> list[Periods]:
        """Return the events that each reader shows."""
        response = requests.get(self.url, timeout=30)
        assert response.status_code == 200, response.text
        by_khal = self.readers.khal(self.url, self.name, self.first, days=14)
        return [by_khal, self.readers.ical_js(response.content)]

    def listed(self) -> Periods:
        """Return the appointments of the list that are not cancelled."""
        rows: list[dict[str, Any]] = self.clinic.admin.get("/appointments?per_page=1000").get_json()
        periods = [
            (datetime.fromisoformat(row["start"]), datetime.fromisoformat(row["end"]))
            for row in rows
            if row["status"] == "scheduled"
        ]
        return sorted(periods)


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> CalendarReaders:
    return CalendarReaders.install(tmp_path_factory.mktemp("readers"))


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=ZONES)
def subscription(
    request: pytest.FixtureRequest, engine: str, new_database: NewDatabase, readers: CalendarReaders
) -> Iterator[Subscription]:
    url, zone = new_database(engine), request.param
    clinic = Clinic(settings_for(url, clinic_timezone=zone))
    server = start_app(url, workers=1, env={"CLINIC_TIMEZONE": zone, "RATE_LIMIT_ENABLED": "false"})
    feed = clinic.doctor.make(f"/doctors/{clinic.doctor.doctor_id}/calendar-feeds", days_ahead=366)
    first = clock_change(datetime.now(UTC), zone) - timedelta(days=4)
    yield Subscription(
        clinic=clinic,
        server=server,
        readers=readers,
        name=feed["url"].rpartition("/")[2][:20],
        first=first,
        url=feed["url"].replace("http://localhost", server.url),
    )
    server.stop()
    clinic.close()


def test_readers_see_a_week_with_a_clock_change_a_move_and_a_cancellation(subscription: Subscription) -> None:
    change, clinic = subscription.first + timedelta(days=4), subscription.clinic
    hours = (-72, -48, -24, -2, -1, 0, 1, 2, 24, 48, 72)
    rows = [
        clinic.appointment(date=(change + timedelta(hours=hour)).isoformat(), duration=60) for hour in hours
    ]
    expected = subscription.listed()
    assert len(expected) == len(hours)
    assert subscription.seen() == [expected, expected]

    new_start = change + timedelta(hours=30)
    moved = clinic.admin.patch(f"/appointments/{rows[0]['id']}", {"date": new_start.isoformat()})
    assert moved.status_code == 200
    after_move = subscription.listed()
    assert subscription.seen() == [after_move, after_move]
    assert [start for start, _end in after_move].count(new_start) == 1
    assert len(after_move) == len(hours)

    clinic.admin.delete(f"/appointments/{rows[0]['id']}")
    after_cancel = subscription.listed()
    assert subscription.seen() == [after_cancel, after_cancel]
    assert len(after_cancel) == len(hours) - 1


def test_readers_see_time_off_until_it_is_deleted(subscription: Subscription) -> None:
    # vdirsyncer refuses to empty a calendar
    subscription.clinic.appointment(date=(subscription.first + timedelta(days=7)).isoformat())
    path = f"/doctors/{subscription.clinic.doctor.doctor_id}/time-off"
    day = (subscription.first + timedelta(days=1)).date().isoformat()
    subscription.clinic.admin.make(path, start=f"{day}T20:00", end=f"{day}T23:30")
    row = subscription.clinic.admin.get(path).get_json()[0]
    booked = subscription.listed()
    with_time_off = sorted(
        [*booked, (datetime.fromisoformat(row["start"]), datetime.fromisoformat(row["end"]))]
    )

    assert subscription.seen() == [with_time_off, with_time_off]
    subscription.clinic.admin.delete(f"{path}/{row['id']}")
    assert subscription.seen() == [booked, booked]


def test_the_log_of_the_server_contains_no_token(subscription: Subscription) -> None:
    subscription.seen()
    requests.get(subscription.url + "x", timeout=30)
    token = subscription.url.rpartition("/")[2].removesuffix(".ics")

    log = subscription.server.log()

    assert "<calendar_token>" in log
    assert token not in log
