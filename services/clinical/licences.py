"""The licence of the doctor whose name a new prescription or letter shows."""

from __future__ import annotations

from errors import ClinicError
from models import Doctor
from services import clock


def require_licensed(doctor: Doctor) -> None:
    """Raise 409 `conflict` for an inactive doctor, or a licence that has ended. Its last day is included."""
    if not doctor.is_active:
        message = "The doctor is inactive. An administrator must activate the doctor first if this is wrong."
        raise ClinicError("conflict", message)
    expires = doctor.license_expires_on
    if expires is not None and expires < clock.today():
        message = (
            f"The licence of the doctor ended on {expires}. An administrator must enter its new last day."
        )
        raise ClinicError("conflict", message)
