"""`flask demo grow`: the generated data obeys every rule."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select

from commands import demo_data
from commands.demo_data import COLUMNS, DemoGenerator, InitialState
from enums import AppointmentStatus, LedgerKind
from models import Appointment, AuditLog, Billing, InventoryItem, LedgerEntry, Patient, Visit
from services.patients import phones
from services.search_key import search_key
from tests.commands.test_demo import run
from tests.conftest import ENGINES, NewDatabase, settings_for
from tests.support.clinic import Clinic

PATIENTS = 130


@pytest.fixture(scope="module", params=ENGINES)
def generated(request: pytest.FixtureRequest, new_database: NewDatabase) -> Iterator[Clinic]:
    """Yield a clinic of each engine with generated data of several batches."""
    clinic = Clinic(settings_for(new_database(request.param)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_data, "BATCH_SIZE", 40)
        run(clinic, "demo", "grow", "--patients", str(PATIENTS))
    yield clinic
    clinic.close()


def patient_names(seed: int) -> list[str]:
    """Return the names of the first 50 patients of a seed."""
    ids = range(1, 21)
    heads = dict.fromkeys(range(16), (0, ""))
    initial = InitialState(dict.fromkeys(COLUMNS, 0), heads, {}, list(ids), list(ids), list(ids), 1)
    generator = DemoGenerator(initial, 50, seed, datetime(2027, 3, 1, tzinfo=UTC))
    return [str(row[3]) for batch in generator.batches() for row in batch.rows[Patient]]


def test_generated_data_passes_both_verify_commands(generated: Clinic) -> None:
    assert run(generated, "verify") == ""
    run(generated, "audit", "verify")


def test_every_patient_has_five_appointments_and_completed_ones_have_a_visit_and_a_bill(
    generated: Clinic,
) -> None:
    with generated.inside() as session:
        counts = session.execute(
            select(Appointment.status, func.count())
            .where(Appointment.patient_id <= PATIENTS)
            .group_by(Appointment.status)
        )
        appointments = dict(counts.tuples().all())
        visits = session.scalar(select(func.count()).where(Visit.patient_id <= PATIENTS))
        bills = session.scalar(select(func.count()).where(Billing.patient_id <= PATIENTS))
        audit_entries = session.scalar(select(func.count()).where(AuditLog.operation == demo_data.OPERATION))
        stock = session.scalars(select(InventoryItem.quantity)).all()

    assert sum(appointments.values()) == 5 * PATIENTS
    assert set(appointments) == set(AppointmentStatus)
    assert visits == bills == appointments[AppointmentStatus.COMPLETED]
    # 40: 20 doctors and 20 stock items
    assert audit_entries == PATIENTS + sum(appointments.values()) + visits + bills + 40
    assert min(stock) > 0


def test_bills_are_paid_by_several_methods_and_some_are_unpaid(generated: Clinic) -> None:
    with generated.inside() as session:
        methods = set(session.scalars(select(LedgerEntry.method).distinct()))
        kinds = set(session.scalars(select(LedgerEntry.kind).distinct()))
        balance = session.scalar(select(func.sum(LedgerEntry.amount)))

    assert len(methods - {None}) > 2
    assert kinds == {LedgerKind.CHARGE, LedgerKind.PAYMENT, LedgerKind.INSURANCE_PAYMENT}
    assert balance is not None
    assert balance > 0


def test_search_columns_equal_those_of_registered_patients(generated: Clinic) -> None:
    with generated.inside() as session:
        patients = session.scalars(select(Patient).where(Patient.id <= PATIENTS)).all()
        for patient in patients:
            assert patient.name_fold == search_key(patient.name)
            assert patient.phone_e164 == phones.e164(patient.phone)
            assert patient.phone_digits == phones.searchable(patient.phone, patient.phone_e164)


def test_new_rows_continue_the_generated_ids_and_numbers(generated: Clinic) -> None:
    patient = generated.patient()
    generated.appointment(patient_id=patient["id"])
    bill = generated.bill(patient_id=patient["id"])
    year = int(bill["invoice_number"].split("-")[1])

    with generated.inside() as session:
        numbers = select(func.count()).where(Billing.invoice_number.startswith(f"INV-{year}-"))
        assert int(bill["invoice_number"].split("-")[2]) == session.scalar(numbers)
    assert run(generated, "verify") == ""
    run(generated, "audit", "verify")


def test_a_database_with_patients_is_refused(generated: Clinic) -> None:
    result = generated.app.test_cli_runner().invoke(args=["demo", "grow", "--patients", "10"])

    assert result.exit_code == 1
    assert "The database has patients" in result.output


def test_the_seed_determines_the_patients() -> None:
    assert patient_names(1) == patient_names(1)
    assert len(set(patient_names(1))) > 40
    assert patient_names(1) != patient_names(2)
