"""The safety gate: what a patient's record says against a medicine, before it is prescribed or handed out.

Three questions, answered offline by `services.clinical.drugs` on its versioned table: is the patient allergic
to it (substance, class, cross-reactivity), does the patient already take the same ingredient, does the
patient already take another member of a class of which nobody needs two.
What a patient takes are the medications
of prescriptions in force and the home medications of the history. A prescription stays in force until it is
completed, cancelled or past `expires_on`: days of supply are no reason to stop asking, since nobody knows
when a course was begun.

What the table does not know is told as a warning with the code `unchecked`, never passed silently.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select

from enums import AllergySeverity, PrescriptionStatus
from errors import ClinicError
from extensions import db
from models import Allergy, HomeMedication, MedicalHistory, PrescribedMedication, Prescription
from security.permissions import Actor, Permission
from services import clock
from services.clinical import drugs
from services.clinical.drugs import Drug
from services.search_key import search_key

Alert = dict[str, Any]  # {code, medication, with, prescription_id, message}
Warning_ = dict[str, str]  # {medication, code, message}

CODE_OF_HIT = {
    "ingredient": "allergy_ingredient",
    "class": "allergy_class",
    "cross_reactivity": "cross_reactivity",
}

# The same names come again and again; the table never changes while the process lives.
_drug = lru_cache(maxsize=4096)(drugs.resolve)
_allergen = lru_cache(maxsize=4096)(drugs.resolve_allergen)


@dataclass(frozen=True, slots=True)
class Taken:
    """A medicine that a patient takes, and where that is written."""

    name: str
    where: str
    prescription_id: int | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """An allergy as it stands in the history."""

    substance: str
    reaction: str | None
    severity: AllergySeverity

    def __str__(self) -> str:
        told = [] if self.severity is AllergySeverity.UNKNOWN else [self.severity.value]
        told += [self.reaction] if self.reaction else []
        return f"{self.substance} ({', '.join(told)})" if told else self.substance


@dataclass(slots=True)
class Chart:
    """What of one patient's record the gate looks at."""

    patient_id: int
    allergies: list[Recorded] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)

    def besides(self, prescription_id: int | None) -> list[Taken]:
        """What is taken beside one prescription's own medications."""
        return [
            one for one in self.taken if one.prescription_id is None or one.prescription_id != prescription_id
        ]


def in_force() -> ColumnElement[bool]:
    """Prescriptions that are active and not past the day through which they are valid."""
    return and_(
        Prescription.status == PrescriptionStatus.ACTIVE,
        or_(Prescription.expires_on.is_(None), Prescription.expires_on >= clock.today()),
    )


def charts(patient_ids: Collection[int]) -> dict[int, Chart]:
    """The charts of the patients named; three queries for any number."""
    found = {patient_id: Chart(patient_id) for patient_id in patient_ids}
    allergies = (
        select(MedicalHistory.patient_id, Allergy.substance, Allergy.reaction, Allergy.severity)
        .join(Allergy, Allergy.medical_history_id == MedicalHistory.id)
        .where(MedicalHistory.patient_id.in_(found))
        .order_by(Allergy.id)
    )
    for patient_id, substance, reaction, severity in db.session.execute(allergies):
        found[patient_id].allergies.append(Recorded(substance, reaction, severity))
    prescribed = (
        select(Prescription.patient_id, Prescription.id, PrescribedMedication.name)
        .join(PrescribedMedication, PrescribedMedication.prescription_id == Prescription.id)
        .where(Prescription.patient_id.in_(found), in_force())
        .order_by(PrescribedMedication.id)
    )
    for patient_id, number, name in db.session.execute(prescribed):
        found[patient_id].taken.append(Taken(name, f"prescription {number}", number))
    at_home = (
        select(MedicalHistory.patient_id, HomeMedication.name)
        .join(HomeMedication, HomeMedication.medical_history_id == MedicalHistory.id)
        .where(MedicalHistory.patient_id.in_(found))
        .order_by(HomeMedication.id)
    )
    for patient_id, name in db.session.execute(at_home):
        found[patient_id].taken.append(Taken(name, "home medication"))
    return found


# --- What speaks against it ----------------------------------------------------------------------------


def alerts(names: Sequence[str], chart: Chart, prescription_id: int | None = None) -> list[Alert]:
    """Everything known that speaks against the medications of one prescription.

    `prescription_id` is the prescription's own id where it is stored already: it is no duplicate of itself.
    """
    found: list[Alert] = []
    others = chart.besides(prescription_id)
    before: list[Taken] = []
    for name in names:
        drug = _drug(name)
        if drug is not None:
            for allergy in chart.allergies:
                found += _allergy_alerts(name, drug, allergy)
            for other in (*before, *others):
                found += _duplicate_alerts(name, drug, other)
        before.append(Taken(name, "this prescription"))
    return found


def _alert(
    code: str, medication: str, against: str, message: str, prescription_id: int | None = None
) -> Alert:
    return {
        "code": code,
        "medication": medication,
        "with": against,
        "prescription_id": prescription_id,
        "message": message,
    }


def _allergy_alerts(name: str, drug: Drug, allergy: Recorded) -> list[Alert]:
    allergen = _allergen(allergy.substance)
    if allergen is None:
        return []
    reasons: dict[str, list[str]] = {}
    for hit in drugs.allergy_hits(drug, allergen):
        told = hit.ingredient if hit.kind == "ingredient" else f"{hit.ingredient} ({hit.name})"
        reasons.setdefault(CODE_OF_HIT[hit.kind], []).append(told)
    return [
        _alert(
            code,
            name,
            allergy.substance,
            f"{name} contains {', '.join(told)}; the patient's recorded allergy: {allergy}.",
        )
        for code, told in reasons.items()
    ]


def _duplicate_alerts(name: str, drug: Drug, other: Taken) -> list[Alert]:
    taken = _drug(other.name)
    if taken is None:
        return []
    found = []
    pair = f"{name} and {other.name} ({other.where})"
    ingredients = drugs.duplicate_ingredient(drug, taken)
    if ingredients:
        message = f"{pair} both contain {', '.join(sorted(ingredients))}."
        found.append(_alert("duplicate_ingredient", name, other.name, message, other.prescription_id))
    classes = drugs.duplicate_class(drug, taken)
    if classes:
        message = f"{pair} are both of the class {', '.join(sorted(classes))}."
        found.append(_alert("duplicate_class", name, other.name, message, other.prescription_id))
    return found


# --- What nobody could check ---------------------------------------------------------------------------


def unchecked(names: Sequence[str], chart: Chart, prescription_id: int | None = None) -> list[Warning_]:
    """What of a prescription, or of the record beside it, the table does not know: at most two warnings a
    medication, one for itself and one for what it could not be compared with."""
    found = []
    unknown = [f"allergy {one.substance}" for one in chart.allergies if _allergy_unknown(one.substance)]
    unknown += [
        f"{one.where}: {one.name}" for one in chart.besides(prescription_id) if _drug_unknown(one.name)
    ]
    for name in names:
        drug = _drug(name)
        if drug is None:
            problem = "is not known: it was not checked against allergies and other medications."
            found.append(_warning(name, f"{name} {problem}"))
            continue
        if drug.unknown_parts:
            words = ", ".join(drug.unknown_parts)
            found.append(_warning(name, f"In {name} this is not known and was not checked: {words}."))
        if unknown:
            found.append(
                _warning(name, f"{name} was not checked against what is not known: {'; '.join(unknown)}.")
            )
    return found


def unchecked_text() -> list[Warning_]:
    """The warning of a prescription that is free text alone."""
    return [
        _warning(
            "details",
            "Free text is not checked against allergies and other medications; name the medications to have "
            "them checked.",
        )
    ]


def _warning(medication: str, message: str) -> Warning_:
    return {"medication": medication, "code": "unchecked", "message": message}


def _allergy_unknown(substance: str) -> bool:
    allergen = _allergen(substance)
    return allergen is None or bool(allergen.unknown_parts)


def _drug_unknown(name: str) -> bool:
    drug = _drug(name)
    return drug is None or bool(drug.unknown_parts)


# --- Passing the gate ----------------------------------------------------------------------------------


def check(
    actor: Actor,
    chart: Chart,
    names: Sequence[str],
    reason: str | None,
    *,
    prescription_id: int | None = None,
    passed: Iterable[Mapping[str, Any]] = (),
    concerning: Collection[str] | None = None,
) -> list[Alert]:
    """The alerts that `reason` passes now, each with who overrode it, when and why.

    All medications of a prescription are compared, in their order, so that a pair is known again;
    `concerning` names those that are asked about, where that is not all. The alerts in `passed` were
    overridden before and do not stop again. Raises 409 `safety_alert` with the new `alerts` where there is
    no reason (a blank one is none), 403 for a reason of somebody who may not prescribe.
    """
    known = {_identity(alert) for alert in passed}
    new = [
        alert
        for alert in alerts(names, chart, prescription_id)
        if _identity(alert) not in known and (concerning is None or alert["medication"] in concerning)
    ]
    if not new:
        return []
    if not (reason or "").strip():
        told = " ".join(alert["message"] for alert in new[:5])
        raise ClinicError(
            "safety_alert", f"{told} A doctor who means it anyway gives a new override_reason.", alerts=new
        ).about("prescription", prescription_id, chart.patient_id)
    actor.require(Permission.PRESCRIPTIONS_WRITE, "Only a doctor passes a safety alert.")
    stamp = {
        "reason": reason,
        "overridden_by": actor.name,
        "overridden_at": clock.now().isoformat(),
    }
    return [alert | stamp for alert in new]


def _identity(alert: Mapping[str, Any]) -> tuple[str, str, str, int | None]:
    """Which hit it is: the same finding about the same two things, however it is worded."""
    return alert["code"], search_key(alert["medication"]), search_key(alert["with"]), alert["prescription_id"]
