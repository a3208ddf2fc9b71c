"""The status graphs, gathered from the services that enforce them, for the documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from enums import RefundStatus
from services.billing import claims, payments
from services.clinical import prescriptions, treatments, visits
from services.scheduling import appointments

Status = TypeVar("Status", bound=str)


def _told(graph: Mapping[Status, Sequence[Status]]) -> dict[str, list[str]]:
    return {str(status): [str(step) for step in steps] for status, steps in graph.items()}


# status -> what it can become
STATUS_TRANSITIONS: dict[str, dict[str, list[str]]] = {
    "appointment": _told(appointments.TRANSITIONS),
    "visit": _told(visits.TRANSITIONS),
    "treatment": _told(treatments.TRANSITIONS),
    "prescription": _told(prescriptions.TRANSITIONS),
    "refund": _told(
        {
            status: [decided for decided in RefundStatus if decided not in payments.OPEN]
            if status in payments.OPEN
            else []
            for status in RefundStatus
        }
    ),
    "claim": _told(claims.TRANSITIONS),
}
