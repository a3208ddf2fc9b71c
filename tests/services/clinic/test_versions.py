"""Versions of the clinic record: an issued document prints the clinic of the day of its issue."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event, func, select, text

from extensions import db
from models import Billing, ClinicRecordVersion
from services import integrity_checks
from tests.support import pdf
from tests.support.clinic import Clinic
from tests.support.concurrency import run_concurrently
from tests.support.pictures import small_png

OLD = {"name": "Old Clinic", "address": "1 Old Road", "tax_number": "P-OLD", "bank_details": "Old Bank 17"}
NEW = {"name": "New Clinic", "address": "9 New Road", "tax_number": "P-NEW", "bank_details": "New Bank 23"}


def put_logo(clinic: Clinic, side: int) -> None:
    response = clinic.admin.put("/clinic/logo", data=small_png((side, side)), content_type="image/png")
    assert response.status_code == 200, response.get_data(as_text=True)


def document(clinic: Clinic, bill: dict[str, Any], query: str = "") -> bytes:
    response = clinic.receptionist.get(f"/billings/{bill['id']}/document{query}")
    assert response.status_code == 200, response.get_data(as_text=True)
    return response.get_data()


def versions(clinic: Clinic) -> list[str]:
    with clinic.inside() as session:
        return list(session.scalars(select(ClinicRecordVersion.name).order_by(ClinicRecordVersion.id)))


def test_invoice_and_receipt_print_the_clinic_of_the_issue(clinic: Clinic) -> None:
    clinic.admin.patch("/clinic", OLD)
    put_logo(clinic, 8)
    bill = clinic.bill("100.00", amount_paid="40.00", payment_method="cash")
    before = [document(clinic, bill), document(clinic, bill, "?type=receipt")]

    clinic.admin.patch("/clinic", NEW)
    put_logo(clinic, 16)
    after = [document(clinic, bill), document(clinic, bill, "?type=receipt")]

    assert after == before
    old, new = pdf.text_of(after[0]), pdf.text_of(document(clinic, clinic.bill("10.00")))
    assert all(value in old and value not in new for value in OLD.values())
    assert all(value in new for value in NEW.values())


def test_a_change_is_one_version_and_an_equal_value_is_none(clinic: Clinic) -> None:
    for _ in range(2):
        clinic.admin.patch("/clinic", {"name": "A", "tax_number": "1"})
        put_logo(clinic, 8)
    clinic.admin.delete("/clinic/logo")
    clinic.admin.delete("/clinic/logo")
    refused = clinic.admin.patch("/clinic", {"name": "B", "locale": "not a locale"})

    assert refused.status_code == 422
    assert versions(clinic) == ["Clinic", "A", "A", "A"]


def test_the_issue_of_a_bill_takes_no_statement_more(clinic: Clinic) -> None:
    patient_id = clinic.patient()["id"]
    put_logo(clinic, 8)
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    with clinic.inside():
        event.listen(db.engine, "before_cursor_execute", record)
    bill = clinic.bill(patient_id=patient_id)
    listed = clinic.admin.get("/billings").get_json()
    with clinic.inside():
        event.remove(db.engine, "before_cursor_execute", record)

    assert [row["id"] for row in listed] == [bill["id"]]
    reads = [statement for statement in statements if "clinic_record" in statement or "logo" in statement]
    assert len(reads) == 1
    assert reads[0].startswith("INSERT INTO billings")


def test_bills_that_are_issued_during_changes_have_a_complete_version(clinic: Clinic) -> None:
    patients = [clinic.patient()["id"] for _ in range(8)]

    def issue(number: int) -> int:
        clinic.bill(patient_id=patients[number])
        return 201

    def change(number: int) -> int:
        name = f"Clinic {number}"
        return clinic.admin.patch("/clinic", {"name": name, "legal_name": f"{name} Ltd"}).status_code

    calls = [lambda number=number: issue(number) for number in range(8)]
    calls += [lambda number=number: change(number) for number in range(8)]
    codes = run_concurrently(calls)

    assert codes == [201] * 8 + [200] * 8
    with clinic.inside() as session:
        assert list(integrity_checks.violations()) == []
        assert session.scalar(select(func.count()).select_from(ClinicRecordVersion)) == 9
        rows = session.execute(
            select(ClinicRecordVersion.name, ClinicRecordVersion.legal_name).join(
                Billing, Billing.clinic_version_id == ClinicRecordVersion.id
            )
        ).all()
    assert len(rows) == 8
    assert all(legal_name == (None if name == "Clinic" else f"{name} Ltd") for name, legal_name in rows)


def test_verify_reports_a_record_without_its_version(clinic: Clinic) -> None:
    rule = "The last version of the clinic record has its content."
    with clinic.inside() as session:
        session.execute(text("UPDATE clinic_record SET tax_number = 'changed'"))

    with clinic.inside():
        assert list(integrity_checks.violations()) == [(rule, [1])]
