"""`flask demo grow`: a clinic of any size comes in past the rules, and obeys them all the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select

from commands import demo_data
from commands.demo_data import COLUMNS, Ground, Population
from enums import AppointmentStatus, LedgerKind
from models import Appointment, AuditLog, Billing, InventoryItem, LedgerEntry, Patient, Visit
from services.patients import phones
from services.search_key import search_key
from tests.commands.test_demo import run
from tests.conftest import ENGINES, NewDatabase, settings_for
from tests.support.clinic import Clinic

PATIENTS = 130


@pytest.fixture(scope="module", params=ENGINES)
def grown(request: pytest.FixtureRequest, new_database: NewDatabase) -> Iterator[Clinic]:
    """A clinic of each engine, grown in several batches."""
    clinic = Clinic(settings_for(new_database(request.param)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_data, "BATCH", 40)
        run(clinic, "demo", "grow", "--patients", str(PATIENTS))
    yield clinic
    clinic.close()


def people(seed: int) -> list[str]:
    """The names of a population's first patients."""
    ids = range(1, 21)
    heads = dict.fromkeys(range(16), (0, ""))
    ground = Ground(dict.fromkeys(COLUMNS, 0), heads, {}, list(ids), list(ids), list(ids))
    made = Population(ground, 50, seed, datetime(2027, 3, 1, tzinfo=UTC))
    return [str(row[2]) for batch in made.batches() for row in batch.rows[Patient]]


def test_a_grown_clinic_obeys_every_rule_and_its_audit_is_whole(grown: Clinic) -> None:
    assert run(grown, "verify") == ""
    run(grown, "audit", "verify")


def test_everybody_comes_five_times_and_what_is_done_is_documented_and_billed(grown: Clinic) -> None:
    with grown.inside() as session:
        counts = session.execute(
            select(Appointment.status, func.count())
            .where(Appointment.patient_id <= PATIENTS)
            .group_by(Appointment.status)
        )
        appointments = dict(counts.tuples().all())
        visits = session.scalar(select(func.count()).where(Visit.patient_id <= PATIENTS))
        billed = session.scalar(select(func.count()).where(Billing.patient_id <= PATIENTS))
        told = session.scalar(select(func.count()).where(AuditLog.operation == demo_data.OPERATION))
        stock = session.scalars(select(InventoryItem.quantity)).all()

    assert sum(appointments.values()) == 5 * PATIENTS
    assert set(appointments) == set(AppointmentStatus)
    assert visits == billed == appointments[AppointmentStatus.COMPLETED]
    # and the doctors, items and lots with which it began
    assert told == PATIENTS + sum(appointments.values()) + visits + billed + 40
    assert min(stock) > 0


def test_bills_are_paid_in_several_ways_and_some_are_owed(grown: Clinic) -> None:
    with grown.inside() as session:
        methods = set(session.scalars(select(LedgerEntry.method).distinct()))
        kinds = set(session.scalars(select(LedgerEntry.kind).distinct()))
        owed = session.scalar(select(func.sum(LedgerEntry.amount)))

    assert len(methods - {None}) > 2
    assert kinds == {LedgerKind.CHARGE, LedgerKind.PAYMENT, LedgerKind.INSURANCE_PAYMENT}
    assert owed is not None
    assert owed > 0


def test_names_and_numbers_are_found_as_those_that_were_typed_in(grown: Clinic) -> None:
    with grown.inside() as session:
        everybody = session.scalars(select(Patient).where(Patient.id <= PATIENTS)).all()
        for patient in everybody:
            assert patient.name_fold == search_key(patient.name)
            assert patient.phone_e164 == phones.e164(patient.phone)
            assert patient.phone_digits == phones.searchable(patient.phone, patient.phone_e164)


def test_work_goes_on_in_a_grown_clinic(grown: Clinic) -> None:
    patient = grown.patient()
    grown.appointment(patient_id=patient["id"])
    bill = grown.bill(patient_id=patient["id"])
    year = int(bill["invoice_number"].split("-")[1])

    with grown.inside() as session:
        numbers = select(func.count()).where(Billing.invoice_number.startswith(f"INV-{year}-"))
        assert int(bill["invoice_number"].split("-")[2]) == session.scalar(numbers)
    assert run(grown, "verify") == ""
    run(grown, "audit", "verify")


def test_a_clinic_with_patients_is_not_grown(grown: Clinic) -> None:
    result = grown.app.test_cli_runner().invoke(args=["demo", "grow", "--patients", "10"])

    assert result.exit_code == 1
    assert "There are patients already" in result.output


def test_the_seed_names_the_people() -> None:
    assert people(1) == people(1)
    assert len(set(people(1))) > 40
    assert people(1) != people(2)
