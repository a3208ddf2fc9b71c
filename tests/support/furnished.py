"""A clinic with some rows of every kind, for documented examples and generated requests."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import update

from enums import ExportFormat, ExportState, ImportAction, ImportRowState, JobState
from models import Export, Import, ImportedRow, Passkey, User, UserSession
from services import clock
from services.calendar_feeds.feeds import MAX_FEEDS
from services.exports import exports, files
from services.jobs import storage
from tests.support.calendars import calendar_token
from tests.support.clinic import Clinic, soon
from tests.support.imports import upload
from tests.support.pictures import small_png

COPIES = 3
# path parameters of one path -> ids that belong together; a token is a text
Rows = dict[tuple[str, ...], list[tuple[Any, ...]]]


def furnish(clinic: Clinic, first: int = 1, copies: int = COPIES) -> Rows:
    """Create rows of every kind, with ids from `first` on; return the ids by path parameters."""
    rows: Rows = defaultdict(list)
    for number in range(first, first + copies):
        for names, ids in _create_one_of_each(clinic, number).items():
            rows[names].append(ids)
    clinic.admin.patch("/clinic", {"name": f"Clinic {first}", "phones": ["+1 555 767 7400"]})
    clinic.admin.put("/clinic/logo", data=small_png(), content_type="image/png")
    clinic.admin.put("/messages/templates/booked/sms/en", {"text": f"{{clinic}}: {{date}}, room {first}"})
    rows[("kind", "channel", "locale")] = [("booked", "sms", "en"), ("reminder", "email", "sw")]
    rows[("user_id",)] = [(clinic.caller("technician").user_id,), (clinic.sign_in("receptionist").user_id,)]
    return dict(rows)


def _create_one_of_each(clinic: Clinic, number: int) -> dict[tuple[str, ...], tuple[Any, ...]]:
    admin, doctor = clinic.admin, clinic.doctor
    doctor_id = doctor.doctor_id
    patient = clinic.patient(
        name=f"Zoë Number{number}",
        date_of_birth="1984-02-29",
        gender="female",
        phone=f"+1 555 767 747{number}",
        email=f"zoe{number}@example.com",
        address="12 Harbour Road",
        blood_type="O+",
        insurance_provider="Acme Health",
        insurance_id=f"AH-{number}",
    )["id"]
    history = {"allergies": ["Latex"], "conditions": ["Asthma"], "medications": ["Salbutamol"]}
    admin.patch(f"/patients/{patient}/medical-history", history)
    item = clinic.item(
        quantity=50, sku=f"SKU-{number}", category="dressings", unit="piece", unit_cost="1.20"
    )["id"]
    price = admin.make("/price-list", code=f"LAB-{number}", name=f"Blood count {number}", unit_price="25.00")[
        "id"
    ]
    appointment = clinic.appointment(
        patient_id=patient, doctor_id=doctor_id, date=soon(days=number), reason="Cough", type="follow_up"
    )["id"]
    visit = clinic.visit(
        patient_id=patient,
        doctor_id=doctor_id,
        chief_complaint="Sore throat",
        diagnoses=[{"icd10": "J02.9"}],
        vitals={"systolic": 120, "diastolic": 80, "weight_kg": 70.5, "height_cm": 172},
        follow_up_date="2030-03-04",
        amount_paid="500.00",  # credit of the patient
    )["id"]
    treatment = clinic.treatment(visit_id=visit, inventory_items=[{"item_id": item, "quantity": 1}])["id"]
    prescription = doctor.make(
        "/prescriptions", visit_id=visit, medications=[{"name": "Metformin", "quantity": 30.5}]
    )["id"]
    letter = doctor.make(
        f"/visits/{visit}/letters",
        type="referral",
        text="Please see this patient",
        recipient="City Hospital",
    )["id"]
    bill = clinic.bill("500.00", patient_id=patient)["id"]
    path = f"/billings/{bill}"
    paid = admin.make(f"{path}/payments", amount="150.00", method="cash")
    refunds = clinic.receptionist.make(f"{path}/refunds", amount="5.00", reason="Billed twice")
    credit = {"amount": "5.00", "method": "cash", "reason": "Paid twice"}
    credit_refund = clinic.receptionist.make(f"/patients/{patient}/account/refunds", **credit)["id"]
    claims = admin.make(f"{path}/claims", insurer="Acme", policy_number="A-1", amount="60.00")
    access = clinic.receptionist.make(f"/patients/{patient}/emergency-access", reason="Unconscious")["id"]
    start = datetime.now(UTC) + timedelta(days=100 + number)
    time_off = doctor.make(
        f"/doctors/{doctor_id}/time-off",
        start=start.isoformat(),
        end=(start + timedelta(days=1)).isoformat(),
        reason="Conference",
    )["id"]
    if number > MAX_FEEDS:  # the clinic has one doctor, who has few feeds
        feeds = admin.get(f"/doctors/{doctor_id}/calendar-feeds").get_json()
        admin.delete(f"/doctors/{doctor_id}/calendar-feeds/{feeds[0]['id']}")
    feed = doctor.make(f"/doctors/{doctor_id}/calendar-feeds")
    return {
        ("patient_id",): (patient,),
        ("emergency_access_id",): (access,),
        ("doctor_id",): (doctor_id,),
        ("item_id",): (item,),
        ("price_list_item_id",): (price,),
        ("appointment_id",): (appointment,),
        ("visit_id",): (visit,),
        ("treatment_id",): (treatment,),
        ("prescription_id",): (prescription,),
        ("letter_id",): (letter,),
        ("billing_id",): (bill,),
        ("billing_id", "payment_id"): (bill, _newest_id(paid, "payments")),
        ("billing_id", "refund_id"): (bill, _newest_id(refunds, "refunds")),
        ("patient_id", "refund_id"): (patient, credit_refund),
        ("billing_id", "claim_id"): (bill, _newest_id(claims, "claims")),
        ("doctor_id", "time_off_id"): (doctor_id, time_off),
        ("doctor_id", "calendar_feed_id"): (doctor_id, feed["id"]),
        ("calendar_token",): (calendar_token(feed),),
        ("session_id",): (number,),
        ("passkey_id",): (add_passkey(clinic, number),),
        ("job_id",): (add_dead_job(clinic),),
        ("import_id",): (_import(clinic, number),),
        ("message_id",): (_message(clinic, appointment),),
        ("export_id",): (add_export(clinic, clinic.admin.user_id),),
        ("provider", "secret"): ("sms", "a-secret-that-is-not-the-right-one-12345"),
        ("token",): ("a-token-that-is-not-genuine",),
    }


def add_passkey(clinic: Clinic, number: int) -> int:
    """Add a passkey of the admin, who has just proved it in the open sessions. Return its id."""
    admin, now = clinic.admin.user_id, clock.now()
    with clinic.inside() as session:
        session.execute(update(User).where(User.id == admin).values(mfa_enabled_at=now))
        session.execute(update(UserSession).where(UserSession.user_id == admin).values(stepped_up_at=now))
        passkey = Passkey(
            user_id=admin,
            name=f"Phone {number}",
            credential_id=f"key-{number}",
            public_key=b"",
            sign_count=0,
            created_at=clock.now() - timedelta(days=number),
            last_used_at=clock.now() - timedelta(hours=number),
        )
        session.add(passkey)
        session.flush()
        return passkey.id


def add_dead_job(clinic: Clinic) -> int:
    """Add a job that has failed too often, and return its id."""
    now = clock.now()
    times = {"run_at": now, "created_at": now, "finished_at": now}
    with clinic.inside():
        return (
            storage.insert_job(
                kind="events.dispatch", payload={"event_id": 1}, state=JobState.DEAD, attempts=10, **times
            )
            or 0
        )


def _import(clinic: Clinic, number: int) -> int:
    """Upload a file whose row a dry run has refused, and return the id of the import."""
    import_id: int = upload(clinic.admin, f"Name,Phone\nAda Number{number},none\n".encode())["id"]
    problem = {"field": "phone", "code": "not_a_phone", "message": "must be a phone number"}
    with clinic.inside() as session:
        session.add(
            ImportedRow(
                import_id=import_id,
                number=2,
                state=ImportRowState.REFUSED,
                action=ImportAction.NONE,
                problems=[problem],
            )
        )
        session.get_one(Import, import_id).refused = 1
    return import_id


def _message(clinic: Clinic, appointment_id: int) -> int:
    """Queue a reminder by hand and return its id."""
    row = clinic.receptionist.make(f"/appointments/{appointment_id}/messages", kind="reminder", channel="sms")
    message_id: int = row["id"]
    return message_id


def add_export(clinic: Clinic, user_id: int) -> int:
    """Add an export of an admin with its file, and return its id."""
    content, now = b"id,name\r\n", clock.now()
    with clinic.inside() as session:
        export = Export(
            user_id=user_id,
            path="/doctors",
            format=ExportFormat.CSV,
            state=ExportState.READY,
            reader=["admin", None],
            count=0,
            left_out=0,
            size=len(content),
            digest=hashlib.sha256(content).hexdigest(),
            finished_at=now,
            expires_at=now + exports.LIFETIME,
        )
        session.add(export)
        session.flush()
        files.store(export.id, 0, content)
        return export.id


def _newest_id(body: dict[str, Any], kind: str) -> int:
    """Return the id of the created row: the response is the row, or the bill that contains it."""
    newest: int = max(row["id"] for row in body[kind]) if kind in body else body["id"]
    return newest
