"""Patients: registration, file numbers, duplicates, changes, archiving."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from models import AuditLog, MedicalHistory, Patient
from services.patients import birth_dates
from services.patients.name_matching import similar_names
from services.search_key import search_key
from tests.support.clinic import PASSWORD, Clinic, soon
from tests.support.concurrency import run_concurrently

JOHN = {
    "name": "John Doe",
    "gender": "male",
    "date_of_birth": "1990-01-01",
    "phone": "+1 (555) 123-4567",
    "email": "john@example.com",
    "address": "12 Harbour Street",
    "blood_type": "O+",
    "insurance_provider": "Acme Health",
    "insurance_id": "AH-99812",
    "emergency_contact_name": "Jane Doe",
    "emergency_contact_phone": "555-767-7476",
    "needs_review": True,
    "review_notes": "paper file has no address",
}


# --- Registration --------------------------------------------------------------------------------------


def test_a_registered_patient_is_returned_as_sent(clinic: Clinic) -> None:
    made = clinic.receptionist.post("/patients", JOHN)

    row = made.get_json()
    assert made.status_code == 201
    assert made.headers["Location"] == f"/patients/{row['id']}"
    assert made.headers["ETag"] == '"1"'
    assert {name: row[name] for name in JOHN} == JOHN
    assert row["phone_e164"] == "+15551234567"
    assert row["file_number"] == f"P-{row['id']:06d}"
    assert row["is_active"] is True
    assert row["account_balance"] == "0.00"
    assert row["last_visit"] is row["next_appointment"] is None
    assert clinic.doctor.get(f"/patients/{row['id']}").get_json() == row


def test_only_the_name_is_required(clinic: Clinic) -> None:
    row = clinic.receptionist.make("/patients", name="Ngô Thị Hường")

    assert row["name"] == "Ngô Thị Hường"
    assert row["date_of_birth"] is row["age"] is row["phone"] is None
    assert clinic.receptionist.post("/patients", {"gender": "male"}).get_json()["errors"] == {
        "name": "is required"
    }


def test_a_name_with_special_characters_is_stored_unchanged(clinic: Clinic) -> None:
    row = clinic.receptionist.make("/patients", name="Siobhán O'Brien & Sons <ward 3>")

    assert row["name"] == "Siobhán O'Brien & Sons <ward 3>"


def test_a_blank_file_number_is_issued(clinic: Clinic) -> None:
    for blank in ("", "  ", None):
        assert clinic.patient(file_number=blank)["file_number"].startswith("P-0")


INVALID_MEMBERS: list[tuple[str, Any]] = [
    ("name", "   "),
    ("name", None),
    ("gender", "unknown"),
    ("date_of_birth", "1990-13-01"),
    ("date_of_birth", 0),
    ("phone", "call the neighbour"),
    ("email", "john at example"),
    ("blood_type", "C+"),
    ("needs_review", "yes"),
    ("title", "Dr"),
]


def test_an_invalid_member_is_422_and_named(clinic: Clinic) -> None:
    for field, value in INVALID_MEMBERS:
        answer = clinic.admin.post("/patients", {"name": "John Doe", field: value})

        assert answer.status_code == 422
        assert list(answer.get_json()["errors"]) == [field]


def test_a_date_of_birth_may_be_today_but_not_in_the_future(clinic: Clinic) -> None:
    today = datetime.now(UTC).date()

    born_today = clinic.admin.make("/patients", name="Baby Doe", date_of_birth=today.isoformat())
    unborn = clinic.admin.post(
        "/patients", {"name": "Baby Roe", "date_of_birth": (today + timedelta(days=1)).isoformat()}
    )

    assert born_today["age"] == 0
    assert unborn.status_code == 422
    assert "date_of_birth" in unborn.get_json()["errors"]


def test_an_age_above_130_years_is_refused(clinic: Clinic) -> None:
    today = datetime.now(UTC).date()
    oldest = date(today.year - 127, 1, 1).isoformat()

    row = clinic.admin.make("/patients", name="Jeanne Calment", date_of_birth=oldest)
    older = clinic.admin.post("/patients", {"name": "Li Ching-Yuen", "date_of_birth": "1677-01-01"})

    assert row["age"] == 127
    assert older.status_code == 422


def test_the_birthday_of_29_february_is_on_1_march_in_common_years() -> None:
    born = date(2000, 2, 29)

    assert birth_dates.age_on(date(2027, 2, 28), born) == 26
    assert birth_dates.age_on(date(2027, 3, 1), born) == 27
    assert birth_dates.age_on(date(2028, 2, 29), born) == 28


@pytest.mark.parametrize(
    ("typed", "region", "international"),
    [
        ("+1 (555) 123-4567", "US", "+15551234567"),
        ("555-767-7476", "US", "+15557677476"),
        ("0712345678", "KE", "+254712345678"),
        ("+44 20 7946 0958 ext. 12", "US", "+442079460958"),
        ("12345", "US", None),
        ("0712\u2013345\u2011678", "KE", "+254712345678"),
        ("0712\u00a0345\u202f678", "KE", "+254712345678"),
        ("\u202a+254 712 345 678\u202c", "US", "+254712345678"),
        ("tel:+1-555-123-4567", "KE", "+15551234567"),
        ("Tel: 0712345678", "KE", "+254712345678"),
        ("tel:+1-555-123-4567;ext=12", "KE", "+15551234567"),
        ("0712 345678 (mother)", "KE", "+254712345678"),
        ("0712 345678 (after 6 pm, ask for Jo) (work)", "KE", "+254712345678"),
        ("(555) 123-4567 (24/7)", "US", "+15551234567"),
        ("00254 712 345 678", "US", "+254712345678"),
        ("(00) 254 712 345 678", "KE", "+254712345678"),
        ("+44 (0)20 7946 0958", "KE", "+442079460958"),
    ],
)
def test_phones_are_stored_as_typed_and_in_e164_form(
    make_clinic: Any, typed: str, region: str, international: str | None
) -> None:
    clinic = make_clinic(default_phone_region=region)

    row = clinic.admin.make("/patients", name="John Doe", phone=typed)

    assert row["phone"] == typed
    assert row["phone_e164"] == international


def test_phones_are_accepted_in_common_notations_wherever_one_is_typed(clinic: Clinic) -> None:
    typed = "tel:+1 555\u2013123\u20114567\u00a0(home, ask for Zoë)"
    user = {"email": "z@clinic.example", "password": PASSWORD, "role": "receptionist"}

    row = clinic.patient(phone=typed, emergency_contact_phone=typed)

    assert (row["phone"], row["emergency_contact_phone"]) == (typed, typed)
    assert clinic.doctor_row(phone=typed)["phone"] == typed
    assert clinic.admin.make("/users", name="Zoe", phone=typed, **user)["phone"] == typed
    for wrong in ("(mother)", "call 0712345678", "12", "1" * 21, "0712345678 (a(b))", "0712345678 mother"):
        answer = clinic.admin.post("/patients", {"name": "Zoe", "phone": wrong})
        assert list(answer.get_json()["errors"]) == ["phone"], wrong


def test_a_search_reads_00_as_plus_and_ignores_remarks(make_clinic: Any) -> None:
    clinic = make_clinic(default_phone_region="KE")
    rows = [
        clinic.patient(phone=phone)["id"]
        for phone in ("0712 345 678 (2nd number)", "+254 712\u2011345\u2011678", "00254712345678")
    ]
    clinic.patient(phone="0799 000 222")

    for text in ("00254712345678", "00254 712 345", "+254712345678", "tel:+254\u2013712\u2013345\u2013678"):
        for name in ("phone", "q"):
            answer = clinic.admin.get("/patients/search", query_string={name: text})
            assert [row["id"] for row in answer.get_json()["patients"]] == rows, (name, text)
    assert clinic.admin.get("/patients", query_string={"phone": "6782"}).get_json() == []


# --- File numbers --------------------------------------------------------------------------------------


def test_a_given_file_number_is_stored_and_unique(clinic: Clinic) -> None:
    row = clinic.admin.make("/patients", name="John Doe", file_number="1998/0042")
    again = clinic.admin.post("/patients", {"name": "Mary Roe", "file_number": "1998/0042"})

    assert row["file_number"] == "1998/0042"
    assert again.status_code == 409
    assert again.get_json()["error"] == "already_exists"
    assert "file_number" in again.get_json()["errors"]


def test_an_issued_number_gets_a_suffix_if_it_was_given_to_another_patient(clinic: Clinic) -> None:
    first = clinic.patient()
    other = clinic.patient(file_number=f"P-{first['id'] + 2:06d}")

    row, following = clinic.patient(), clinic.patient()

    assert row["file_number"] == f"P-{row['id']:06d}-1" != other["file_number"]
    assert following["file_number"] == f"P-{following['id']:06d}"


def test_an_issued_number_may_have_more_than_six_digits(clinic: Clinic) -> None:
    with clinic.inside() as session:
        connection = session.connection()
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT setval(pg_get_serial_sequence('patients', 'id'), 999998)")
        else:
            connection.exec_driver_sql(
                "INSERT INTO patients (id, file_number, name, name_fold, needs_review, is_active, version, "
                "created_at, updated_at) VALUES (999998, 'A', 'Ada', 'ada', 0, 1, 1, 0, 0)"
            )

    numbers = [clinic.patient()["file_number"] for _ in range(2)]

    assert numbers == ["P-999999", "P-1000000"]


def test_concurrent_registrations_get_different_file_numbers(clinic: Clinic) -> None:
    receptionist = clinic.receptionist
    names = ["Ada", "Bela", "Cyril", "Dora", "Emil", "Flora", "Georg", "Hanna"]

    made = run_concurrently(
        [lambda name=name: receptionist.post("/patients", {"name": name}) for name in names]
    )

    assert [answer.status_code for answer in made] == [201] * len(names)
    assert len({answer.get_json()["file_number"] for answer in made}) == len(names)


def test_a_file_number_cannot_be_cleared(clinic: Clinic) -> None:
    row = clinic.patient()

    answer = clinic.admin.patch(f"/patients/{row['id']}", {"file_number": None})

    assert answer.status_code == 422


# --- Duplicates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shared", [{"date_of_birth": "1990-01-01"}, {"phone": "555.123.4567"}, {"email": "JOHN@example.com"}]
)
def test_a_similar_name_with_an_equal_trait_is_a_possible_duplicate(
    clinic: Clinic, shared: dict[str, str]
) -> None:
    known = clinic.admin.make("/patients", **JOHN)

    answer = clinic.receptionist.post("/patients", {"name": "Jon DOE", **shared})

    problem = answer.get_json()
    assert answer.status_code == 409
    assert problem["error"] == "possible_duplicate"
    assert [candidate["id"] for candidate in problem["candidates"]] == [known["id"]]
    assert problem["candidates"][0]["matches"] == ["name", *shared]
    assert problem["candidates"][0]["file_number"] == known["file_number"]


def test_insurance_numbers_are_compared_without_case(clinic: Clinic) -> None:
    clinic.admin.make("/patients", **JOHN)

    answer = clinic.admin.post("/patients", {"name": "Doe, John", "insurance_id": "ah-99812"})

    assert answer.get_json()["error"] == "possible_duplicate"


def test_allow_duplicate_registers_a_possible_duplicate(clinic: Clinic) -> None:
    clinic.admin.make("/patients", **JOHN)

    twin = clinic.receptionist.post("/patients", JOHN | {"allow_duplicate": True})

    assert twin.status_code == 201
    assert "allow_duplicate" not in twin.get_json()


def test_an_equal_phone_or_an_equal_name_alone_is_no_duplicate(clinic: Clinic) -> None:
    clinic.admin.make("/patients", **JOHN)

    clinic.receptionist.make("/patients", name="Mary Doe", phone=JOHN["phone"])
    clinic.receptionist.make("/patients", name="John Doe", date_of_birth="1951-07-09")
    clinic.receptionist.make("/patients", name="Peter Roe", date_of_birth=JOHN["date_of_birth"])


def test_concurrent_registrations_of_one_person_create_one_patient(clinic: Clinic) -> None:
    receptionist = clinic.receptionist
    body = {"name": "Amina Yusuf", "date_of_birth": "1984-05-06", "phone": "555-200-3000"}

    answers = run_concurrently([lambda: receptionist.post("/patients", body) for _ in range(6)])

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5
    assert {a.get_json()["error"] for a in answers if a.status_code == 409} == {"possible_duplicate"}


def test_a_change_that_introduces_a_duplicate_is_refused(clinic: Clinic) -> None:
    clinic.admin.make("/patients", **JOHN)
    other = clinic.patient(name="John Do")
    path = f"/patients/{other['id']}"

    refused = clinic.receptionist.patch(path, {"date_of_birth": "1990-01-01"})
    passed = clinic.receptionist.patch(path, {"date_of_birth": "1990-01-01", "allow_duplicate": True})
    later = clinic.receptionist.patch(path, {"name": "Johnny Doe"} | {"name": "John Does"})

    assert refused.get_json()["error"] == "possible_duplicate"
    assert passed.status_code == 200
    assert later.status_code == 200  # they were likely duplicates before this change


@pytest.mark.parametrize(
    ("name", "other", "similar"),
    [
        ("John Doe", "Doe John", True),
        ("John Doe", "Jhon Doe", True),
        ("John Doe", "J. Doe", True),
        ("John Doe", "John Michael Doe", True),
        ("José García", "Jose Garcia López", True),
        ("Mary Ann Lee", "Maryann Lee", True),
        ("Christopher Ng", "Kristopher Ng", True),
        ("Łukasz Żak", "Lukasz Zak", True),
        ("John Doe", "Jane Doe", False),
        ("John Doe", "John Roe-Smith", False),
        ("Anna Smith", "Emma Smith", False),
        ("Patient Number12", "Patient Number13", False),
        ("Lee", "Li", False),
    ],
)
def test_similar_names_are_recognised_in_both_directions(name: str, other: str, similar: bool) -> None:
    assert similar_names(search_key(name), search_key(other)) is similar
    assert similar_names(search_key(other), search_key(name)) is similar


# --- Changes -------------------------------------------------------------------------------------------


def test_a_change_sets_only_given_members_and_null_clears(clinic: Clinic) -> None:
    row = clinic.admin.make("/patients", **JOHN)

    answer = clinic.receptionist.patch(f"/patients/{row['id']}", {"email": None, "phone": "555-000-1111"})

    changed = answer.get_json()
    expected = row | {
        "email": None,
        "phone": "555-000-1111",
        "phone_e164": "+15550001111",
        "updated_at": changed["updated_at"],
    }
    assert changed == expected
    assert answer.headers["ETag"] == '"2"'


def test_a_put_of_the_whole_row_applies_the_changed_member(clinic: Clinic) -> None:
    row = clinic.admin.make("/patients", **JOHN)

    answer = clinic.receptionist.put(f"/patients/{row['id']}", row | {"address": "3 Mill Lane"})

    assert answer.status_code == 200
    assert answer.get_json()["address"] == "3 Mill Lane"


def test_a_stale_version_is_refused(clinic: Clinic) -> None:
    row = clinic.patient()
    path = f"/patients/{row['id']}"
    clinic.receptionist.patch(path, {"address": "3 Mill Lane"})

    stale = clinic.receptionist.patch(path, {"address": "elsewhere"}, headers={"If-Match": '"1"'})

    assert stale.status_code == 412
    assert clinic.admin.get(path).get_json()["address"] == "3 Mill Lane"


def test_technicians_read_patients_without_account_balance(clinic: Clinic) -> None:
    row = clinic.patient()
    path = f"/patients/{row['id']}"

    seen = clinic.technician.get(path).get_json()
    listed = clinic.technician.get("/patients").get_json()

    assert set(row) - set(seen) == {"account_balance"}
    assert all("account_balance" not in patient for patient in listed)
    assert clinic.technician.patch(path, {"address": "x"}).status_code == 403
    assert clinic.technician.post("/patients", {"name": "x"}).status_code == 403


# --- Archiving -----------------------------------------------------------------------------------------


def test_an_archived_patient_stays_readable_and_can_be_restored(clinic: Clinic) -> None:
    row = clinic.patient()
    path = f"/patients/{row['id']}"

    archived = clinic.admin.delete(path)

    assert archived.status_code == 200
    assert archived.get_json()["is_active"] is False
    assert clinic.admin.delete(path).status_code == 200
    assert clinic.doctor.get(path).get_json()["is_active"] is False
    assert clinic.admin.patch(path, {"is_active": True}).get_json()["is_active"] is True


def test_only_an_admin_may_archive_and_restore(clinic: Clinic) -> None:
    row = clinic.patient()
    path = f"/patients/{row['id']}"

    for caller in (clinic.doctor, clinic.receptionist):
        assert caller.delete(path).status_code == 403
        assert caller.patch(path, {"is_active": False}).status_code == 403
        assert caller.patch(path, {"is_active": True, "address": "3 Mill Lane"}).status_code == 200
        assert caller.post("/patients", {"name": "Old File", "is_active": False}).status_code == 403


def test_a_patient_with_appointments_or_open_balance_is_not_archived(clinic: Clinic) -> None:
    patient = clinic.patient()
    path = f"/patients/{patient['id']}"
    appointment = clinic.appointment(patient_id=patient["id"], date=soon(days=3))
    bill = clinic.bill("80.00", patient_id=patient["id"])

    refused = clinic.admin.delete(path)
    by_change = clinic.admin.patch(path, {"is_active": False})

    reasons = {reason["code"]: reason for reason in refused.get_json()["reasons"]}
    assert refused.status_code == by_change.status_code == 409
    assert refused.get_json()["error"] == by_change.get_json()["error"] == "in_use"
    assert set(reasons) == {"future_appointments", "open_balance"}
    assert [row["id"] for row in reasons["future_appointments"]["appointments"]] == [appointment["id"]]
    assert reasons["open_balance"]["account_balance"] == "80.00"
    clinic.admin.delete(f"/appointments/{appointment['id']}", {"cancellation_reason": "moved away"})
    clinic.admin.post(f"/billings/{bill['id']}/payments", {"amount": "80.00", "method": "cash"})
    assert clinic.admin.delete(path).status_code == 200


def test_a_patient_with_a_debt_and_a_credit_of_one_amount_is_not_archived(
    make_clinic: Callable[..., Clinic],
) -> None:
    clinic = make_clinic(currency="JPY")
    patient_id = clinic.patient()["id"]
    clinic.bill("1", patient_id=patient_id, amount_paid="81", payment_method="cash", allow_credit=True)
    bill = clinic.bill("80", patient_id=patient_id)

    (reason,) = clinic.admin.delete(f"/patients/{patient_id}").get_json()["reasons"]

    assert (reason["code"], reason["account_balance"]) == ("open_balance", "0")
    clinic.admin.post(f"/billings/{bill['id']}/payments", {"amount": "80", "method": "credit"})
    assert clinic.admin.delete(f"/patients/{patient_id}").status_code == 200


# --- Stored rows ---------------------------------------------------------------------------------------


def test_a_registration_writes_one_audit_entry_and_an_empty_history(clinic: Clinic) -> None:
    row = clinic.receptionist.make("/patients", name="John Doe", phone="555-767-7476")

    with clinic.inside() as session:
        entries = session.query(AuditLog).all()
        history = session.query(MedicalHistory).one()
        assert [(e.action, e.entity, e.entity_id, e.patient_ids) for e in entries] == [
            ("create", "patient", row["id"], [row["id"]])
        ]
        assert entries[0].fields == ["file_number", "is_active", "name", "needs_review", "phone"]
        assert entries[0].user_id == clinic.receptionist.user_id
        assert history.patient_id == row["id"]
        assert session.get(Patient, row["id"]).version == 1
