"""The content of calendar feeds: events, details, caching, audit and limits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event, insert, select

from extensions import db
from models import Appointment, AuditLog, TimeOff
from services.calendar_feeds.feed_content import initials
from tests.support import booking
from tests.support.booking import MONDAY, later
from tests.support.calendars import events, fetch
from tests.support.clinic import Clinic

MakeClinic = Callable[..., Clinic]

monday_morning = booking.monday_morning
DAY = timedelta(days=1)


def new_feed(clinic: Clinic, **members: Any) -> dict[str, Any]:
    return clinic.admin.make(f"/doctors/{clinic.doctor.doctor_id}/calendar-feeds", **members)


def book(clinic: Clinic, start: str, **members: Any) -> dict[str, Any]:
    return clinic.appointment(date=start, doctor_id=clinic.doctor.doctor_id, **members)


def period(shown: Any) -> tuple[Any, Any]:
    return shown["dtstart"].dt, shown["dtend"].dt


def texts(shown: Any, *names: str) -> list[str]:
    return [str(shown[name]) for name in names]


# --- Events ---


def test_an_appointment_and_a_time_off_are_one_event_each(clinic: Clinic) -> None:
    feed = new_feed(clinic, detail="initials")
    row = book(clinic, f"{MONDAY}T10:00", patient_id=clinic.patient(name="Zoë Ng")["id"], reason="rash")
    path = f"/doctors/{clinic.doctor.doctor_id}/time-off"
    clinic.admin.make(path, start="2027-03-08", end="2027-03-09", reason="Private matter")
    clinic.admin.make(path, start="2027-03-10T22:00", end="2027-03-11T06:00")

    response = fetch(clinic, feed)

    booked, leave, night = events(response)
    assert period(booked) == (datetime.fromisoformat(row["start"]), datetime.fromisoformat(row["end"]))
    assert texts(booked, "summary", "status", "transp") == ["Z. N.", "CONFIRMED", "OPAQUE"]
    assert period(leave) == (date(2027, 3, 8), date(2027, 3, 10))
    assert texts(leave, "summary", "status", "transp") == ["Time off", "CONFIRMED", "OPAQUE"]
    assert period(night) == (
        datetime(2027, 3, 10, 22, tzinfo=UTC),
        datetime(2027, 3, 11, 6, tzinfo=UTC),
    )
    content = response.get_data(as_text=True)
    assert "Private" not in content
    assert "rash" not in content
    assert "ATTENDEE" not in content
    assert response.mimetype == "text/calendar"
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert f"X-WR-CALNAME:{row['doctor_name']}\r\n" in content


@pytest.mark.parametrize(
    ("detail", "booked", "leave"),
    [("busy", "Busy", "Busy"), ("initials", "Z. N.", "Time off"), ("names", "Zoë Ng", "Time off")],
)
def test_the_detail_decides_what_an_event_shows(
    make_clinic: MakeClinic, detail: str, booked: str, leave: str
) -> None:
    clinic = make_clinic(calendar_feed_names=True)
    feed = new_feed(clinic, detail=detail)
    book(clinic, f"{MONDAY}T10:00", patient_id=clinic.patient(name="Zoë Ng")["id"])
    path = f"/doctors/{clinic.doctor.doctor_id}/time-off"
    clinic.admin.make(path, start="2027-03-08", end="2027-03-09")

    response = fetch(clinic, feed)

    assert [str(shown["summary"]) for shown in events(response)] == [booked, leave]
    assert ("Zoë" in response.get_data(as_text=True)) is (detail == "names")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Amina Yusuf", "A. Y."),
        ("o'brien, Mary-Jane", "O. M. J."),
        ("N\u0303uflo", "Ñ."),
        ("हिन्दी नाम", "हि. ना."),
        ("王小明", "王."),
        ("Grace (known as 'Gigi') 2nd", "G. K. A. G. N."),
        ("123", "Busy"),
    ],
)
def test_initials_are_the_first_letters_of_the_words(name: str, expected: str) -> None:
    assert initials(name) == expected


def test_a_moved_appointment_stays_one_event_with_a_higher_sequence(clinic: Clinic) -> None:
    feed, row = new_feed(clinic), book(clinic, f"{MONDAY}T10:00")
    (before,) = events(fetch(clinic, feed))

    clinic.admin.patch(f"/appointments/{row['id']}", {"date": "2027-03-02T15:00"})

    (after,) = events(fetch(clinic, feed))
    assert after["uid"] == before["uid"]
    assert after["sequence"] > before["sequence"]
    assert after["dtstart"].dt == datetime(2027, 3, 2, 15, tzinfo=UTC)
    assert after["dtstamp"].dt >= before["dtstamp"].dt


def test_a_moved_appointment_outside_the_range_is_gone(clinic: Clinic) -> None:
    feed, row = new_feed(clinic, days_ahead=30), book(clinic, f"{MONDAY}T10:00")

    clinic.admin.patch(f"/appointments/{row['id']}", {"date": "2027-06-02T15:00"})

    assert events(fetch(clinic, feed)) == []


def test_a_reassigned_appointment_moves_to_the_feed_of_the_other_doctor(clinic: Clinic) -> None:
    feed, row, other = new_feed(clinic), book(clinic, f"{MONDAY}T10:00"), clinic.sign_in("doctor")
    other_feed = other.make(f"/doctors/{other.doctor_id}/calendar-feeds")
    (before,) = events(fetch(clinic, feed))

    clinic.admin.patch(f"/appointments/{row['id']}", {"doctor_id": other.doctor_id})

    assert events(fetch(clinic, feed)) == []
    (after,) = events(fetch(clinic, other_feed))
    assert after["uid"] == before["uid"]
    assert after["sequence"] > before["sequence"]


def test_a_cancelled_appointment_is_shown_as_cancelled_for_30_days(clinic: Clinic) -> None:
    feed, row = new_feed(clinic), book(clinic, "2027-03-20T10:00")
    (booked,) = events(fetch(clinic, feed))
    clinic.admin.delete(f"/appointments/{row['id']}", {"cancellation_reason": "private"})

    response = fetch(clinic, feed)
    with later(days=30):
        last_day = events(fetch(clinic, feed))
    with later(days=31):
        after = events(fetch(clinic, feed))

    (cancelled,) = events(response)
    assert texts(cancelled, "status", "transp", "uid") == ["CANCELLED", "TRANSPARENT", booked["uid"]]
    assert cancelled["sequence"] > booked["sequence"]
    assert "private" not in response.get_data(as_text=True)
    assert (len(last_day), after) == (1, [])


def test_completed_takes_time_and_missed_does_not(clinic: Clinic) -> None:
    feed = new_feed(clinic)
    completed, missed = book(clinic, f"{MONDAY}T09:00"), book(clinic, f"{MONDAY}T10:00")
    with later(hours=3):
        admin = clinic.sign_in("admin")
        admin.patch(f"/appointments/{completed['id']}", {"status": "completed"})
        admin.patch(f"/appointments/{missed['id']}", {"status": "no_show"})

        shown = [texts(each, "status", "transp") for each in events(fetch(clinic, feed))]

    assert shown == [["CONFIRMED", "OPAQUE"], ["CONFIRMED", "TRANSPARENT"]]


def test_the_range_is_in_days_of_the_clinic(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(clinic_timezone="Pacific/Auckland")
    feed = new_feed(clinic, days_back=0, days_ahead=1)  # 1 March, 21:00 there, and 2 March
    for start in ("2027-03-02T08:00", "2027-03-02T23:30", "2027-03-03T00:30"):
        book(clinic, start, duration=60)

    today = [shown["dtstart"].dt.hour for shown in events(fetch(clinic, feed))]
    with later(days=1):
        tomorrow = [shown["dtstart"].dt.hour for shown in events(fetch(clinic, feed))]
    with later(days=2):
        over_midnight = [shown["dtstart"].dt.hour for shown in events(fetch(clinic, feed))]

    assert today == [8, 23]
    assert tomorrow == [8, 23, 0]
    assert over_midnight == [23, 0]


def test_an_archived_patient_keeps_the_events(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(calendar_feed_names=True)
    feed, patient = new_feed(clinic, detail="names"), clinic.patient(name="Zoë Ng")["id"]
    row = book(clinic, f"{MONDAY}T10:00", patient_id=patient)
    clinic.admin.delete(f"/appointments/{row['id']}")
    assert clinic.admin.delete(f"/patients/{patient}").status_code == 200

    (shown,) = events(fetch(clinic, feed))

    assert texts(shown, "summary", "status") == ["Zoë Ng", "CANCELLED"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Africa/Casablanca"])
def test_a_week_with_a_clock_change_equals_the_list_of_appointments(
    make_clinic: MakeClinic, zone: str
) -> None:
    clinic = make_clinic(clinic_timezone=zone)
    feed = new_feed(clinic, days_ahead=366)
    for change in _clock_changes(ZoneInfo(zone)):
        for hours in (-50, -1, 0, 1, 2, 26, 50):  # each hour around the change, and the days before and after
            book(clinic, (change + timedelta(hours=hours)).isoformat(), duration=60)
    rows = clinic.admin.get("/appointments?per_page=1000").get_json()

    shown = {period(each) for each in events(fetch(clinic, feed))}

    assert len(rows) >= 14
    assert shown == {tuple(datetime.fromisoformat(row[name]) for name in ("start", "end")) for row in rows}


def _clock_changes(zone: ZoneInfo) -> list[datetime]:
    hours = [datetime(2027, 3, 2, tzinfo=UTC) + timedelta(hours=number) for number in range(360 * 24)]
    offsets = [hour.astimezone(zone).utcoffset() for hour in hours]
    return [hour for hour, before, at in zip(hours[1:], offsets, offsets[1:], strict=False) if before != at]


def test_a_new_time_zone_of_the_clinic_changes_no_instant_and_no_uid(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin")
    feed = new_feed(clinic)
    book(clinic, f"{MONDAY}T10:00")
    first = fetch(clinic, feed)

    second = fetch(make_clinic(clinic_timezone="Africa/Nairobi"), feed, If_None_Match=first.headers["ETag"])

    (before,), (after,) = events(first), events(second)
    assert period(before) == period(after)
    assert before["uid"] == after["uid"]
    assert "TZID:Africa/Nairobi" in second.get_data(as_text=True)


def test_a_deleted_time_off_leaves_its_uid_unused(clinic: Clinic) -> None:
    feed, path = new_feed(clinic), f"/doctors/{clinic.doctor.doctor_id}/time-off"
    first = clinic.admin.make(path, start="2027-03-08", end="2027-03-09")
    (before,) = events(fetch(clinic, feed))
    clinic.admin.delete(f"{path}/{first['id']}")
    assert events(fetch(clinic, feed)) == []

    with clinic.inside() as session:  # SQLite uses the id again by itself
        session.add(
            TimeOff(id=first["id"], doctor_id=feed["doctor_id"], start=booking.NOW, end=booking.NOW + DAY)
        )
    (after,) = events(fetch(clinic, feed))

    assert after["uid"] != before["uid"]


# --- Caching ---


def test_an_unchanged_feed_is_not_sent_again(clinic: Clinic) -> None:
    feed = new_feed(clinic)
    book(clinic, f"{MONDAY}T10:00")
    first, second = fetch(clinic, feed), fetch(clinic, feed)

    by_tag = fetch(clinic, feed, If_None_Match=first.headers["ETag"])
    by_time = fetch(clinic, feed, If_Modified_Since=first.headers["Last-Modified"])
    with later(hours=2):
        next_hours = fetch(clinic, feed, If_None_Match=first.headers["ETag"])

    assert first.get_data() == second.get_data()
    assert first.headers["Last-Modified"] == second.headers["Last-Modified"]
    for response in (by_tag, by_time, next_hours):
        assert (response.status_code, response.get_data()) == (304, b"")
        assert response.headers["ETag"] == first.headers["ETag"]
        assert response.headers["Cache-Control"] == "private, no-cache"


def test_every_change_gives_a_new_tag_and_a_later_time_also_within_a_second(clinic: Clinic) -> None:
    feed, row = new_feed(clinic, detail="initials"), book(clinic, f"{MONDAY}T10:00")
    doctor = f"/doctors/{clinic.doctor.doctor_id}"
    time_off = clinic.admin.make(f"{doctor}/time-off", start="2027-03-08", end="2027-03-09")
    changes: list[Callable[[], Any]] = [
        lambda: book(clinic, f"{MONDAY}T12:00"),
        lambda: clinic.admin.patch(f"/appointments/{row['id']}", {"date": f"{MONDAY}T15:00"}),
        lambda: clinic.admin.patch(f"/patients/{row['patient_id']}", {"name": "Quentin Xu"}),
        lambda: clinic.admin.delete(f"{doctor}/time-off/{time_off['id']}"),
        lambda: clinic.admin.patch(doctor, {"name": "Dr. Lena Weiss"}),
        lambda: clinic.admin.delete(f"/appointments/{row['id']}"),
    ]
    responses = [fetch(clinic, feed)]

    for change in changes:
        change()
        last = responses[-1].headers
        # a program that sends both, and one that sends the time only
        assert fetch(clinic, feed, If_Modified_Since=last["Last-Modified"]).status_code == 200
        responses.append(fetch(clinic, feed, If_None_Match=last["ETag"]))

    assert [response.status_code for response in responses] == [200] * 7
    assert len({response.headers["ETag"] for response in responses}) == 7
    times = [response.last_modified for response in responses]
    assert all(before < after for before, after in pairwise(times))  # type: ignore[operator]


def test_a_fetch_is_recorded_once_a_minute(clinic: Clinic) -> None:
    feed = new_feed(clinic)
    path = f"/doctors/{feed['doctor_id']}/calendar-feeds/{feed['id']}"

    def fetched(agent: str) -> list[str]:
        fetch(clinic, feed, User_Agent=agent)
        row = clinic.sign_in("admin").get(path).get_json()
        return [row["last_fetched_at"], row["user_agent"]]

    first = fetched("Thunderbird/128 \u00e9" + "x" * 600)
    with later(seconds=50):
        assert fetched("Google-Calendar-Importer") == first
    with later(seconds=70):
        second = fetched("Google-Calendar-Importer")

    assert first[1].startswith("Thunderbird/128")
    assert len(first[1]) == 500
    assert second[0] > first[0]
    assert second[1] == "Google-Calendar-Importer"
    with clinic.inside() as session:
        rows = session.query(AuditLog).filter(AuditLog.entity == "calendar_feed")
        assert [row.action for row in rows] == ["create"]


# --- Names ---


def test_each_fetch_of_names_is_audited_as_a_read_of_the_patients(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(calendar_feed_names=True)
    named, initials_only = new_feed(clinic, detail="names"), new_feed(clinic, detail="initials")
    rows = [book(clinic, f"{MONDAY}T{hour}:00") for hour in (10, 11)]

    first = fetch(clinic, named)
    fetch(clinic, initials_only)
    fetch(clinic, named)
    fetch(clinic, named, If_None_Match=first.headers["ETag"])  # sends no name

    with clinic.inside() as session:
        reads = session.query(AuditLog).filter(AuditLog.action == "read", AuditLog.entity == "calendar_feed")
        audited = [(entry.entity_id, entry.patient_ids, entry.user_id, entry.operation) for entry in reads]
    patients = sorted(row["patient_id"] for row in rows)
    operation = "GET /calendar/<calendar_token>.ics"
    assert audited == [(named["id"], patients, None, operation)] * 2
    log = clinic.admin.get(f"/patients/{patients[0]}/access-log").get_json()
    assert [entry["action"] for entry in log].count("read") == 2


def test_a_withdrawn_setting_hides_the_names_at_once(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(calendar_feed_names=True)
    feed = new_feed(clinic, detail="names")
    book(clinic, f"{MONDAY}T10:00", patient_id=clinic.patient(name="Zoë Ng")["id"])
    before = fetch(clinic, feed)

    after = fetch(make_clinic(), feed, If_None_Match=before.headers["ETag"])

    assert [str(shown["summary"]) for shown in events(before)] == ["Zoë Ng"]
    assert [str(shown["summary"]) for shown in events(after)] == ["Busy"]


# --- Limits ---


@pytest.mark.parametrize(("same_token", "allowed"), [(True, 60), (False, 300)], ids=["token", "network"])
def test_fetches_are_limited_by_token_and_by_network(
    make_clinic: MakeClinic, same_token: bool, allowed: int
) -> None:
    clinic = make_clinic(rate_limit_enabled=True, rate_limit_default="100000 per minute")
    feed = new_feed(clinic)

    def send(number: int, address: str) -> Any:
        url = feed["url"] if same_token else f"/calendar/{number}.ics"
        environment = {"REMOTE_ADDR": address if not same_token else f"192.0.2.{number % 200}"}
        return clinic.nobody.get(url.removeprefix("http://localhost"), environ_overrides=environment)

    statuses = [send(number, "198.51.100.7").status_code for number in range(allowed)]
    refused, other = send(allowed, "198.51.100.7"), send(allowed + 1, "198.51.100.8")

    assert set(statuses) == {200 if same_token else 404}
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert "calendar-" in refused.headers["RateLimit-Policy"]
    assert other.status_code == (429 if same_token else 404)


def test_five_thousand_appointments_need_no_more_statements(clinic: Clinic) -> None:
    feed = new_feed(clinic, days_back=0, days_ahead=366)
    row = book(clinic, f"{MONDAY}T09:00")
    fetch(clinic, feed)
    clinic.admin.delete(f"/appointments/{row['id']}")
    few = _count_statements(clinic, feed)
    _copy_appointment(clinic, 5000)

    many = _count_statements(clinic, feed)

    assert many == few
    assert len(few) == 4  # the feed, appointments, time off, and the record of the fetch
    assert len(events(fetch(clinic, feed))) == 5001


def _count_statements(clinic: Clinic, feed: dict[str, Any]) -> list[str]:
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            statements.append(statement)

    with clinic.inside():
        event.listen(db.engine, "before_cursor_execute", record)
    try:
        assert fetch(clinic, feed).status_code == 200
    finally:
        with clinic.inside():
            event.remove(db.engine, "before_cursor_execute", record)
    return statements


def _copy_appointment(clinic: Clinic, copies: int) -> None:
    """Add copies of the appointment, an hour apart."""
    columns = [column for column in Appointment.__table__.columns if column.name != "id"]
    with clinic.inside() as session:
        values = dict(zip([c.name for c in columns], session.execute(select(*columns)).one(), strict=True))
        rows = []
        for number in range(1, copies + 1):
            moved = {name: values[name] + timedelta(hours=number) for name in ("start", "end")}
            rows.append(values | moved | {"blocked_until": moved["end"]})
        session.execute(insert(Appointment), rows)


# --- One appointment ---


def test_an_appointment_can_be_downloaded_by_every_role_that_may_read_it(clinic: Clinic) -> None:
    row = book(clinic, f"{MONDAY}T10:00", patient_id=clinic.patient(name="Zoë Ng")["id"], reason="rash")
    path = f"/appointments/{row['id']}.ics"

    for role in ("admin", "doctor", "receptionist", "technician"):
        response = clinic.caller(role).get(path)
        (shown,) = events(response)
        assert period(shown) == tuple(datetime.fromisoformat(row[name]) for name in ("start", "end"))
    repeated = clinic.admin.get(path, headers={"If-None-Match": response.headers["ETag"]} | _token(clinic))

    assert response.headers["Content-Disposition"] == f'attachment; filename="appointment-{row["id"]}.ics"'
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert not any(text in response.get_data(as_text=True) for text in ("Zoë", "Ng", "rash"))
    assert (repeated.status_code, repeated.get_data()) == (304, b"")
    assert clinic.nobody.get(path).status_code == 401
    assert clinic.admin.get("/appointments/987654.ics").status_code == 404
    with clinic.inside() as session:
        reads = session.query(AuditLog).filter(AuditLog.operation.contains(".ics"))
        successes = [entry.patient_ids for entry in reads if entry.outcome.value == "success"]
    assert successes == [[row["patient_id"]]] * 5


def _token(clinic: Clinic) -> dict[str, str]:
    return {"Authorization": f"Bearer {clinic.admin.token}"}


def test_the_event_of_a_download_is_the_one_of_the_feed(clinic: Clinic) -> None:
    feed, row = new_feed(clinic), book(clinic, f"{MONDAY}T10:00")
    path = f"/appointments/{row['id']}.ics"
    (booked,) = events(clinic.admin.get(path))
    (in_feed,) = events(fetch(clinic, feed))

    clinic.admin.delete(f"/appointments/{row['id']}")

    cancelled = clinic.admin.get(path)
    assert in_feed["uid"] == booked["uid"]
    assert "METHOD:CANCEL" in cancelled.get_data(as_text=True)
    (shown,) = events(cancelled)
    assert (shown["uid"], str(shown["status"])) == (booked["uid"], "CANCELLED")
    assert shown["sequence"] > booked["sequence"]
