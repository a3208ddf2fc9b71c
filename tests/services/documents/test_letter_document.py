"""The letter on paper: what each type shows, the names of its issue, and the mark of a void letter."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import pdf
from tests.support.clinic import Clinic

PERIOD = {"from_date": "2026-11-02", "to_date": "2026-11-04"}
VISIT_DATE = "2026-11-03T09:00:00Z"


def issue(clinic: Clinic, **members: Any) -> dict[str, Any]:
    patient = clinic.patient(
        name="Njeri Wanjiku",
        date_of_birth="1990-11",
        file_number=f"F-{next(clinic.numbers)}",
        allow_duplicate=True,
    )
    visit = clinic.visit(patient_id=patient["id"], date=VISIT_DATE, diagnoses=[{"description": "Influenza"}])
    return clinic.doctor.make(f"/visits/{visit['id']}/letters", **members)


def document(clinic: Clinic, letter: dict[str, Any], query: str = "") -> str:
    response = clinic.technician.get(f"/letters/{letter['id']}/document?{query}")
    assert response.status_code == 200, response.get_data(as_text=True)
    return pdf.text_of(response.get_data())


def test_a_sick_note_states_the_period_and_no_diagnosis(clinic: Clinic) -> None:
    letter = issue(clinic, type="sick_note", recipient="Harbour Freight Ltd\nMombasa", **PERIOD)
    single = issue(clinic, type="sick_note", from_date="2026-11-03", to_date="2026-11-03")

    text = document(clinic, letter)
    words = " ".join(text.split())

    for part in (
        f"Sick note {letter['number']}",
        "Harbour Freight Ltd",
        "Mombasa",
        "Njeri Wanjiku",
        "November 1990",
        letter["printed"]["file_number"],
        "From November 2, 2026",
        "To November 4, 2026",
        "from November 2, 2026 to November 4, 2026, both days included.",
        "The patient consulted us on November 3, 2026.",
        letter["doctor_name"],
        f"Licence number {letter['printed']['license_number']}",
    ):
        assert part in words
    assert "Influenza" not in text
    assert "To whom it may concern" not in text
    short = " ".join(document(clinic, single).split())
    assert "To whom it may concern" in short
    assert "unable to work or to attend school on November 3, 2026." in short
    swahili = document(clinic, letter, "locale=sw&paper=a5")
    assert f"Cheti cha ugonjwa {letter['number']}" in swahili


def test_the_paragraphs_of_a_text_are_kept_over_two_pages(clinic: Clinic) -> None:
    text = "Dear colleague,\n\n" + "Please examine this patient.\n" * 120
    letter = issue(clinic, type="referral", text=text, recipient="Cardiology")

    printed = document(clinic, letter, "paper=a5")

    assert "Dear colleague,\n" in printed
    assert printed.count("Please examine this patient.") == 120
    assert f"Referral {letter['number']} · Njeri Wanjiku Page 2 of" in printed


def test_a_signature_is_never_alone_on_a_page(clinic: Clinic) -> None:
    visit = clinic.visit()
    for number in range(20, 32):  # the last lines of the first page
        text = "\n".join(f"Line {line}" for line in range(number))
        letter = clinic.doctor.make(f"/visits/{visit['id']}/letters", type="certificate", text=text)
        document = clinic.doctor.get(f"/letters/{letter['id']}/document?paper=a5").get_data()

        last_page = pdf.pages_of(document)[-1]

        assert "Signature and stamp" in last_page
        assert f"Line {number - 1}" in last_page


def test_later_changes_of_names_and_of_the_clinic_do_not_change_a_letter(clinic: Clinic) -> None:
    letter = issue(clinic, type="certificate", text="Fit to travel.")
    path = f"/letters/{letter['id']}/document"
    before = clinic.doctor.get(path)
    changes = (
        (f"/patients/{letter['patient_id']}", {"name": "Njeri Otieno", "date_of_birth": "1991"}),
        (f"/doctors/{letter['doctor_id']}", {"name": "Grace W", "license_number": "X-1"}),
        (f"/visits/{letter['visit_id']}", {"date": "2026-11-01T09:00:00Z"}),
        ("/clinic", {"name": "Another clinic", "address": "Elsewhere"}),
    )
    for changed, members in changes:
        assert clinic.admin.patch(changed, members).status_code == 200

    after = clinic.doctor.get(path, headers={"If-None-Match": before.headers["ETag"]})

    assert after.status_code == 304


@pytest.mark.parametrize(
    ("query", "mark"), [("", "VOID"), ("locale=sw", "BATILI"), ("locale=fr&paper=a5", "ANNUL")]
)
def test_a_void_letter_says_so(clinic: Clinic, query: str, mark: str) -> None:
    letter = issue(clinic, type="certificate", text="Fit to travel.")
    valid = document(clinic, letter, query)
    clinic.doctor.post(f"/letters/{letter['id']}/void", {"reason": "Wrong patient"})

    void = document(clinic, letter, query)

    assert (mark in valid, mark in void) == (False, True)
    assert "Wrong patient" not in void
