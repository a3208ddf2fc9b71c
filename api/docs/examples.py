"""The examples of the endpoints. They work in this order in a new clinic with the rows of `flask demo load`.

The rows are those of `commands/demo_examples.py`: it creates them first, so their ids are known. A test sends
every example.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from api.docs.registry import RegisteredEndpoint
from config import settings

# Values that only the caller knows, with their sources. `curl` lines read them from shell variables.
VARIABLES = {
    "APPOINTMENT_TOKEN": "the last part of the link in a message about an appointment",
    "DOCUMENT_TOKEN": "the last part of the address beside the QR code of a document",
    "CREDENTIAL": "the credential that the browser returns, as JSON",
    "MFA_TOKEN": "the `mfa_token` from `POST /auth/login` of a user with a second factor",
    "PASSWORD": "your password",
    "REFRESH_TOKEN": "the `refresh_token` of your last sign-in or refresh; it can be used once",
    "RESET_TOKEN": "the `token` from `POST /users/{user_id}/password-reset`; it can be used once",
    "APPLIED_IMPORT_ID": "the id of an import, from `GET /imports?state=applied`",
    "CHECKED_IMPORT_ID": "the id of an import, from `GET /imports?state=checked`",
    "DIGEST": "the `digest` of this import",
    "IMPORT_ID": "the id of an import, from `POST /imports`",
    "NEW_IMPORT_ID": "the id of an import that was not applied, from `GET /imports?state=uploaded`",
    "EXPORT_ID": "the id of a ready export, from `GET /exports?state=ready`",
    "JOB_ID": "the id of a job, from `GET /jobs?state=dead`",
    "CALENDAR_TOKEN": "the part before `.ics` in a `url` from `POST /doctors/{doctor_id}/calendar-feeds`",
    "SMS_CALLBACK_SECRET": "the value of this setting",
    "UNSUBSCRIBE_TOKEN": "the last part of the link `List-Unsubscribe` in an e-mail",
    "SESSION_ID": "the id of one of your sessions, from `GET /auth/sessions`",
    "TOTP_CODE": "the present code of your authenticator app; it can be used once",
}


@dataclass(frozen=True)
class Example:
    """The example of a request: values of the path other than 1, the body, and member -> its variable."""

    ids: dict[str, int | str] = field(default_factory=dict)
    body: Any = None
    variables: dict[str, str] = field(default_factory=dict)


_TEMPLATE: dict[str, int | str] = {"kind": "reminder", "channel": "sms", "locale": "en"}
_TEXT = "{clinic}: see you on {date} at {time}.\nConfirm or cancel: {link}"
_PHONE = "+254 712 345 678"
_PASSWORD = "three green boats at noon"  # noqa: S105 - for documentation
EXAMPLES: dict[str, Example] = {
    "POST /auth/register": Example(
        body={"name": "Joseph Otieno", "email": "joseph.otieno@clinic.example", "password": _PASSWORD}
    ),
    "POST /auth/login": Example(
        body={"email": "admin@clinic.com", "password": _PASSWORD}, variables={"password": "PASSWORD"}
    ),
    "POST /auth/refresh-token": Example(
        body={"refresh_token": "eyJhbGciOiJIUzI1NiJ9.e30.c2ln"}, variables={"refresh_token": "REFRESH_TOKEN"}
    ),
    "PATCH /auth/me": Example(body={"phone": _PHONE}),
    "POST /auth/change-password": Example(
        body={"current_password": _PASSWORD, "new_password": "a quiet harbour at dusk"},
        variables={"current_password": "PASSWORD"},
    ),
    "POST /auth/reset-password": Example(
        body={"token": "kq0T5mJ3", "new_password": "seven brown owls asleep"},
        variables={"token": "RESET_TOKEN"},
    ),
    "GET /exports/{export_id}": Example(variables={"export_id": "EXPORT_ID"}),
    "GET /exports/{export_id}/file": Example(variables={"export_id": "EXPORT_ID"}),
    "POST /exports": Example(body={"path": "/patients?is_active=true&sort_by=name", "format": "xlsx"}),
    "GET /jobs/{job_id}": Example(variables={"job_id": "JOB_ID"}),
    "POST /jobs/{job_id}/retry": Example(variables={"job_id": "JOB_ID"}),
    "DELETE /auth/sessions/{session_id}": Example(variables={"session_id": "SESSION_ID"}),
    "DELETE /auth/mfa/totp": Example(body={}),
    "POST /auth/mfa/totp/confirm": Example(body={"code": "123456"}, variables={"code": "TOTP_CODE"}),
    "POST /auth/step-up": Example(body={"code": "123456"}, variables={"code": "TOTP_CODE"}),
    "POST /auth/mfa/passkeys": Example(
        body={"name": "Phone of Grace", "credential": {"id": "AQID", "type": "public-key"}},
        variables={"credential": "CREDENTIAL"},
    ),
    "POST /auth/login/mfa/options": Example(
        body={"mfa_token": "kq0T5mJ3"}, variables={"mfa_token": "MFA_TOKEN"}
    ),
    "POST /auth/login/mfa": Example(
        body={"mfa_token": "kq0T5mJ3", "code": "123456"},
        variables={"mfa_token": "MFA_TOKEN", "code": "TOTP_CODE"},
    ),
    "POST /users": Example(
        body={
            "name": "Grace Mwangi",
            "email": "grace.mwangi@clinic.example",
            "password": _PASSWORD,
            "role": "receptionist",
        }
    ),
    "GET /users/{user_id}": Example({"user_id": 2}),
    "PATCH /users/{user_id}": Example({"user_id": 2}, {"phone": _PHONE}),
    "DELETE /users/{user_id}": Example({"user_id": 3}),
    "POST /users/{user_id}/password-reset": Example({"user_id": 2}),
    "PATCH /clinic": Example(
        body={"name": "Lakeside Clinic", "phones": ["+254 20 555 0123"], "locale": "en_KE"}
    ),
    "POST /users/{user_id}/mfa-reset": Example({"user_id": 2}, {"reason": "Lost the phone"}),
    "POST /patients": Example(
        body={
            "name": "Wanjiku Kamau",
            "gender": "female",
            "date_of_birth": "1988-04-12",
            "phone": _PHONE,
            "blood_type": "O+",
            "language": "sw",
        }
    ),
    "PATCH /patients/{patient_id}": Example(
        body={"phone": "0712 345 679", "emergency_contact_name": "Ruth Achieng"}
    ),
    "DELETE /patients/{patient_id}": Example({"patient_id": 2}),
    "POST /patients/{patient_id}/emergency-access": Example(
        body={"reason": "Unconscious after a fall, allergies are needed"}
    ),
    "POST /emergency-access/{emergency_access_id}/review": Example(
        body={"outcome": "justified", "note": "The patient was in danger."}
    ),
    "PATCH /patients/{patient_id}/medical-history": Example(
        body={
            "allergies": [{"substance": "Latex", "reaction": "Rash", "severity": "mild"}],
            "conditions": [{"name": "Type 2 diabetes mellitus", "icd10": "E11.9", "since": "2019-05-01"}],
        }
    ),
    "POST /patients/{patient_id}/account/refunds": Example(
        body={"amount": "10.00", "method": "cash", "reason": "Paid twice"}
    ),
    "POST /doctors": Example(
        body={
            "name": "Daniel Kiptoo",
            "specialty": "cardiology",
            "license_number": "MD-20417",
            "consultation_fee": "60.00",
        }
    ),
    "PATCH /doctors/{doctor_id}": Example(body={"consultation_fee": "65.00"}),
    "DELETE /doctors/{doctor_id}": Example({"doctor_id": 2}, {"on_conflict": "cancel"}),
    "GET /doctors/{doctor_id}/schedule": Example({"doctor_id": 3}),
    "PUT /doctors/{doctor_id}/schedule": Example(
        {"doctor_id": 3},
        {
            "windows": [
                {"weekday": 0, "start": "09:00", "end": "13:00"},
                {"weekday": 2, "start": "14:00", "end": "18:00"},
            ],
            "on_conflict": "keep",
        },
    ),
    "GET /doctors/{doctor_id}/availability": Example({"doctor_id": 3}),
    "POST /doctors/{doctor_id}/time-off": Example(
        body={"start": "2030-08-05", "end": "2030-08-16", "reason": "Annual leave"}
    ),
    "POST /doctors/{doctor_id}/calendar-feeds": Example(body={"detail": "initials", "days_ahead": 90}),
    "GET /calendar/{calendar_token}.ics": Example(variables={"calendar_token": "CALENDAR_TOKEN"}),
    "POST /appointments": Example(
        body={
            "patient_id": 1,
            "doctor_id": 1,
            "date": "2030-03-04T09:00:00Z",
            "duration": 30,
            "type": "follow_up",
            "reason": "Blood pressure",
        }
    ),
    "PATCH /appointments/{appointment_id}": Example(body={"reason": "Chest pain", "notes": "Bring the ECG"}),
    "DELETE /appointments/{appointment_id}": Example(
        {"appointment_id": 2}, {"cancellation_reason": "The patient is travelling", "cancelled_by": "patient"}
    ),
    "POST /appointments/{appointment_id}/check-in": Example({"appointment_id": 3}),
    "POST /visits": Example(
        body={
            "patient_id": 1,
            "doctor_id": 1,
            "visit_type": "consultation",
            "chief_complaint": "Sore throat for three days",
            "diagnoses": [{"icd10": "J02.9"}],
            "vitals": {"systolic": 120, "diastolic": 80, "temperature_c": 37.9},
        }
    ),
    "PATCH /visits/{visit_id}": Example(body={"vitals": {"heart_rate": 72}, "follow_up_date": "2030-03-18"}),
    "DELETE /visits/{visit_id}": Example({"visit_id": 2}, {"reason": "Recorded for the wrong patient"}),
    "POST /visits/{visit_id}/sign": Example({"visit_id": 3}),
    "POST /visits/{visit_id}/addenda": Example({"visit_id": 4}, {"text": "The left knee, not the right."}),
    "POST /visits/{visit_id}/letters": Example(
        body={
            "type": "referral",
            "recipient": "Cardiology, City Hospital",
            "text": "Please examine this patient for palpitations since last week.",
        }
    ),
    "POST /letters/{letter_id}/void": Example({"letter_id": 2}, {"reason": "Wrong period"}),
    "POST /treatments": Example(
        body={
            "visit_id": 1,
            "name": "Wound dressing",
            "cost": "40.00",
            "inventory_items": [{"item_id": 1, "quantity": 2}],
        }
    ),
    "PATCH /treatments/{treatment_id}": Example(body={"status": "in_progress", "notes": "Second reading"}),
    "DELETE /treatments/{treatment_id}": Example({"treatment_id": 2}, {"reason": "Entered twice"}),
    "POST /prescriptions": Example(
        body={
            "visit_id": 1,
            "medications": [
                {
                    "name": "Amoxicillin 500 mg",
                    "dosage": "500 mg",
                    "frequency": "three times daily",
                    "duration_days": 7,
                    "quantity": 21,
                }
            ],
        }
    ),
    "PATCH /prescriptions/{prescription_id}": Example(body={"details": "Take with food."}),
    "DELETE /prescriptions/{prescription_id}": Example(
        {"prescription_id": 2}, {"cancellation_reason": "The symptoms are gone"}
    ),
    "POST /prescriptions/{prescription_id}/dispense": Example(
        {"prescription_id": 3}, {"items": [{"medication": "Paracetamol 500 mg", "quantity": 10}]}
    ),
    "POST /prescriptions/{prescription_id}/stop": Example({"prescription_id": 4}, {"reason": "Nausea"}),
    "POST /inventory": Example(
        body={"name": "Sterile gauze 10 x 10 cm", "sku": "GAUZE-10", "unit": "piece", "quantity": 200}
    ),
    "PATCH /inventory/{item_id}": Example(body={"min_quantity": 20, "supplier": "Harbour Medical"}),
    "DELETE /inventory/{item_id}": Example({"item_id": 2}),
    "POST /inventory/{item_id}/movements": Example(
        body={"type": "restock", "quantity": 100, "lot_number": "L-7731", "expires_on": "2031-12-31"}
    ),
    "POST /inventory/{item_id}/correct-expiry": Example(
        body={"lot_number": "L-2290", "expires_on": "2031-06-30", "reason": "Wrong year typed"}
    ),
    "POST /price-list": Example(
        body={"code": "LAB-FBC", "name": "Full blood count", "category": "laboratory", "unit_price": "25.00"}
    ),
    "PATCH /price-list/{price_list_item_id}": Example(body={"unit_price": "27.50"}),
    "DELETE /price-list/{price_list_item_id}": Example({"price_list_item_id": 2}),
    "POST /billings": Example(
        body={
            "patient_id": 1,
            "items": [{"description": "Blood count", "quantity": 1, "unit_price": "25.00"}],
            "tax_rate": "16",
        }
    ),
    "PATCH /billings/{billing_id}": Example(body={"notes": "Send a copy to the insurer"}),
    "POST /billings/{billing_id}/payments": Example(body={"amount": "25.00", "method": "cash"}),
    "GET /billings/{billing_id}/payments/{payment_id}/receipt": Example({"billing_id": 2, "payment_id": 4}),
    "POST /billings/{billing_id}/refunds": Example(
        {"billing_id": 2}, {"amount": "5.00", "reason": "Billed twice"}
    ),
    "PATCH /billings/{billing_id}/refunds/{refund_id}": Example({"billing_id": 2, "refund_id": 2}),
    "POST /billings/{billing_id}/write-off": Example(body={"amount": "5.00", "reason": "Hardship"}),
    "POST /billings/{billing_id}/void": Example({"billing_id": 3}, {"reason": "Wrong patient"}),
    "POST /appointments/{appointment_id}/messages": Example(body={"kind": "reminder", "channel": "sms"}),
    "PATCH /patients/{patient_id}/contact-preferences": Example(
        body={"whatsapp": False, "preferred_channel": "sms"}
    ),
    "POST /messages/callbacks/{provider}/{secret}": Example(
        {"provider": "sms"},
        {"id": "ATXid_4711", "status": "Success"},
        variables={"secret": "SMS_CALLBACK_SECRET"},
    ),
    "GET /a/{token}": Example(variables={"token": "APPOINTMENT_TOKEN"}),
    "POST /a/{token}": Example(body={"action": "confirm"}, variables={"token": "APPOINTMENT_TOKEN"}),
    "GET /u/{token}": Example(variables={"token": "UNSUBSCRIBE_TOKEN"}),
    "POST /u/{token}": Example(variables={"token": "UNSUBSCRIBE_TOKEN"}),
    "GET /v/{token}": Example(variables={"token": "DOCUMENT_TOKEN"}),
    "POST /billings/{billing_id}/claims": Example(
        body={"insurer": "Acme Health", "policy_number": "AH-104-22", "amount": "60.00"}
    ),
}


EXAMPLES |= {
    "PATCH /messages/settings": Example(body={"channels": ["sms", "email"], "reminder_hours": [48, 3]}),
    "GET /messages/templates/{kind}/{channel}/{locale}": Example(_TEMPLATE),
    "PATCH /messages/templates/{kind}/{channel}/{locale}": Example(_TEMPLATE, {"text": _TEXT}),
    "DELETE /messages/templates/{kind}/{channel}/{locale}": Example(_TEMPLATE),
    "POST /messages/templates/{kind}/{channel}/{locale}/preview": Example(_TEMPLATE, {"text": _TEXT}),
}

_IMPORT = Example(variables={"import_id": "IMPORT_ID"})
EXAMPLES |= {
    "POST /imports": Example(body={"kind": "patients", "source": "clinic2019"}),
    "GET /imports/{import_id}": _IMPORT,
    "PATCH /imports/{import_id}": Example(
        body={"date_format": "DD/MM/YYYY", "on_error": "skip"}, variables={"import_id": "IMPORT_ID"}
    ),
    "DELETE /imports/{import_id}": Example(variables={"import_id": "NEW_IMPORT_ID"}),
    "GET /imports/{import_id}/rows": _IMPORT,
    "GET /imports/{import_id}/report.xlsx": _IMPORT,
    "POST /imports/{import_id}/dry-run": _IMPORT,
    "POST /imports/{import_id}/apply": Example(
        body={"digest": "5f2d9c"},
        variables={"import_id": "CHECKED_IMPORT_ID", "digest": "DIGEST"},
    ),
    "POST /imports/{import_id}/undo": Example(variables={"import_id": "APPLIED_IMPORT_ID"}),
}


def example_of(endpoint: RegisteredEndpoint) -> Example:
    """Return the example of an endpoint. `PUT` in place of `PATCH` has the same one."""
    method = "PATCH" if endpoint.is_put_alias else endpoint.method
    return EXAMPLES.get(f"{method} {endpoint.path}", Example())


def base_url() -> str:
    """Return the URL of a local server."""
    return f"http://localhost:{settings().port}"
