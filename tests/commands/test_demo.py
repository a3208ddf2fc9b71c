"""`flask demo load`: the services load the synthetic clinic, and every rule holds afterwards."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from decimal import Decimal

import pytest
from sqlalchemy import func, select

from commands import demo
from enums import LedgerKind, MessageChannel, MessageReason
from models import Appointment, LedgerEntry, Patient, Visit
from services.messages import contacts
from tests.conftest import ENGINES, NewDatabase, settings_for
from tests.support.clinic import Clinic

PATIENTS = 8
IS_SYNTHETIC = Patient.file_number.like("DEMO-%")  # the other rows are those of the documented examples


def run(clinic: Clinic, *arguments: str) -> str:
    """Run a command that must succeed. Return its output."""
    result = clinic.app.test_cli_runner().invoke(args=list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module", params=ENGINES)
def loaded(request: pytest.FixtureRequest, new_database: NewDatabase) -> Iterator[tuple[Clinic, str]]:
    """Yield a clinic of each engine with some synthetic patients, and the output of the command."""
    clinic = Clinic(settings_for(new_database(request.param)))
    yield clinic, run(clinic, "demo", "load", "--patients", str(PATIENTS))
    clinic.close()


def test_the_synthetic_clinic_is_loaded_through_the_rules(loaded: tuple[Clinic, str]) -> None:
    clinic, output = loaded
    expected = {demo.file_number(row) for row in demo.read_rows("patients")[:PATIENTS]}

    assert "encounters" in output
    assert "refused" in output
    with clinic.inside() as session:
        # another test loads one patient more
        assert expected <= set(session.scalars(select(Patient.file_number).where(IS_SYNTHETIC)))
        visits = session.scalar(select(func.count()).select_from(Visit).join(Patient).where(IS_SYNTHETIC))
        booked = select(func.count()).select_from(Appointment).join(Patient).where(IS_SYNTHETIC)
        assert visits == session.scalar(booked)
    assert visits > PATIENTS
    assert run(clinic, "verify") == ""
    run(clinic, "audit", "verify")


def test_revenue_by_month_is_the_sum_of_the_ledger(loaded: tuple[Clinic, str]) -> None:
    clinic, _output = loaded

    response = clinic.admin.get("/analytics/revenue?start_date=2010-01-01&end_date=2030-12-31&group_by=month")

    with clinic.inside() as session:
        received = session.scalar(
            select(func.sum(LedgerEntry.amount)).where(
                LedgerEntry.kind.in_((LedgerKind.PAYMENT, LedgerKind.INSURANCE_PAYMENT)),
                LedgerEntry.occurred_at >= demo.parse_instant("2010-01-01T00:00:00"),
            )
        )
    months = response.get_json()["data"]
    assert received is not None
    assert sum(Decimal(month["collected"]) for month in months) == -received
    assert len([month for month in months if Decimal(month["billed"])]) >= 2


def test_a_second_load_changes_nothing(loaded: tuple[Clinic, str]) -> None:
    clinic, _output = loaded
    with clinic.inside() as session:
        before = session.scalar(select(func.count()).select_from(Visit))

    run(clinic, "demo", "load", "--patients", str(PATIENTS))

    with clinic.inside() as session:
        assert session.scalar(select(func.count()).select_from(Visit)) == before


def test_deaths_are_recorded_after_the_encounters(loaded: tuple[Clinic, str]) -> None:
    clinic, _output = loaded
    row = next(row for row in demo.read_rows("patients") if row["death"])

    with clinic.inside() as session:
        loader = demo.Loader()
        loader.load_doctors()
        for _ in loader.load_patient(row):
            pass
        loader.record_deaths()
        died = select(Patient.deceased_on).where(Patient.file_number == demo.file_number(row))
        assert str(session.scalar(died)) == row["death"][:10]
        assert loader.counts.loaded["encounters"] > 0

    assert run(clinic, "verify") == ""


def test_the_synthetic_data_is_complete_and_has_its_licence() -> None:
    assert len(demo.read_rows("patients")) == 615
    assert "Apache License" in (demo.FOLDER / "LICENSE").read_text(encoding="utf-8")
    with gzip.open(demo.FOLDER / "encounters.csv.gz", "rt", encoding="utf-8") as file:
        assert sum(1 for _ in file) == 18_099


def test_no_message_reaches_the_phone_of_a_fictitious_patient(loaded: tuple[Clinic, str]) -> None:
    """Their numbers look real: a demo clinic may have a real gateway."""
    clinic, _output = loaded
    with clinic.inside() as session:
        patients = session.scalars(select(Patient).where(Patient.phone.is_not(None))).all()
        phones = [MessageChannel.SMS, MessageChannel.WHATSAPP]
        reasons = {contacts.refusal_of(patient, channel) for patient in patients for channel in phones}
        emails = session.scalars(select(Patient.email).where(Patient.email.is_not(None))).all()

    assert len(patients) > PATIENTS // 2
    assert reasons <= {MessageReason.NOT_ALLOWED, MessageReason.NO_ADDRESS}
    assert [email for email in emails if not email.endswith(".example")] == []
