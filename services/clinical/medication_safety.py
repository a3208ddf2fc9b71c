"""Medication safety check: allergies, duplicate therapy and severe interactions.

It runs at prescribing and at dispensing, on versioned tables and without network access.
`services.clinical.drugs` and `services.clinical.interactions` answer four questions:

- Is the patient allergic to the medication (substance, class, cross-reactivity)?
- Does the patient already take the same ingredient?
- Does the patient already take another member of a class where two members are duplicate therapy?
- Does the patient already take a medication with a severe interaction?

A patient takes the medications of current therapies and the home medications of the medical history.
`services.clinical.therapy` defines the last day of a therapy. A dispensed medication stays in the check while
its supply lasts.

Free text is not checked. A medicine in it gives the warning `unchecked`, now and at later prescriptions.
Medications and allergies that are not in the table give a warning with the code `unchecked`. A name with one
typing error is checked as the name that it resembles. It gives a warning with the code `understood_as`. If it
resembles a trade name, it also gives `unchecked`, because it may be another trade name. A patient without
recorded allergies gives `allergies_not_asked`.

The work of one check is bounded. A medication is compared with the home medications and the newest current
therapies, `MAX_CURRENT` together. The number of older ones is part of the warning `unchecked`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from textwrap import shorten
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select

from column_types import is_blank_text
from enums import AllergySeverity, PrescriptionStatus
from errors import ClinicError
from extensions import db
from models import Allergy, HomeMedication, MedicalHistory, PrescribedMedication, Prescription
from security.permissions import Actor, Permission
from services import clock
from services.clinical import drug_spelling, drugs, interactions
from services.clinical.drug_spelling import Recognized
from services.clinical.drugs import Allergen, Drug
from services.search_key import search_key

# {code, medication, with, prescription_id, message}; an interaction also has {severity, source}, and an
# allergy has {allergy}: the substance with severity and reaction
Alert = dict[str, Any]
_AlertKey = tuple[str, str, str, int | None]
SafetyWarning = dict[str, str]  # {code, message}, and `medication` if it is about one

MAX_CURRENT = 500  # far more than a patient takes; therapies without an end add up over years
MAX_NAMED = 50  # unknown entries of the record that a warning names; it counts the others

ALERT_CODES = {
    "ingredient": "allergy_ingredient",
    "class": "allergy_class",
    "cross_reactivity": "cross_reactivity",
}

FREE_TEXT_WARNING: SafetyWarning = {
    "code": "unchecked",
    "message": "Free text is not checked against allergies and other medications. "
    "Enter the medications by name to check them.",
}
NOT_ASKED_WARNING: SafetyWarning = {
    "code": "allergies_not_asked",
    "message": "No allergies are recorded. Ask the patient, and record the allergies or that there are none.",
}

# The same names occur often, and the table does not change while the process runs.
_recognize_drug = lru_cache(maxsize=4096)(drug_spelling.recognize_drug)
_recognize_allergen = lru_cache(maxsize=4096)(drug_spelling.recognize_allergen)
_find_medicines = lru_cache(maxsize=1024)(drugs.find_medicines)


@dataclass(frozen=True, slots=True)
class CurrentMedication:
    """A medication that a patient takes, and the source of this information."""

    name: str
    source: str
    prescription_id: int | None = None


@dataclass(frozen=True, slots=True)
class RecordedAllergy:
    """An allergy of the medical history."""

    substance: str
    reaction: str | None
    severity: AllergySeverity

    def __str__(self) -> str:
        details = [] if self.severity is AllergySeverity.UNKNOWN else [self.severity.value]
        details += [self.reaction] if self.reaction else []
        return f"{self.substance} ({', '.join(details)})" if details else self.substance


@dataclass(slots=True)
class MedicationRecord:
    """The allergies and current medications of one patient."""

    patient_id: int
    allergies: list[RecordedAllergy] = field(default_factory=list)
    medications: list[CurrentMedication] = field(default_factory=list)
    free_texts: list[CurrentMedication] = field(default_factory=list)  # prescriptions without medications
    no_known_allergies: bool = False

    @property
    def allergies_asked(self) -> bool:
        """Return True if the medical history says which allergies the patient has."""
        return self.no_known_allergies or bool(self.allergies)

    def medications_except(self, prescription_id: int | None) -> tuple[list[CurrentMedication], int]:
        """Return the current medications without those of one prescription, and how many are left out.

        Each name of a prescription is returned once.
        """
        others = [
            medication
            for medication in dict.fromkeys(self.medications)
            if medication.prescription_id is None or medication.prescription_id != prescription_id
        ]
        return others[-MAX_CURRENT:], max(0, len(others) - MAX_CURRENT)


def is_current_therapy() -> ColumnElement[bool]:
    """Return the condition for the medications of current therapies. `ends_on` is the last day."""
    return and_(
        Prescription.status != PrescriptionStatus.CANCELLED,
        Prescription.stopped_at.is_(None),
        or_(PrescribedMedication.ends_on.is_(None), PrescribedMedication.ends_on >= clock.today()),
    )


def _is_valid_today() -> ColumnElement[bool]:
    return or_(Prescription.expires_on.is_(None), Prescription.expires_on >= clock.today())


def load_records(patient_ids: Collection[int]) -> dict[int, MedicationRecord]:
    """Return the medication records of the patients by id; three queries for any number of patients."""
    records = {patient_id: MedicationRecord(patient_id) for patient_id in patient_ids}
    allergies = (
        select(
            MedicalHistory.patient_id,
            MedicalHistory.no_known_allergies_at,
            Allergy.substance,
            Allergy.reaction,
            Allergy.severity,
        )
        .outerjoin(Allergy, Allergy.medical_history_id == MedicalHistory.id)
        .where(MedicalHistory.patient_id.in_(records))
        .order_by(Allergy.id)
    )
    for patient_id, none_known_at, substance, reaction, severity in db.session.execute(allergies):
        if substance is not None:
            records[patient_id].allergies.append(RecordedAllergy(substance, reaction, severity))
        records[patient_id].no_known_allergies = none_known_at is not None
    prescribed = (
        select(Prescription.patient_id, Prescription.id, PrescribedMedication.name, Prescription.details)
        .outerjoin(PrescribedMedication, PrescribedMedication.prescription_id == Prescription.id)
        .where(
            Prescription.patient_id.in_(records),
            is_current_therapy(),
            or_(PrescribedMedication.id.is_not(None), _is_valid_today()),
        )
        .order_by(PrescribedMedication.id, Prescription.id)
    )
    for patient_id, number, name, details in db.session.execute(prescribed):
        record, source = records[patient_id], f"prescription {number}"
        if name is not None:
            record.medications.append(CurrentMedication(name, source, number))
        elif _find_medicines(details or ""):
            record.free_texts.append(CurrentMedication(shorten(details, 100), source, number))
    at_home = (
        select(MedicalHistory.patient_id, HomeMedication.name)
        .join(HomeMedication, HomeMedication.medical_history_id == MedicalHistory.id)
        .where(MedicalHistory.patient_id.in_(records))
        .order_by(HomeMedication.id)
    )
    for patient_id, name in db.session.execute(at_home):
        records[patient_id].medications.append(CurrentMedication(name, "home medication"))
    return records


# --- Alerts --------------------------------------------------------------------------------------------


def find_alerts(
    names: Sequence[str], record: MedicationRecord, prescription_id: int | None = None
) -> list[Alert]:
    """Return the alerts for the medications of one prescription.

    `prescription_id` is the id of that prescription if it is stored: it is not a duplicate of itself.
    """
    alerts: list[Alert] = []
    current, _ = record.medications_except(prescription_id)
    previous: list[CurrentMedication] = []
    for name, count in Counter(names).items():
        own = CurrentMedication(name, "this prescription")
        others = [*previous, *[own] * (count > 1), *current]
        previous.append(own)
        drug = _recognize_drug(name).match
        if drug is not None:
            for allergy in record.allergies:
                alerts += _allergy_alerts(name, drug, allergy)
            if not drugs.is_product(drug):
                alerts += _alerts_within(name, drug)
            for other in others:
                alerts += _duplicate_alerts(name, drug, other)
                alerts += _interaction_alerts(name, drug, other)
    return alerts


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


def _allergy_alerts(name: str, drug: Drug, allergy: RecordedAllergy) -> list[Alert]:
    allergen = _recognize_allergen(allergy.substance).match
    if allergen is None:
        return []
    reasons: dict[str, list[str]] = {}
    for match in drugs.match_allergy(drug, allergen):
        reason = match.ingredient if match.kind == "ingredient" else f"{match.ingredient} ({match.name})"
        reasons.setdefault(ALERT_CODES[match.kind], []).append(reason)
    alerts = []
    for code, of_code in reasons.items():
        message = f"{name} contains {', '.join(of_code)}; the patient's recorded allergy: {allergy}."
        alerts.append(_alert(code, name, allergy.substance, message) | {"allergy": str(allergy)})
    return alerts


def _duplicate_alerts(name: str, drug: Drug, other: CurrentMedication) -> list[Alert]:
    other_drug = _recognize_drug(other.name).match
    if other_drug is None:
        return []
    alerts = []
    pair = f"{name} and {other.name} ({other.source})"
    ingredients = drugs.duplicate_ingredients(drug, other_drug)
    if ingredients:
        message = f"{pair} both contain {', '.join(sorted(ingredients))}."
        alerts.append(_alert("duplicate_ingredient", name, other.name, message, other.prescription_id))
    classes = drugs.duplicate_classes(drug, other_drug)
    if classes:
        message = f"{pair} are both of the class {', '.join(sorted(classes))}."
        alerts.append(_alert("duplicate_class", name, other.name, message, other.prescription_id))
    return alerts


def _alerts_within(name: str, drug: Drug) -> list[Alert]:
    """Return the alerts about several medicines in one name: "warfarin and aspirin"."""
    alerts = []
    if classes := drugs.duplicate_classes_within(drug):
        message = f"{name} contains several medicines of the class {', '.join(sorted(classes))}."
        alerts.append(_alert("duplicate_class", name, name, message))
    matches = interactions.find_interactions(name, drug, name, drug)
    once = [match for match in matches if match.ingredient < match.other_ingredient]
    return alerts + _interaction_alert(name, name, f"{name} contains medicines that interact.", once, None)


def _interaction_alerts(name: str, drug: Drug, other: CurrentMedication) -> list[Alert]:
    other_drug = _recognize_drug(other.name).match
    if other_drug is None:
        return []
    matches = interactions.find_interactions(name, drug, other.name, other_drug)
    message = f"{name} and {other.name} ({other.source}) interact."
    return _interaction_alert(name, other.name, message, matches, other.prescription_id)


def _interaction_alert(
    name: str,
    against: str,
    message: str,
    matches: Sequence[interactions.InteractionMatch],
    prescription_id: int | None,
) -> list[Alert]:
    """Return one alert for medicines that interact, with the highest severity and all sources."""
    if not matches:
        return []
    effects = "; ".join(
        f"{match.ingredient} with {match.other_ingredient}: {match.interaction.effect}" for match in matches
    )
    alert = _alert("interaction", name, against, f"{message} {effects}.", prescription_id)
    alert["severity"] = matches[0].interaction.severity
    alert["source"] = "; ".join(dict.fromkeys(match.interaction.source for match in matches))
    return [alert]


# --- Warnings ------------------------------------------------------------------------------------------


def find_warnings(
    names: Sequence[str],
    record: MedicationRecord,
    prescription_id: int | None = None,
    details: str | None = None,
) -> list[SafetyWarning]:
    """Return the warnings for the medications of one prescription, and for medicines in its free text."""
    if names:
        warnings = find_unchecked(names, record, prescription_id) + _find_in_details(details or "", names)
    else:
        warnings = [FREE_TEXT_WARNING]
    return warnings if record.allergies_asked else [*warnings, NOT_ASKED_WARNING]


def _find_in_details(details: str, names: Iterable[str]) -> list[SafetyWarning]:
    """Return a warning if the free text names a medicine that is not among the medications."""
    listed = frozenset().union(*(drug.ingredients for name in names if (drug := _recognize_drug(name).match)))
    unlisted = _find_medicines(details) - listed
    if not unlisted:
        return []
    message = f"The details name {', '.join(sorted(unlisted))}. {FREE_TEXT_WARNING['message']}"
    return [{"code": "unchecked", "message": message}]


def find_unchecked(
    names: Sequence[str], record: MedicationRecord, prescription_id: int | None = None
) -> list[SafetyWarning]:
    """Return the warnings for medications and allergies that are not in the drug table.

    A medication has at most three warnings: how its name was understood, what is unknown in its name, and
    the unknown entries of the patient's record. An entry of the record that was understood in spite of a
    typing error has a warning without a medication.
    """
    entries: list[tuple[str, Recognized[Any]]] = [
        (f"allergy {allergy.substance}", _recognize_allergen(allergy.substance))
        for allergy in record.allergies
    ]
    current, left_out = record.medications_except(prescription_id)
    entries += [
        (f"{medication.source}: {medication.name}", _recognize_drug(medication.name))
        for medication in current
    ]
    unknown = [entry + _similar(found) for entry, found in entries if _is_unknown(found)]
    unknown += [
        f"{text.source}: {text.name}" for text in record.free_texts if text.prescription_id != prescription_id
    ]
    if len(unknown) > MAX_NAMED:
        unknown[MAX_NAMED:] = [f"{len(unknown) - MAX_NAMED} more"]
    if left_out:
        unknown.append(f"{left_out} older current medications")
    warnings = [
        {"code": "understood_as", "message": _understood(entry, found)}
        for entry, found in entries
        if found.understood
    ]
    for name in dict.fromkeys(names):
        found = _recognize_drug(name)
        if found.understood:
            warnings.append(
                {"medication": name, "code": "understood_as", "message": _understood(name, found)}
            )
        if found.match is None:
            problem = "It was not checked against allergies and other medications."
            warnings.append(_unchecked(name, f"{name} is not known{_similar(found)}. {problem}"))
            continue
        if found.uncertain:
            words = ", ".join(found.uncertain)
            problem = "It may be another medicine with a similar name, which was not checked."
            warnings.append(_unchecked(name, f"{words} is not a known name. {problem}"))
        if found.match.unknown_parts:
            words = ", ".join(found.match.unknown_parts)
            message = f"Part of {name} is not known and was not checked: {words}{_similar(found)}."
            warnings.append(_unchecked(name, message))
        if unknown:
            entries_text = "; ".join(unknown)
            warnings.append(
                _unchecked(name, f"{name} was not checked against unknown entries: {entries_text}.")
            )
    return warnings


def _is_unknown(found: Recognized[Any]) -> bool:
    return found.match is None or bool(found.match.unknown_parts) or bool(found.uncertain)


def _understood(entry: str, found: Recognized[Any]) -> str:
    known = ", ".join(word for _, word in found.understood)
    contents = found.match.name if found.match else ""
    if isinstance(found.match, Allergen):
        contents = ", ".join(sorted(found.match.classes or found.match.ingredients))
    meaning = f" ({contents})" if contents not in ("", known) else ""
    return f"{entry} was understood as {known}{meaning}. Correct the name if this is wrong."


def _similar(found: Recognized[Any]) -> str:
    """Return the known names that an unknown name may mean, as an addition to a message."""
    names = [name for _, similar in found.ambiguous for name in similar]
    return f" (similar names: {', '.join(names)})" if names else ""


def _unchecked(medication: str, message: str) -> SafetyWarning:
    return {"code": "unchecked", "message": message, "medication": medication}


# --- Check and override --------------------------------------------------------------------------------


def check(
    actor: Actor,
    patient_id: int,
    names: Sequence[str],
    reason: str | None,
    *,
    prescription_id: int | None = None,
    overridden: Iterable[Mapping[str, Any]] = (),
    only: Collection[str] | None = None,
) -> list[Alert]:
    """Return the alerts that `reason` overrides now, each with the reason, the user and the time.

    `names` are all medications of the prescription in their order, so that a known pair gives the same alert
    again. `only` limits the check to these medications. Alerts in `overridden` were overridden before and
    are ignored. Raises 409 `safety_alert` with the new `alerts` if the reason is missing or blank, and 403
    `forbidden` if the user may not prescribe.
    """
    record = load_records([patient_id])[patient_id]
    known = defaultdict[_AlertKey, set[str | None]](set)
    for alert in overridden:
        known[_alert_key(alert)].add(alert.get("allergy"))
    new = [
        alert
        for alert in find_alerts(names, record, prescription_id)
        if (only is None or alert["medication"] in only) and not _is_known(alert, known)
    ]
    if not new:
        return []
    if is_blank_text(reason or ""):
        messages = " ".join(alert["message"] for alert in new[:5])
        raise ClinicError(
            "safety_alert",
            f"{messages} To prescribe it anyway, a doctor sends a new override_reason.",
            alerts=new,
        ).about("prescription", prescription_id, patient_id)
    actor.require(Permission.PRESCRIPTIONS_WRITE, "Only a doctor may override a safety alert.")
    override = {
        "reason": reason,
        "overridden_by": actor.name,
        "overridden_at": clock.now().isoformat(),
    }
    return [alert | override for alert in new]


def _is_known(alert: Alert, known: Mapping[_AlertKey, set[str | None]]) -> bool:
    """Return True for an overridden alert. A new severity or reaction of an allergy makes a new alert.

    `known` holds the allergies of each overridden alert. Alerts of earlier versions have no `allergy`.
    """
    return not known.get(_alert_key(alert), set()).isdisjoint({None, alert.get("allergy")})


def _alert_key(alert: Mapping[str, Any]) -> _AlertKey:
    """Return the identity of an alert: its code and the two compared entries, without the wording."""
    return alert["code"], search_key(alert["medication"]), search_key(alert["with"]), alert["prescription_id"]
