"""The last day of a therapy with one medication.

A prescription has several medications. Each has its own supply and its own last day:

- Before the first dispensing, the supply lasts `duration_days` from the day of issue.
- A dispensing of x adds x / quantity x `duration_days`. Without a quantity it adds `duration_days`.
- The days of a dispensing begin at its day or at the end of the earlier supply, whichever is later. So an
  early refill adds to the supply, and a late refill leaves a gap.
- The therapy goes on until its supply ends, and at least until `expires_on`.
- Without `duration_days` and `expires_on` it has no last day: it goes on until it is stopped or cancelled.

Days are those of the clinic. Fractions of days are added exactly and rounded up at the end. The last day is
included: a supply of 7 days from the 1st lasts through the 8th, because the first dose may be in the evening.
A prescription that is stopped or cancelled has no current therapy, whatever its days.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction
from math import ceil

from models import PrescribedMedication, Prescription
from services import clock

LAST_DAY = date.max.toordinal()


def last_day(
    issued_on: date,
    *,
    expires_on: date | None,
    duration_days: int | None,
    quantity: Decimal | None,
    dispensings: Sequence[tuple[date, Decimal]] = (),
) -> date | None:
    """Return the last day of a therapy, or None if it goes on until it is stopped.

    `dispensings` are the day and the quantity of each dispensing, in order of time.
    """
    if duration_days is None:
        return expires_on
    end = Fraction(issued_on.toordinal() + duration_days)
    for number, (day, dispensed) in enumerate(dispensings):
        begin = Fraction(day.toordinal())
        if number:
            begin = max(begin, end)
        courses = Fraction(1) if quantity is None else Fraction(dispensed) / Fraction(quantity)
        end = begin + courses * duration_days
    supply_ends_on = date.fromordinal(min(ceil(end), LAST_DAY))
    return supply_ends_on if expires_on is None else max(supply_ends_on, expires_on)


def set_last_days(row: Prescription) -> None:
    """Set the last day of each medication of a prescription, after a change of its content or supply."""
    for medication in row.medications:
        medication.ends_on = last_day(
            clock.local(row.issued_at).date(),
            expires_on=row.expires_on,
            duration_days=medication.duration_days,
            quantity=medication.quantity,
            dispensings=_dispensings(row, medication),
        )


def _dispensings(row: Prescription, medication: PrescribedMedication) -> list[tuple[date, Decimal]]:
    return [
        (clock.local(dispensing.created_at).date(), dispensing.quantity)
        for dispensing in row.dispensings
        if dispensing.medication is medication
    ]


def is_over(medication: PrescribedMedication, today: date) -> bool:
    """Return True if the last day of the therapy is in the past."""
    return medication.ends_on is not None and medication.ends_on < today
