"""The rows that the examples of the API documentation refer to: the first rows of a new demo clinic.

`api/docs/examples.py` names their ids. So they are created in this order, and only in a clinic without
doctors and patients. The users have random passwords: without a password reset nobody can sign in as one.
"""

from __future__ import annotations

import secrets
from datetime import date, timedelta
from decimal import Decimal
from io import BytesIO
from typing import TYPE_CHECKING

from sqlalchemy import select

from enums import CalendarDetail, Gender, LetterType, MessageKind, PaymentMethod, Role, TreatmentStatus
from extensions import db
from lazy_imports import LazyModule
from models import Billing, Doctor, Patient, User, Visit
from security.permissions import Actor
from services import clock
from services.billing import bills, claims, payments, price_list, refunds
from services.billing.bill_items import BillLine
from services.calendar_feeds import feeds
from services.clinic import logo, record
from services.clinic.record import clinic_record
from services.clinical import letters, prescriptions, treatments, visits
from services.inventory import items
from services.messages import planning, preferences
from services.messages.planning import Plan
from services.patients import patients
from services.scheduling import appointments, doctors, time_off
from services.users import accounts, emergency_access

if TYPE_CHECKING:
    from PIL import Image, ImageDraw
else:
    Image, ImageDraw = LazyModule("PIL.Image"), LazyModule("PIL.ImageDraw")

STAFF = (
    ("Ruth Achieng", Role.RECEPTIONIST),
    ("Peter Njoroge", Role.TECHNICIAN),
    ("Hassan Omar", Role.RECEPTIONIST),
    ("Amina Yusuf", Role.DOCTOR),
)


def create(actor: Actor) -> bool:
    """Create the rows, and return True. Return False in a clinic that has doctors or patients."""
    if db.session.scalar(select(Doctor.id).limit(1)) or db.session.scalar(select(Patient.id).limit(1)):
        return False
    _describe_clinic()
    receptionist, doctor_user_id = _create_staff(actor)
    patient, other_patient = _create_patients(actor)
    doctor_id = _create_doctors(actor, doctor_user_id)
    _create_appointments(actor, patient.id, doctor_id)
    item = items.create(
        actor,
        name="Sterile gloves, medium",
        sku="GLOVES-M",
        unit="pair",
        quantity=100,
        lot_number="L-2290",
        expires_on=clock.today() + timedelta(days=1000),
    )
    items.create(actor, name="Plaster bandage")
    _create_visits(actor, patient.id, doctor_id, item.id)
    _create_price_list()
    _create_bills(actor, receptionist, patient, other_patient)
    emergency_access.grant(receptionist, patient, reason="The patient fell in the waiting room")
    return True


def _describe_clinic() -> None:
    """Fill the clinic record, with a white cross as the logo."""
    clinic = clinic_record()
    record.update(
        clinic,
        name="Lakeside Demo Clinic",
        address="12 Harbour Road",
        phones=["+254 20 555 0100"],
        email="desk@clinic.example",
        invoice_footer="Thank you for your visit.",
    )
    picture = Image.new("RGB", (120, 120), "#0f766e")
    cross = ImageDraw.Draw(picture)
    cross.rectangle((48, 20, 72, 100), "white")
    cross.rectangle((20, 48, 100, 72), "white")
    file = BytesIO()
    picture.save(file, "PNG")
    logo.set_logo(clinic, file.getvalue())


def _create_staff(actor: Actor) -> tuple[Actor, int]:
    """Create four users; return the first one, as an actor, and the id of the last one, a doctor."""
    users: list[User] = []
    for name, role in STAFF:
        email = f"{name.replace(' ', '.').lower()}@demo.example"
        password = secrets.token_urlsafe(24)
        users.append(accounts.create_user(actor, name=name, email=email, password=password, role=role))
    return Actor(users[0].id, users[0].name, users[0].role), users[-1].id


def _create_patients(actor: Actor) -> tuple[Patient, Patient]:
    """Create a patient for most examples, one to archive, and one with a bill to void; return two of them."""
    patient = patients.register(
        actor,
        name="Zawadi Njeri",
        gender=Gender.FEMALE,
        date_of_birth=date(1984, 2, 29),
        phone="+254 722 000 111",
        insurance_provider="Acme Health",
        insurance_id="AH-104-22",
        language="sw",
    )
    forbid_messages(actor, patient)
    patients.register(actor, name="Baraka Mutua", gender=Gender.MALE, date_of_birth=date(1979, 11, 3))
    return patient, patients.register(actor, name="Imani Wekesa", date_of_birth=date(2015, 6, 20))


def forbid_messages(actor: Actor, patient: Patient) -> None:
    """Turn off the channels by phone: the number of a fictitious patient may belong to somebody."""
    preferences.update(actor, preferences.get(actor, patient.id), sms=False, whatsapp=False)


def _create_doctors(actor: Actor, user_id: int) -> int:
    """Create a doctor for most examples, one to deactivate, one for working hours; return the first id.

    The first one can sign in as the user: only a doctor issues letters.
    """
    names = ("Dr. Amina Yusuf", "Dr. Samuel Kariuki", "Dr. Lucia Marino")
    first, *_others = [
        doctors.create(actor, name=name, specialty="general practice", license_number=f"MD-1000{number}")
        for number, name in enumerate(names, start=1)
    ]
    doctors.update(actor, first, user_id=user_id)
    start = clock.now() + timedelta(days=90)
    feeds.create(actor, first, detail=CalendarDetail.BUSY, days_back=30, days_ahead=180)
    time_off.create(actor, first, start=start, end=start + timedelta(days=2), reason="Conference")
    return first.id


def _create_appointments(actor: Actor, patient_id: int, doctor_id: int) -> None:
    """Create appointments to change, to cancel, and of today to check in, and a message to cancel."""
    now = clock.now().replace(microsecond=0)
    first, *_others = [
        appointments.book(
            actor, patient_id=patient_id, doctor_id=doctor_id, date=start, duration=15, reason="Cough"
        )
        for start in (now + timedelta(days=30), now + timedelta(days=31), now + timedelta(seconds=30))
    ]
    reminded_at = first.start - timedelta(days=2)
    planning.plan(Plan(MessageKind.REMINDER, first.patient, "example", reminded_at, appointment=first))


def _create_visits(actor: Actor, patient_id: int, doctor_id: int, item_id: int) -> None:
    """Create a visit with orders, one to void, one to sign, and a signed one."""
    first, _to_void, _to_sign, signed = [
        visits.create(
            actor, patient_id=patient_id, doctor_id=doctor_id, chief_complaint="Cough", diagnoses=[]
        )
        for _number in range(4)
    ]
    visits.sign(actor, signed)
    _issue_letters(actor, first, signed)
    for name in ("Blood pressure profile", "Dressing"):
        treatments.add(
            actor,
            first,
            name=name,
            cost=Decimal("25.00"),
            status=TreatmentStatus.PLANNED,
            inventory_items=[{"item_id": item_id, "quantity": 1}],
        )
    for name in ("Metformin 500 mg", "Cetirizine 10 mg", "Paracetamol 500 mg", "Omeprazole 20 mg"):
        medication = {"name": name, "quantity": Decimal(30)}
        prescriptions.prescribe(actor, visit_id=first.id, medications=[medication])


def _issue_letters(actor: Actor, visit: Visit, signed_visit: Visit) -> None:
    """Issue a referral, and a sick note to void."""
    letters.issue(
        actor,
        visit,
        type=LetterType.REFERRAL,
        text="Please examine this patient for a cough that has lasted for six weeks.",
        from_date=None,
        to_date=None,
        recipient="Chest clinic, Lakeside County Hospital",
    )
    today = clock.today()
    letters.issue(
        actor,
        signed_visit,
        type=LetterType.SICK_NOTE,
        text=None,
        from_date=today,
        to_date=today + timedelta(days=2),
        recipient=None,
    )


def _create_bills(actor: Actor, receptionist: Actor, patient: Patient, other_patient: Patient) -> None:
    """Create a bill with a claim, a paid one, one to void, and the requests for two refunds."""
    first, paid = _create_bill(actor, patient, 500), _create_bill(actor, patient, 100)
    _create_bill(actor, other_patient, 40)
    claims.create(first, insurer="Acme Health", policy_number="AH-104-22", amount=Decimal(60))
    payments.pay(actor, paid, amount=Decimal(150), method=PaymentMethod.CASH, allow_credit=True)
    # another user than the admin must decide: the requests are those of a receptionist
    refunds.request_from_account(
        receptionist, patient, amount=Decimal(15), method=PaymentMethod.CASH, reason="Paid twice"
    )
    refunds.request(receptionist, paid, amount=Decimal(20), reason="Billed twice")


def _create_price_list() -> None:
    """Create an item of the price list to change, and one to deactivate."""
    for code, name, price in (("CONS-30", "Long consultation", 60), ("DRESS-01", "Wound dressing", 40)):
        price_list.create(code=code, name=name, category="services", unit_price=Decimal(price))


def _create_bill(actor: Actor, patient: Patient, amount: int) -> Billing:
    line: BillLine = {"description": "Consultation", "quantity": 1, "unit_price": Decimal(amount)}
    return bills.create(actor, patient_id=patient.id, items=[line])
