"""Public pages behind the links in messages to patients."""

from __future__ import annotations

from dataclasses import replace

from flask import Response

from api.body_format import FORM, BodyFormat
from api.endpoint import endpoint
from api.pages import html
from api.pages.html import Button, Page
from api.request_context import set_actor, visitor
from api.resource import ApiResource
from enums import AppointmentStatus
from errors import ClinicError
from models import Appointment
from schemas.message import AppointmentAnswer
from security.permissions import Actor, Permission
from services.clinic.record import clinic_record
from services.messages import patient_links
from services.messages.patient_links import Unsubscription

PAGE_FORM = BodyFormat((FORM,), 4 * 1024)
ONE_CLICK_FORM = BodyFormat((FORM, "multipart/form-data"), 4 * 1024)  # RFC 8058 allows both
HTML = ("text/html",)
ACTIONS = {"confirm": patient_links.confirm, "cancel": patient_links.cancel}


def _patient() -> Actor:
    """Return the patient as the actor: the audit log must not show a user."""
    actor = replace(visitor(), name="patient link")
    set_actor(actor)
    return actor


def _appointment_page(row: Appointment, *notices: str, status: int = 200) -> Response:
    clinic = clinic_record()
    locale = html.locale_of(row.patient.language, clinic.locale)
    texts = html.texts_of(locale)
    is_open = row.status is AppointmentStatus.SCHEDULED
    names = [*notices]
    if row.confirmed_at is not None and is_open:
        names.append("confirmed")
    elif not is_open:
        names.append("cancelled" if row.status is AppointmentStatus.CANCELLED else "closed")
    actions = [
        name for name in ACTIONS if is_open and not (name == "confirm" and row.confirmed_at is not None)
    ]
    page = Page(
        locale,
        texts["appointment"],
        clinic.name,
        start=row.start,
        paragraphs=[texts[name] for name in names],
        buttons=[Button(name, texts[name]) for name in actions if is_open],
        hidden={"start": row.start.isoformat()},
    )
    return html.response(page, status)


def _unsubscription_page(link: Unsubscription) -> Response:
    clinic = clinic_record()
    locale = html.locale_of(link.patient.language, clinic.locale)
    texts = html.texts_of(locale)
    text = texts["unsubscribed" if link.is_off else "unsubscribe_question"]
    page = Page(
        locale,
        texts["messages"],
        clinic.name,
        paragraphs=[text.replace("{channel}", texts[link.channel.value])],
        buttons=[] if link.is_off else [Button("unsubscribe", texts["unsubscribe"])],
    )
    return html.response(page)


class AppointmentLink(ApiResource):
    """Route `/a/<token>`."""

    @endpoint(Permission.PUBLIC, media_types=HTML)
    def get(self, token: str) -> Response:
        """Show a page with the time of an appointment, to confirm or cancel it. Nothing changes."""
        return _appointment_page(patient_links.appointment_of(visitor(), token))

    @endpoint(
        Permission.PUBLIC,
        body=AppointmentAnswer,
        accepts=PAGE_FORM,
        media_types=HTML,
        errors=("conflict", "invalid_transition"),
    )
    def post(self, token: str, data: AppointmentAnswer) -> Response:
        """Confirm or cancel an appointment for its patient."""
        actor = _patient()
        try:
            return _appointment_page(ACTIONS[data.action](actor, token, data.start))
        except ClinicError as refusal:
            if refusal.status != 409:
                raise
            notices = ("moved",) if refusal.code == "conflict" else ()
            return _appointment_page(patient_links.appointment_of(actor, token), *notices, status=409)


class UnsubscribeLink(ApiResource):
    """Route `/u/<token>`."""

    @endpoint(Permission.PUBLIC, media_types=HTML)
    def get(self, token: str) -> Response:
        """Show a page to end messages on a channel. Nothing changes."""
        return _unsubscription_page(patient_links.unsubscription_of(token))

    @endpoint(Permission.PUBLIC, accepts=ONE_CLICK_FORM, media_types=HTML)
    def post(self, token: str) -> Response:
        """End messages to a patient on a channel. Mail programs call this with one click (RFC 8058)."""
        return _unsubscription_page(patient_links.unsubscribe(_patient(), token))
