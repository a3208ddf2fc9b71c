"""Letters of doctors: members by type, permissions, numbers, voiding, and the timeline."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from models import Event
from services import clock
from services.integrity_checks import violations
from tests.support.clinic import Caller, Clinic
from tests.support.concurrency import run_concurrently

EVENTS = select(Event.type).where(Event.entity == "letter").order_by(Event.id)
CERTIFICATE = {"type": "certificate", "text": "Fit to travel."}
REFERRAL = {"type": "referral", "text": "Please see this patient.", "recipient": "City Hospital"}


def day(offset: int) -> str:
    return (clock.today() + timedelta(days=offset)).isoformat()


def sick_note(first: int = 0, last: int = 2, **members: Any) -> dict[str, Any]:
    return {"type": "sick_note", "from_date": day(first), "to_date": day(last)} | members


def issue(clinic: Clinic, body: dict[str, Any] | None = None, **visit: Any) -> dict[str, Any]:
    """Issue a letter of the doctor of a new visit, by default a certificate."""
    return clinic.doctor.make(f"/visits/{clinic.visit(**visit)['id']}/letters", **(body or CERTIFICATE))


def year() -> int:
    return clock.today().year


def test_a_letter_has_a_number_and_the_members_of_its_issue(clinic: Clinic) -> None:
    patient = clinic.patient(name="Njeri Wanjiku", date_of_birth="1990-11", file_number="F-7")["id"]
    text = "Line <1> & line\n2\n\nend"

    response = clinic.doctor.post(
        f"/visits/{clinic.visit(patient_id=patient)['id']}/letters",
        sick_note(text=text, recipient="Harbour Freight Ltd\nMombasa"),
    )
    letter = response.get_json()
    clinic.admin.patch(f"/patients/{patient}", {"name": "Njeri Otieno", "date_of_birth": "1991"})
    clinic.admin.patch(f"/doctors/{clinic.doctor.doctor_id}", {"specialty": "surgery", "name": "Grace W"})

    assert (response.status_code, response.headers["Location"]) == (201, f"/letters/{letter['id']}")
    assert (letter["number"], letter["status"]) == (f"LTR-{year()}-000001", "issued")
    assert (letter["text"], letter["recipient"]) == (text, "Harbour Freight Ltd\nMombasa")
    assert (letter["issued_on"], letter["from_date"], letter["to_date"]) == (day(0), day(0), day(2))
    stored = clinic.technician.get(f"/letters/{letter['id']}").get_json()
    assert (stored["patient_name"], stored["doctor_name"]) == ("Njeri Otieno", "Grace W")
    assert stored["printed"] == letter["printed"]
    printed = stored["printed"]
    assert (printed["patient_name"], printed["file_number"], printed["date_of_birth"]) == (
        "Njeri Wanjiku",
        "F-7",
        "1990-11",
    )
    assert (printed["specialty"], printed["visited_on"]) == ("general practice", day(0))
    assert clinic.admin.patch(f"/letters/{letter['id']}", {"text": "x"}).status_code == 405
    assert clinic.admin.delete(f"/letters/{letter['id']}").status_code == 405


def test_each_type_needs_its_members(clinic: Clinic) -> None:
    path = f"/visits/{clinic.visit()['id']}/letters"
    refused: list[tuple[dict[str, Any], str]] = [
        ({}, "type"),
        ({"type": "reference", "text": "x"}, "type"),
        (sick_note() | {"from_date": None}, "from_date"),
        (sick_note() | {"to_date": None}, "to_date"),
        (sick_note(0, -1), "to_date"),
        (sick_note(-15), "from_date"),
        (sick_note(0, 367), "to_date"),
        (sick_note(30, 397), "to_date"),
        (CERTIFICATE | {"text": " "}, "text"),
        (CERTIFICATE | {"from_date": day(0), "to_date": day(-1)}, "to_date"),
        (REFERRAL | {"recipient": ""}, "recipient"),
        (REFERRAL | {"text": None}, "text"),
        (REFERRAL | {"from_date": day(0)}, "from_date"),
        (REFERRAL | {"text": "x" * 20_001}, "text"),
        (REFERRAL | {"diagnosis": "flu"}, "diagnosis"),
    ]

    for body, member in refused:
        response = clinic.doctor.post(path, body)
        assert (response.status_code, list(response.get_json()["errors"])) == (422, [member]), body
    for body in (sick_note(-14, 351), sick_note(0, 0), CERTIFICATE | {"to_date": day(-400)}, REFERRAL):
        clinic.doctor.make(path, **body)
    numbers = [row["number"] for row in clinic.doctor.get(path).get_json()]
    assert numbers == [f"LTR-{year()}-00000{number}" for number in (4, 3, 2, 1)]


def test_active_html_in_a_letter_is_made_inert(clinic: Clinic) -> None:
    letter = issue(clinic, CERTIFICATE | {"text": "<script>x</script> BP <120/80"})

    assert letter["text"] == "< script>x< /script> BP <120/80"


def test_a_letter_that_no_font_can_print_takes_no_number(clinic: Clinic) -> None:
    path = f"/visits/{clinic.visit()['id']}/letters"

    response = clinic.doctor.post(path, CERTIFICATE | {"text": "陳大文"})

    assert (response.status_code, response.get_json()["error"]) == (422, "unprintable_characters")
    assert "陳 大 文" in response.get_json()["message"]
    assert clinic.doctor.make(path, **CERTIFICATE)["number"].endswith("-000001")


def statuses(callers: list[Caller], send: Any) -> list[int]:
    return [send(caller).status_code for caller in callers]


def test_only_the_doctor_of_the_visit_writes_and_clinical_roles_read(clinic: Clinic) -> None:
    other, roles = clinic.sign_in("doctor"), (clinic.admin, clinic.receptionist, clinic.technician)
    visit = clinic.visit()
    path = f"/visits/{visit['id']}/letters"

    assert statuses([*roles, other], lambda caller: caller.post(path, CERTIFICATE)) == [403] * 4
    letter = clinic.doctor.make(path, **CERTIFICATE)
    item = f"/letters/{letter['id']}"
    for read in (path, "/letters", item, f"{item}/document"):
        readers = [clinic.admin, clinic.doctor, other, clinic.technician, clinic.receptionist]
        assert statuses(readers, lambda caller, read=read: caller.get(read)) == [200] * 4 + [403], read
    void = {"reason": "Wrong period"}
    refused = [other, clinic.receptionist, clinic.technician]
    assert statuses(refused, lambda caller: caller.post(f"{item}/void", void)) == [403] * 3
    assert clinic.doctor.post(f"{item}/void", {}).status_code == 422
    voided = clinic.admin.post(f"{item}/void", void).get_json()
    assert (voided["status"], voided["void_reason"]) == ("void", "Wrong period")
    again = clinic.doctor.post(f"{item}/void", void)
    assert (again.status_code, again.get_json()["error"]) == (409, "read_only")


def test_emergency_access_shows_the_letters_of_its_patient_only(clinic: Clinic) -> None:
    letter, other = issue(clinic), issue(clinic)
    reason = {"reason": "The patient fell in the waiting room"}
    clinic.receptionist.post(f"/patients/{letter['patient_id']}/emergency-access", reason)

    rows = clinic.receptionist.get("/letters").get_json()

    assert [row["id"] for row in rows] == [letter["id"]]
    assert clinic.receptionist.get(f"/letters/{letter['id']}/document").status_code == 200
    assert clinic.receptionist.get(f"/letters/{other['id']}").status_code == 404
    assert clinic.receptionist.get(f"/visits/{other['visit_id']}/letters").get_json() == []
    log = clinic.admin.get("/audit-logs?entity=letter&action=read").get_json()
    assert [entry["detail"] for entry in log] == ["emergency_access"]


def test_the_state_of_visit_and_patient_decides(clinic: Clinic) -> None:
    signed, void = clinic.visit(), clinic.visit()
    clinic.doctor.post(f"/visits/{signed['id']}/sign")
    clinic.admin.delete(f"/visits/{void['id']}", {"reason": "wrong patient"})
    archived = clinic.visit()
    clinic.admin.patch(f"/patients/{archived['patient_id']}", {"is_active": False})

    def answer(visit: dict[str, Any], body: dict[str, Any]) -> tuple[int, str | None]:
        response = clinic.doctor.post(f"/visits/{visit['id']}/letters", body)
        return response.status_code, response.get_json().get("error")

    assert answer(signed, sick_note()) == (201, None)
    assert answer(void, CERTIFICATE) == (409, "conflict")
    assert answer(archived, sick_note()) == (409, "patient_inactive")
    assert answer(archived, REFERRAL) == (409, "patient_inactive")
    assert answer(archived, CERTIFICATE) == (201, None)
    assert clinic.doctor.post("/visits/999/letters", CERTIFICATE).status_code == 404


def test_a_visit_with_a_valid_letter_cannot_be_voided(clinic: Clinic) -> None:
    letter = issue(clinic)
    path = f"/visits/{letter['visit_id']}"

    refused = clinic.admin.delete(path, {"reason": "wrong patient"})
    clinic.doctor.post(f"/letters/{letter['id']}/void", {"reason": "wrong patient"})

    assert (refused.status_code, refused.get_json()["error"]) == (409, "in_use")
    assert clinic.admin.delete(path, {"reason": "wrong patient"}).status_code == 200


def test_the_list_filters_and_the_timeline_shows_letters(clinic: Clinic) -> None:
    first, second = issue(clinic, sick_note()), issue(clinic, REFERRAL)
    clinic.doctor.post(f"/letters/{second['id']}/void", {"reason": "twice"})

    for query, letters in (
        (f"patient_id={first['patient_id']}", [first]),
        (f"doctor_id={clinic.doctor.doctor_id}", [second, first]),
        ("type=referral", [second]),
        ("status=void", [second]),
        ("status=issued", [first]),
        (f"q={first['number']}", [first]),
        (f"start_date={day(0)}&end_date={day(0)}", [second, first]),
        (f"from_date_gte={day(0)}", [first]),
        (f"end_date={day(-1)}", []),
    ):
        rows = clinic.technician.get(f"/letters?{query}").get_json()
        assert [row["id"] for row in rows] == [letter["id"] for letter in letters], query
    events = clinic.doctor.get(f"/patients/{second['patient_id']}/timeline?type=letter").get_json()
    assert [(event["title"], event["status"]) for event in events] == [(second["number"], "void")]
    assert events[0]["details"]["recipient"] == "City Hospital"
    receptionist = clinic.receptionist.get(f"/patients/{second['patient_id']}/timeline").get_json()
    assert {event["type"] for event in receptionist} == {"visit"}


def test_issuing_and_voiding_are_audited_and_are_events(clinic: Clinic) -> None:
    letter = issue(clinic, sick_note())
    clinic.doctor.post(f"/letters/{letter['id']}/void", {"reason": "twice"})

    with clinic.inside() as session:
        types = session.execute(EVENTS).scalars().all()
    log = clinic.admin.get("/audit-logs?entity=letter&sort_by=id&sort_order=asc").get_json()

    assert types == ["letter.issued", "letter.voided"]
    assert [entry["action"] for entry in log] == ["create", "void"]
    assert all(entry["patient_ids"] == [letter["patient_id"]] for entry in log)


# --- Races ---------------------------------------------------------------------------------------------


def test_letters_of_two_doctors_at_once_have_numbers_without_gaps(clinic: Clinic) -> None:
    doctors = [clinic.doctor, clinic.sign_in("doctor")]
    visits = [clinic.visit(doctor_id=doctor.doctor_id)["id"] for doctor in doctors]
    bodies = [CERTIFICATE, CERTIFICATE, CERTIFICATE, REFERRAL | {"recipient": None}]

    responses = run_concurrently(
        [
            lambda caller=doctors[number % 2], visit=visits[number % 2], body=bodies[number // 8]: (
                caller.post(f"/visits/{visit}/letters", body)
            )
            for number in range(32)
        ]
    )

    issued = sorted(each.get_json()["number"] for each in responses if each.status_code == 201)
    assert [each.status_code for each in responses].count(422) == 8
    assert issued == [f"LTR-{year()}-{number:06d}" for number in range(1, 25)]
    with clinic.inside():
        assert list(violations()) == []


def test_a_visit_is_not_voided_while_its_letter_is_issued(clinic: Clinic) -> None:
    for _ in range(4):
        path = f"/visits/{clinic.visit()['id']}"

        issued, voided = run_concurrently(
            [
                lambda path=path: clinic.doctor.post(f"{path}/letters", CERTIFICATE),
                lambda path=path: clinic.admin.delete(path, {"reason": "wrong patient"}),
            ]
        )

        assert sorted((issued.status_code, voided.status_code)) in ([200, 409], [201, 409])
    with clinic.inside():
        assert list(violations()) == []


@pytest.mark.parametrize("change", [{"license_expires_on": "2026-01-01"}, {"is_active": False}])
def test_a_doctor_without_a_valid_licence_writes_no_letters_and_prescriptions(
    clinic: Clinic, change: dict[str, Any]
) -> None:
    doctor = f"/doctors/{clinic.doctor.doctor_id}"
    visit = clinic.visit()
    medication = {"visit_id": visit["id"], "medications": ["Ibuprofen"]}
    earlier = f"/prescriptions/{clinic.doctor.make('/prescriptions', **medication)['id']}"
    clinic.admin.patch(doctor, change)

    def send(caller: Caller, path: str, body: dict[str, Any]) -> tuple[int, str | None]:
        response = caller.patch(path, body) if path == earlier else caller.post(path, body)
        return response.status_code, response.get_json().get("error")

    refused = (409, "conflict")
    assert send(clinic.doctor, f"/visits/{visit['id']}/letters", CERTIFICATE) == refused
    assert send(clinic.doctor, "/prescriptions", medication) == refused
    assert send(clinic.admin, "/prescriptions", medication) == refused
    assert send(clinic.doctor, earlier, {"medications": ["Paracetamol"]}) == refused
    assert send(clinic.doctor, earlier, {"status": "cancelled"}) == (200, None)
    assert send(clinic.doctor, f"/visits/{visit['id']}/sign", {}) == (200, None)

    clinic.admin.patch(doctor, {"license_expires_on": day(0), "is_active": True})
    assert send(clinic.doctor, f"/visits/{visit['id']}/letters", CERTIFICATE) == (201, None)
