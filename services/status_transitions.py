"""The status transitions that the services enforce, collected for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from services.billing import claims, refunds
from services.clinical import prescriptions, treatments, visits
from services.scheduling import appointments

Status = TypeVar("Status", bound=str)


def _to_strings(transitions: Mapping[Status, Sequence[Status]]) -> dict[str, list[str]]:
    return {str(status): [str(target) for target in targets] for status, targets in transitions.items()}


# entity -> status -> allowed next statuses
STATUS_TRANSITIONS: dict[str, dict[str, list[str]]] = {
    "appointment": _to_strings(appointments.TRANSITIONS),
    "visit": _to_strings(visits.TRANSITIONS),
    "treatment": _to_strings(treatments.TRANSITIONS),
    "prescription": _to_strings(prescriptions.TRANSITIONS),
    "refund": _to_strings(refunds.TRANSITIONS),
    "claim": _to_strings(claims.TRANSITIONS),
}
