"""Reports: totals, periods in the time zone of the clinic, and permissions."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from sqlalchemy import func, select

from enums import AppointmentStatus, CancelledBy
from models import Appointment, LedgerEntry, Patient, ScheduleWindow, TimeOff, Visit
from services import clock
from services.reports import periods
from services.reports.periods import Span, Unit
from services.spreadsheets.csv_files import format_cell
from tests.support import queries
from tests.support.clinic import Caller, Clinic

Row = dict[str, Any]
MakeClinic = Callable[..., Clinic]


def report(caller: Caller, name: str, **query: Any) -> Any:
    answer = caller.get(f"/analytics/{name}", query_string=query)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return answer.get_json()


def pay(clinic: Clinic, bill: Row, amount: str, **members: Any) -> None:
    body = {"amount": amount, "method": "cash"} | members
    assert clinic.receptionist.post(f"/billings/{bill['id']}/payments", body).status_code == 201


def csv_rows(caller: Caller, name: str, **query: Any) -> list[list[str]]:
    answer = caller.get(f"/analytics/{name}", query_string=query | {"format": "csv"})
    assert answer.mimetype == "text/csv"
    return list(csv.reader(io.StringIO(answer.get_data().decode("utf-8-sig"))))


def appointment(clinic: Clinic, doctor_id: int, start: datetime, **members: Any) -> int:
    """Insert an appointment of 30 minutes with any start and status."""
    with clinic.inside() as session:
        end = start + timedelta(minutes=30)
        values = {"start": start, "end": end, "blocked_until": end, "status": AppointmentStatus.COMPLETED}
        patient_id = session.execute(select(func.max(Patient.id))).scalar_one()
        row = Appointment(doctor_id=doctor_id, patient_id=patient_id, **(values | members))
        session.add(row)
        session.flush()
        return int(row.id)


def visit(clinic: Clinic, patient_id: int, when: datetime, **members: Any) -> None:
    with clinic.inside() as session:
        values = {"doctor_id": clinic.doctor.doctor_id, "patient_id": patient_id, "date": when} | members
        session.add(Visit(**values))


# --- Revenue -------------------------------------------------------------------------------------------


def test_revenue_totals_are_sums_of_the_ledger(clinic: Clinic) -> None:
    doctor_id = clinic.doctor.doctor_id
    first = clinic.bill(
        "200.00", doctor_id=doctor_id, discount="20.00", discount_reason="staff", tax_rate="10"
    )
    pay(clinic, first, "150.00")
    clinic.admin.post(f"/billings/{first['id']}/refunds", {"amount": "30.00", "reason": "x"})
    clinic.admin.post(f"/billings/{first['id']}/write-off", {"amount": "8.00", "reason": "x"})
    second = clinic.bill("50.00")
    pay(clinic, second, "80.00", method="card", allow_credit=True)
    void = clinic.bill("500.00", discount="5.00", discount_reason="x", amount_paid="100.00")
    clinic.admin.post(f"/billings/{void['id']}/void", {"reason": "x"})

    result = report(clinic.admin, "revenue")

    # billed: charges 200.00 + 50.00 and tax 18.00; of the void bill only the received money counts
    assert result["totals"] == {
        "billed": "268.00",
        "discounted": "20.00",
        "collected": "330.00",
        "refunded": "30.00",
        "net": "300.00",
        "written_off": "8.00",
        "outstanding": "70.00",
    }
    assert len(result["data"]) == 30
    assert result["data"][-1] == {
        "period": today_of(clinic),
        "start": today_of(clinic),
        "end": today_of(clinic),
        "billed": "268.00",
        "collected": "330.00",
        "refunded": "30.00",
        "net": "300.00",
        "revenue": "300.00",
    }
    assert {row["net"] for row in result["data"][:-1]} == {"0.00"}
    assert [
        (row["method"], row["collected"], row["refunded"], row["net"]) for row in result["by_method"]
    ] == [
        ("cash", "150.00", "30.00", "120.00"),
        ("card", "80.00", "0.00", "80.00"),
        ("other", "100.00", "0.00", "100.00"),
    ]
    assert [(row["doctor_id"], row["billed"], row["net"]) for row in result["by_doctor"]] == [
        (doctor_id, "218.00", "120.00"),
        (None, "50.00", "180.00"),
    ]
    assert result["ageing"] == {
        "current": "70.00",
        "1-30": "0.00",
        "31-60": "0.00",
        "61-90": "0.00",
        "90+": "0.00",
    }
    with clinic.inside() as session:
        total = session.execute(
            select(func.sum(LedgerEntry.amount)).where(LedgerEntry.billing_id.is_not(None))
        ).scalar_one()
    assert total == Decimal("70.00")


def today_of(clinic: Clinic) -> str:
    with clinic.app.app_context():
        return clock.today().isoformat()


def test_revenue_can_be_limited_to_one_doctor(clinic: Clinic) -> None:
    doctor_id = clinic.doctor.doctor_id
    clinic.bill("40.00", doctor_id=doctor_id, amount_paid="15.00")
    clinic.bill("70.00", amount_paid="70.00")

    result = report(clinic.admin, "revenue", doctor_id=doctor_id)

    totals = result["totals"]
    assert (totals["billed"], totals["collected"], totals["outstanding"]) == ("40.00", "15.00", "25.00")
    assert [row["doctor_id"] for row in result["by_doctor"]] == [doctor_id]
    assert clinic.admin.get("/analytics/revenue?doctor_id=999").status_code == 422


def test_a_payment_counts_in_the_period_of_its_receipt(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(clinic_timezone="America/New_York")
    bill = clinic.bill("100.00")
    # both are on 2 March in UTC; in New York the first is on 1 March
    pay(clinic, bill, "10.00", received_at="2026-03-02T04:59:59Z")
    pay(clinic, bill, "20.00", received_at="2026-03-02T05:00:00Z")

    span = {"start_date": "2026-03-01", "end_date": "2026-03-02"}
    days = report(clinic.admin, "revenue", **span)["data"]
    weeks = report(clinic.admin, "revenue", group_by="weekly", **span)["data"]
    month = report(clinic.admin, "revenue", group_by="month", **span)["data"]
    year = report(clinic.admin, "revenue", group_by="yearly", **span)["data"]

    assert [(row["period"], row["collected"]) for row in days] == [
        ("2026-03-01", "10.00"),
        ("2026-03-02", "20.00"),
    ]
    assert [(row["period"], row["start"], row["end"], row["collected"]) for row in weeks] == [
        ("2026-W09", "2026-03-01", "2026-03-01", "10.00"),
        ("2026-W10", "2026-03-02", "2026-03-02", "20.00"),
    ]
    assert [(row["period"], row["collected"]) for row in [*month, *year]] == [
        ("2026-03", "30.00"),
        ("2026", "30.00"),
    ]


# zone, instant, day of the clinic: both sides of each midnight around a change of the UTC offset
MIDNIGHTS = [
    ("Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29"),
    ("Europe/Berlin", "2026-03-29T21:59:59.999999Z", "2026-03-29"),
    ("Europe/Berlin", "2026-03-29T22:00:00Z", "2026-03-30"),
    ("Europe/Berlin", "2025-10-25T21:59:59.999999Z", "2025-10-25"),
    ("Europe/Berlin", "2025-10-25T22:00:00Z", "2025-10-26"),
    ("Europe/Berlin", "2025-10-26T22:59:59.999999Z", "2025-10-26"),
    ("Europe/Berlin", "2025-10-26T23:00:00Z", "2025-10-27"),
    ("America/Santiago", "2025-09-07T03:59:59.999999Z", "2025-09-06"),  # the change skips midnight
    ("America/Santiago", "2025-09-07T04:00:00Z", "2025-09-07"),
    ("Asia/Kathmandu", "2026-01-01T18:14:59.999999Z", "2026-01-01"),
    ("Asia/Kathmandu", "2026-01-01T18:15:00Z", "2026-01-02"),
]


@pytest.mark.parametrize("zone", sorted({zone for zone, _instant, _day in MIDNIGHTS}))
def test_days_are_days_of_the_clinic_when_the_utc_offset_changes(make_clinic: MakeClinic, zone: str) -> None:
    clinic = make_clinic(clinic_timezone=zone)
    expected: dict[str, int] = {}
    with time_machine.travel("2026-05-01T12:00:00Z", tick=True):
        bill = clinic.bill("1000.00")
        for number, (_zone, instant, day) in enumerate(row for row in MIDNIGHTS if row[0] == zone):
            pay(clinic, bill, str(2**number), received_at=instant)
            expected[day] = expected.get(day, 0) + 2**number
        result = report(clinic.admin, "revenue", start_date="2025-09-01", end_date="2026-04-30")

    collected = {row["period"]: row["collected"] for row in result["data"] if row["collected"] != "0.00"}
    assert collected == {day: f"{amount}.00" for day, amount in expected.items()}


def test_the_ageing_is_by_days_past_due(clinic: Clinic) -> None:
    with clinic.app.app_context():
        today = clock.today()
    late = {"current": 0, "1-30": 1, "31-60": 31, "61-90": 90, "90+": 91}
    for number, days in enumerate(late.values()):
        clinic.bill(str(2**number), due_date=(today - timedelta(days=days)).isoformat())
    clinic.bill("100.00")  # due on the day of its creation

    result = report(clinic.admin, "revenue")

    assert result["ageing"] == {
        "current": "101.00",
        "1-30": "2.00",
        "31-60": "4.00",
        "61-90": "8.00",
        "90+": "16.00",
    }
    assert result["totals"]["outstanding"] == "131.00"


def test_a_span_before_the_first_bill_has_zero_totals(clinic: Clinic) -> None:
    clinic.bill("100.00", amount_paid="40.00")

    result = report(clinic.admin, "revenue", start_date="2020-01-01", end_date="2020-01-31")

    assert set(result["totals"].values()) == {"0.00"}
    assert len(result["data"]) == 31


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"start_date": "2026-02-01", "end_date": "2026-01-31"}, "end_date"),
        ({"start_date": "2025-01-01", "end_date": "2026-02-05"}, "start_date"),
        ({"start_date": "1990-01-01", "end_date": "2026-01-01", "group_by": "month"}, "start_date"),
        ({"start_date": "yesterday"}, "start_date"),
        ({"group_by": "hour"}, "group_by"),
        ({"period": "day"}, "period"),
        ({"format": "xlsx"}, "format"),
    ],
)
def test_the_error_names_the_invalid_parameter(clinic: Clinic, query: Row, field: str) -> None:
    answer = clinic.admin.get("/analytics/revenue", query_string=query)

    assert answer.status_code == 422
    assert list(answer.get_json()["errors"]) == [field]


def test_a_span_with_only_an_end_date_has_30_days(clinic: Clinic) -> None:
    result = report(clinic.admin, "revenue", end_date="2026-03-31")["data"]

    assert (result[0]["period"], result[-1]["period"], len(result)) == ("2026-03-02", "2026-03-31", 30)


@pytest.mark.parametrize("unit", ["day", "week", "month", "year"])
def test_periods_contain_every_day_of_the_span_once(unit: Unit) -> None:
    whole = Span(date(2024, 11, 13), date(2025, 3, 1))

    cut = periods.periods(whole, unit)

    days = [part.start + timedelta(days=n) for part in cut for n in range((part.end - part.start).days + 1)]
    assert days == [whole.start + timedelta(days=n) for n in range((whole.end - whole.start).days + 1)]
    assert len({part.label for part in cut}) == len(cut)


# --- Performance ---------------------------------------------------------------------------------------


def monday(clinic: Clinic) -> date:
    with clinic.app.app_context():
        today = clock.today()
    return today - timedelta(days=today.weekday() + 14)


def test_rates_exclude_appointments_cancelled_by_the_clinic(clinic: Clinic) -> None:
    doctor_id, day = clinic.doctor.doctor_id, monday(clinic)
    clinic.patient()
    start = datetime.combine(day, time(9), UTC)
    ends = [
        {},
        {},
        {"status": AppointmentStatus.NO_SHOW},
        {"status": AppointmentStatus.CANCELLED, "cancelled_by": CancelledBy.PATIENT},
        {"status": AppointmentStatus.CANCELLED, "cancelled_by": CancelledBy.CLINIC},
    ]
    for number, members in enumerate(ends):
        appointment(clinic, doctor_id, start + timedelta(hours=number), **members)

    (line,) = report(clinic.admin, "doctor-performance", doctor_id=doctor_id)

    assert line["appointments"] == {"total": 5, "scheduled": 0, "completed": 2, "cancelled": 2, "no_show": 1}
    assert (line["completion_rate"], line["no_show_rate"]) == (0.5, 0.25)


def test_utilisation_is_booked_time_divided_by_working_hours_less_time_off(clinic: Clinic) -> None:
    doctor_id, day = clinic.doctor.doctor_id, monday(clinic)
    clinic.patient()
    with clinic.inside() as session:
        for start, end in ((9, 12), (13, 18)):
            session.add(ScheduleWindow(doctor_id=doctor_id, weekday=0, start=time(start), end=time(end)))
        off = [(datetime.combine(day, time(hour), UTC), hour) for hour in (8, 10)]
        for start, _hour in off:  # they overlap: off from 8 to 13, of which 3 hours are working hours
            session.add(TimeOff(doctor_id=doctor_id, start=start, end=start + timedelta(hours=3)))
    for hour in (14, 15):
        appointment(clinic, doctor_id, datetime.combine(day, time(hour), UTC))
    missed = datetime.combine(day, time(16), UTC)
    appointment(clinic, doctor_id, missed, status=AppointmentStatus.NO_SHOW)

    span = {"start_date": day.isoformat(), "end_date": (day + timedelta(days=6)).isoformat()}
    (line,) = report(clinic.admin, "doctor-performance", doctor_id=doctor_id, **span)

    assert line["utilisation"] == 0.2  # one hour of five


def test_a_night_shift_is_working_time_of_both_of_its_days(clinic: Clinic) -> None:
    doctor_id, day = clinic.doctor.doctor_id, monday(clinic)
    midnight = datetime.combine(day + timedelta(days=1), time(), UTC)
    clinic.patient()
    with clinic.inside() as session:
        session.add(ScheduleWindow(doctor_id=doctor_id, weekday=0, start=time(22), end=time(6)))
        # of which one hour is on Monday, and three hours are working hours on Tuesday
        session.add(
            TimeOff(
                doctor_id=doctor_id, start=midnight - timedelta(hours=1), end=midnight + timedelta(hours=3)
            )
        )
    appointment(clinic, doctor_id, midnight - timedelta(hours=2))
    appointment(clinic, doctor_id, midnight + timedelta(hours=4))

    def utilisation(first: int, last: int) -> float | None:
        span = {
            "start_date": (day + timedelta(days=first)).isoformat(),
            "end_date": (day + timedelta(days=last)).isoformat(),
        }
        (line,) = report(clinic.admin, "doctor-performance", doctor_id=doctor_id, **span)
        value: float | None = line["utilisation"]
        return value

    assert utilisation(0, 1) == 0.25  # one hour of four
    assert utilisation(0, 0) == 0.5  # half an hour of one
    assert utilisation(1, 1) == pytest.approx(0.17, abs=0.01)  # half an hour of three


def test_a_doctor_without_working_hours_has_no_utilisation(clinic: Clinic) -> None:
    doctor_id = clinic.doctor.doctor_id

    (line,) = report(clinic.admin, "doctor-performance", doctor_id=doctor_id)

    assert (line["utilisation"], line["completion_rate"], line["avg_visit_minutes"]) == (None, None, None)


def test_the_figures_of_a_doctor(clinic: Clinic) -> None:
    doctor_id = clinic.doctor.doctor_id
    first = clinic.visit(doctor_id=doctor_id)
    clinic.visit(doctor_id=doctor_id, patient_id=first["patient_id"])
    clinic.visit(doctor_id=doctor_id)
    clinic.treatment(visit_id=first["id"], cost="80.00")
    clinic.treatment(visit_id=first["id"], cost="20.00", status="planned")
    clinic.admin.make("/billings", visit_id=first["id"], amount_paid="50.00", payment_method="cash")

    (line,) = report(clinic.doctor, "doctor-performance")

    counted = ("visit_count", "patients_seen", "treatments", "billed", "collected", "total_revenue")
    assert [line[name] for name in counted] == [3, 2, 1, "80.00", "50.00", "50.00"]


def test_visit_minutes_are_the_time_from_check_in_to_signature(clinic: Clinic) -> None:
    doctor_id, day = clinic.doctor.doctor_id, monday(clinic)
    patient_id = clinic.patient()["id"]
    for hour, minutes in ((9, 20), (11, 45)):
        start = datetime.combine(day, time(hour), UTC)
        appointment_id = appointment(clinic, doctor_id, start, checked_in_at=start)
        signed_at = start + timedelta(minutes=minutes)
        visit(clinic, patient_id, start, appointment_id=appointment_id, signed_at=signed_at)

    (line,) = report(clinic.admin, "doctor-performance", doctor_id=doctor_id)

    assert line["avg_visit_minutes"] == 32.5


def test_a_doctor_sees_only_their_own_figures(clinic: Clinic) -> None:
    other = clinic.doctor_row()["id"]

    lines = report(clinic.doctor, "doctor-performance")
    own = report(clinic.doctor, "doctor-performance", doctor_id=clinic.doctor.doctor_id)
    refused = clinic.doctor.get(f"/analytics/doctor-performance?doctor_id={other}")

    assert lines == own
    assert [line["doctor_id"] for line in lines] == [clinic.doctor.doctor_id]
    assert refused.status_code == 403
    assert len(report(clinic.admin, "doctor-performance")) == 2


# --- Patients ------------------------------------------------------------------------------------------


def test_patients_are_counted_by_gender_and_age(clinic: Clinic) -> None:
    with time_machine.travel("2026-06-15T12:00:00Z", tick=True):
        caller = clinic.sign_in("admin")
        born = {"0-17": "2008-06-16", "18-34": "2008-06-15", "35-49": "1991-06-15", "65+": "1961-06-15"}
        for gender, day in zip(("male", "female", "other", None), born.values(), strict=True):
            name = f"Patient Born{day}"
            caller.make("/patients", name=name, date_of_birth=day, gender=gender)
        archived = caller.make("/patients", name="Patient Unknown")
        caller.delete(f"/patients/{archived['id']}")
        result = report(caller, "patient-stats")

    assert (result["total_patients"], result["active_patients"], result["new_patients"]) == (5, 4, 5)
    assert result["gender_distribution"] == {"male": 1, "female": 1, "other": 1, "unknown": 2}
    assert result["age_distribution"] == {
        "0-17": 1,
        "18-34": 1,
        "35-49": 1,
        "50-64": 0,
        "65+": 1,
        "unknown": 1,
    }


def test_growth_is_by_month(clinic: Clinic) -> None:
    ids = [clinic.patient()["id"] for _ in range(4)]
    made = ["2025-11-30T12:00:00Z", "2025-12-31T23:59:59Z", "2026-01-01T00:00:00Z", "2026-02-10T12:00:00Z"]
    with clinic.inside() as session:
        for patient_id, instant in zip(ids, made, strict=True):
            session.get(Patient, patient_id).created_at = datetime.fromisoformat(instant)

    result = report(clinic.admin, "patient-stats", start_date="2025-12-01", end_date="2026-01-31")

    assert result["growth_history"] == [
        {"month": "2025-12", "new_patients": 1, "total_patients": 2},
        {"month": "2026-01", "new_patients": 1, "total_patients": 3},
    ]
    assert (result["total_patients"], result["new_patients"]) == (3, 2)


def test_a_returning_patient_had_an_earlier_visit(clinic: Clinic) -> None:
    once, again, twice, voided = (clinic.patient()["id"] for _ in range(4))
    june, july = datetime(2026, 6, 20, 9, tzinfo=UTC), datetime(2026, 7, 1, 9, tzinfo=UTC)
    for patient_id, when in (
        (once, july),
        (again, june),
        (again, july),
        (twice, july),
        (twice, july + timedelta(days=1)),
        (voided, july),
    ):
        visit(clinic, patient_id, when)
    visit(clinic, voided, july, voided_at=july)

    result = report(clinic.admin, "patient-stats", start_date="2026-07-01", end_date="2026-07-31")

    assert result["returning_patients"] == 2
    assert result["visits_per_patient"] == 1.25


def test_diagnoses_of_one_frequency_have_the_same_order_and_case_on_both_engines(clinic: Clinic) -> None:
    for texts in (["épilepsie", "Zoster", "anaemia"], ["ÉPILEPSIE"]):
        clinic.visit(diagnoses=[{"description": text} for text in texts])
    clinic.visit(diagnoses=[{"icd10": "I10"}])

    rows = report(clinic.doctor, "patient-stats")["top_diagnoses"]

    assert [(row["icd10"] or row["description"], row["count"]) for row in rows] == [
        ("ÉPILEPSIE", 2),
        ("I10", 1),
        ("anaemia", 1),
        ("Zoster", 1),
    ]


def test_diagnoses_are_sorted_by_frequency(clinic: Clinic) -> None:
    hypertension = {"icd10": "I10", "description": "high blood pressure"}
    for diagnoses in (
        [hypertension, {"description": "Back pain"}],
        [hypertension | {"description": "HTN"}],
        [{"description": "back pain"}],
        [hypertension],
    ):
        clinic.visit(diagnoses=diagnoses)

    result = report(clinic.doctor, "patient-stats")["top_diagnoses"]

    assert [(row["icd10"], row["count"]) for row in result] == [("I10", 3), (None, 2)]
    assert result[0]["description"] == "Essential (primary) hypertension"
    assert result[1]["description"].lower() == "back pain"


# --- Dashboard -----------------------------------------------------------------------------------------


def test_the_dashboard_has_the_key_figures_of_today(clinic: Clinic) -> None:
    doctor_id = clinic.doctor.doctor_id
    bill = clinic.bill("100.00", amount_paid="40.00")
    clinic.receptionist.post(f"/billings/{bill['id']}/refunds", {"amount": "10.00", "reason": "x"})
    clinic.visit(doctor_id=doctor_id)
    clinic.item(3)

    result = report(clinic.admin, "dashboard")

    assert (result["date"], result["role"]) == (today_of(clinic), "admin")
    assert (result["visits"], result["patients_seen"], result["new_patients"]) == (1, 1, 2)
    assert result["money"] == {"billed": "100.00", "collected": "40.00", "refunded": "0.00", "net": "40.00"}
    assert (result["outstanding"], result["refund_requests"]) == ("60.00", 1)
    assert (result["unsigned_visits"], result["low_stock_items"]) == (1, 1)
    assert result["period"]["end_date"] == result["date"]
    assert result["period"]["money"] == result["money"]


def test_the_dashboard_shows_no_money_to_technicians(clinic: Clinic) -> None:
    clinic.bill("123.45")

    result = report(clinic.technician, "dashboard")

    shown = {*result, *result["period"]}
    assert not shown & {"money", "outstanding", "refund_requests", "unsigned_visits"}
    assert "123.45" not in str(result)
    assert "appointments" in result


def test_the_dashboard_of_a_doctor_is_limited_to_their_own_work(clinic: Clinic) -> None:
    other = clinic.doctor_row()["id"]
    clinic.visit(doctor_id=other)
    clinic.visit(doctor_id=clinic.doctor.doctor_id)
    clinic.bill("10.00", doctor_id=other)
    clinic.bill("20.00", doctor_id=clinic.doctor.doctor_id)

    result = report(clinic.doctor, "dashboard")

    assert (result["visits"], result["unsigned_visits"], result["outstanding"]) == (1, 1, "20.00")
    assert result["money"]["billed"] == "20.00"
    assert "refund_requests" not in result


@pytest.mark.parametrize(
    ("role", "seen"),
    [
        ("admin", [200, 200, 200, 200]),
        ("doctor", [403, 200, 200, 200]),
        ("receptionist", [403, 403, 403, 200]),
        ("technician", [403, 403, 403, 200]),
    ],
)
def test_reports_need_the_permission_of_the_role(clinic: Clinic, role: str, seen: list[int]) -> None:
    names = ("revenue", "doctor-performance", "patient-stats", "dashboard")

    assert [clinic.caller(role).get(f"/analytics/{name}").status_code for name in names] == seen


# --- CSV -----------------------------------------------------------------------------------------------


def test_revenue_is_available_as_csv(clinic: Clinic) -> None:
    clinic.bill("100.00", amount_paid="40.00")

    rows = csv_rows(clinic.admin, "revenue", group_by="month")
    accepted = clinic.admin.get("/analytics/revenue", headers={"Accept": "text/csv"})
    preferred = clinic.admin.get("/analytics/revenue?format=json", headers={"Accept": "text/csv"})

    assert rows[0] == ["period", "start", "end", "billed", "collected", "refunded", "net", "revenue"]
    assert rows[-1][3:] == ["100.00", "40.00", "0.00", "40.00", "40.00"]
    assert accepted.mimetype == "text/csv"
    assert accepted.headers["Content-Disposition"] == 'attachment; filename="revenue.csv"'
    assert preferred.mimetype == "application/json"


def test_csv_escapes_a_name_that_looks_like_a_formula(clinic: Clinic) -> None:
    clinic.doctor_row(name='=HYPERLINK("http://evil","x")')

    rows = csv_rows(clinic.admin, "doctor-performance")

    assert rows[1][1] == '\'=HYPERLINK("http://evil","x")'


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("-12.50", "-12.50"),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1+cmd|' /C calc'!A0", "'-1+cmd|' /C calc'!A0"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t'=1"),
        ("O'Brien & Sons", "O'Brien & Sons"),
        (None, ""),
    ],
)
def test_csv_cells_are_escaped_except_numbers(value: str | None, written: str) -> None:
    assert format_cell(value) == written


def test_a_report_without_rows_is_csv_of_figure_and_value(clinic: Clinic) -> None:
    clinic.patient(gender="female")

    figures = dict(csv_rows(clinic.admin, "patient-stats"))
    today = dict(csv_rows(clinic.technician, "dashboard"))

    assert (figures["total_patients"], figures["gender_distribution.female"]) == ("1", "1")
    assert "appointments.total" in today
    assert not [name for name in today if "money" in name]


def test_reports_take_a_constant_number_of_queries(clinic: Clinic) -> None:
    def count_queries() -> list[int]:
        return [queries.count(clinic, clinic.admin, f"/analytics/{path}") for path in paths]

    paths = ["revenue?group_by=week", "doctor-performance", "patient-stats", "dashboard"]
    before = count_queries()
    for _ in range(3):
        clinic.bill("10.00", amount_paid="1.00", doctor_id=clinic.doctor_row()["id"])
        clinic.visit(diagnoses=[{"description": "cough"}])

    assert count_queries() == before
    assert max(before) < 20
