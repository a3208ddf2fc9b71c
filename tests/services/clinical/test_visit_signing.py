"""Visits: sign, correct by addenda, void."""

from __future__ import annotations

from typing import Any

from tests.support.clinic import Clinic


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["error"]


# --- Signing -------------------------------------------------------------------------------------------


def test_a_signed_visit_is_read_only(clinic: Clinic) -> None:
    row = clinic.visit()
    path = f"/visits/{row['id']}"

    signed = clinic.doctor.post(f"{path}/sign")

    assert signed.status_code == 200
    assert (signed.get_json()["status"], signed.get_json()["signed_by_id"]) == (
        "signed",
        clinic.doctor.user_id,
    )
    assert refusal(clinic.doctor.post(f"{path}/sign")) == (409, "invalid_transition")
    assert refusal(clinic.doctor.patch(path, {"notes": "x"})) == (409, "read_only")
    assert refusal(clinic.technician.patch(path, {"vitals": {"spo2": 97}})) == (409, "read_only")
    assert refusal(clinic.admin.delete(path, {"reason": "x"})) == (409, "read_only")
    assert clinic.doctor.put(path, signed.get_json()).status_code == 200


def test_a_signed_visit_is_corrected_by_addenda(clinic: Clinic) -> None:
    row = clinic.visit()
    path = f"/visits/{row['id']}"

    early = clinic.doctor.post(f"{path}/addenda", {"text": "Left ear."})
    clinic.doctor.post(f"{path}/sign")
    answer = clinic.doctor.post(f"{path}/addenda", {"text": "Left ear, not right."})

    addendum = answer.get_json()
    assert refusal(early) == (409, "conflict")
    assert (answer.status_code, answer.headers["Location"]) == (201, path)
    assert (addendum["text"], addendum["author_id"]) == ("Left ear, not right.", clinic.doctor.user_id)
    assert addendum["created_at"]
    assert clinic.doctor.get(path).get_json()["addenda"] == [addendum]
    assert clinic.doctor.post(f"{path}/addenda", {"text": " "}).status_code == 422


# --- Voiding -------------------------------------------------------------------------------------------


def test_the_reason_for_voiding_a_visit_is_optional(clinic: Clinic) -> None:
    row = clinic.visit(
        treatments=[{"name": "Dressing", "cost": 1}],
        prescriptions=[{"medications": ["Paracetamol"]}, {"details": "Rest"}],
    )
    completed = f"/prescriptions/{row['prescriptions'][1]['id']}"
    assert clinic.doctor.patch(completed, {"status": "completed"}).status_code == 200

    answers = [
        clinic.admin.delete(f"/visits/{row['id']}"),
        clinic.admin.delete(f"/visits/{clinic.visit()['id']}?reason=", {"reason": ""}),
    ]

    for answer in answers:
        assert answer.status_code == 200, answer.get_data(as_text=True)
        assert (answer.get_json()["status"], answer.get_json()["void_reason"]) == ("void", None)
    assert [treatment["status"] for treatment in answers[0].get_json()["treatments"]] == ["cancelled"]
    first, second = answers[0].get_json()["prescriptions"]
    assert (first["status"], second["stop_reason"]) == ("cancelled", "The visit was voided.")


def test_voiding_a_visit_voids_its_treatments_and_cancels_its_prescriptions(clinic: Clinic) -> None:
    item = clinic.item(quantity=5)
    used = [{"item_id": item["id"], "quantity": 2}]
    row = clinic.visit(
        treatments=[{"name": "Dressing", "cost": 1, "inventory_items": used}],
        prescriptions=[{"medications": [{"name": "Paracetamol"}]}],
    )
    path = f"/visits/{row['id']}"

    answer = clinic.admin.delete(f"{path}?reason=wrong patient")

    voided = answer.get_json()
    assert (answer.status_code, voided["status"], voided["void_reason"]) == (200, "void", "wrong patient")
    assert [treatment["status"] for treatment in voided["treatments"]] == ["cancelled"]
    assert [prescription["status"] for prescription in voided["prescriptions"]] == ["cancelled"]
    assert clinic.admin.get(f"/inventory/{item['id']}").get_json()["quantity"] == 5
    assert refusal(clinic.doctor.patch(path, {"notes": "x"})) == (409, "read_only")
    assert refusal(clinic.doctor.post(f"{path}/sign")) == (409, "invalid_transition")


def test_a_billed_visit_can_be_voided_only_after_its_bill(clinic: Clinic) -> None:
    row = clinic.visit(treatments=[{"name": "Dressing", "cost": 1}])
    bill = clinic.admin.make("/billings", visit_id=row["id"])

    refused = clinic.admin.delete(f"/visits/{row['id']}", {"reason": "twice"})
    clinic.admin.post(f"/billings/{bill['id']}/void", {"reason": "twice"})
    done = clinic.admin.delete(f"/visits/{row['id']}", {"reason": "twice"})

    assert refusal(refused) == (409, "in_use")
    assert done.get_json()["status"] == "void"
