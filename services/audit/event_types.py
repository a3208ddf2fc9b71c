"""The types of events: the entity and the past tense of the audit action, such as `appointment.booked`."""

from __future__ import annotations

from collections.abc import Collection

# Actions whose past tense does not follow from their first word.
PAST_TENSE = {
    "addendum": "addendum_added",
    "check_in": "checked_in",
    "login": "signed_in",
    "logout": "signed_out",
    "no_show": "missed",
    "reassign": "moved",
    "reschedule": "moved",
    "step_up": "stepped_up",
    "write_off": "written_off",
}
IRREGULAR_VERBS = {
    "begin": "begun",
    "cancel": "cancelled",
    "enrol": "enrolled",
    "login": "login",
    "pay": "paid",
    "reset": "reset",
    "send": "sent",
    "stop": "stopped",
    "undo": "undone",
}
OWN_WORDS = {
    ("appointment", "create"): "booked",
    ("billing", "create"): "issued",
    ("credit_note", "create"): "issued",
    ("letter", "create"): "issued",
}
# Actions that name the manner of a change. The first matching field below names the change itself.
QUALIFIERS = ("overbook", "override")
DONE_BY_FIELD = (
    ("appointment", "start", "reschedule"),
    ("appointment", "doctor_id", "reassign"),
    ("appointment", "status", "complete"),
    ("prescription", "dispensings", "dispense"),
)


def event_type(entity: str, change: str, action: str, fields: Collection[str]) -> str:
    """Return the type of the event of a change. `action` is that of the audit entry."""
    if action in QUALIFIERS:
        action = change
        if change == "update":
            done = (done for of, name, done in DONE_BY_FIELD if of == entity and name in fields)
            action = next(done, change)
    return f"{entity}.{OWN_WORDS.get((entity, action)) or past_tense(action)}"


def past_tense(action: str) -> str:
    """Return the past tense of an action, such as `password_changed` for `change_password`."""
    if action in PAST_TENSE:
        return PAST_TENSE[action]
    verb, _, what = action.partition("_")
    past = IRREGULAR_VERBS.get(verb) or _regular_past(verb)
    return f"{what}_{past}" if what else past


def _regular_past(verb: str) -> str:
    if verb.endswith("e"):
        return f"{verb}d"
    if verb.endswith("y"):
        return f"{verb[:-1]}ied"
    return f"{verb}ed"
