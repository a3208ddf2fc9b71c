"""The clinic record: defaults, changes, hidden members, versions and audit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from config import SettingsError
from models import AuditLog
from tests.conftest import settings_for
from tests.support.clinic import Clinic

MakeClinic = Callable[..., Clinic]

WHOLE = {
    "name": "Lakeside Clinic",
    "legal_name": "Lakeside Health Ltd",
    "address": "12 Harbour Road\nKisumu",
    "phones": ["0712 345 678", "+254 20 555\u2011123"],
    "email": "desk@lakeside.example",
    "website": "https://www.lakeside.example/contact?from=invoice",
    "registration_number": "KMPDC/00127",
    "tax_number": "P051234567X",
    "bank_details": "KCB, account 1234567890",
    "invoice_footer": "Thank you. BP <120/80 is normal.",
    "locale": "en_KE",
}


def test_a_new_clinic_has_a_record_with_the_settings(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(clinic_locale="sw-ke", clinic_timezone="Africa/Nairobi", currency="KES")

    response = clinic.technician.get("/clinic")

    assert response.status_code == 200
    shown = response.get_json()
    assert shown.pop("created_at")
    assert shown.pop("updated_at")
    assert shown == {
        "name": "Clinic",
        "legal_name": None,
        "address": None,
        "phones": [],
        "phones_e164": [],
        "email": None,
        "website": None,
        "logo": None,
        "registration_number": None,
        "invoice_footer": None,
        "locale": "sw_KE",
        "currency": "KES",
        "timezone": "Africa/Nairobi",
    }


def test_the_record_is_changed_by_an_admin_and_audited(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(default_phone_region="KE")

    changed = clinic.admin.put("/clinic", WHOLE)

    assert changed.status_code == 200, changed.get_data(as_text=True)
    row = changed.get_json()
    assert {name: row[name] for name in WHOLE} == WHOLE
    assert row["phones_e164"] == ["+254712345678", "+25420555123"]
    for caller in (clinic.admin, clinic.receptionist):
        assert caller.get("/clinic").get_json() == row
    for caller in (clinic.doctor, clinic.technician):
        hidden = {"bank_details", "tax_number"}
        assert caller.get("/clinic").get_json() == {k: v for k, v in row.items() if k not in hidden}
        assert caller.patch("/clinic", {"name": "Mine"}).status_code == 403
    assert clinic.receptionist.put("/clinic", WHOLE).status_code == 403
    assert clinic.nobody.get("/clinic").status_code == 401
    with clinic.inside() as session:
        entries = session.scalars(select(AuditLog).where(AuditLog.entity == "clinic")).all()
        changes = [entry for entry in entries if entry.outcome == "success"]
        assert [(entry.action, entry.entity_id) for entry in changes] == [("update", 1)]
        assert set(changes[0].fields) == WHOLE.keys() - {"locale"} | {"chosen_locale"}


def test_a_row_that_is_sent_back_changes_nothing(clinic: Clinic) -> None:
    first = clinic.admin.get("/clinic")

    row = first.get_json()
    same = clinic.admin.put("/clinic", row)
    other = clinic.admin.put("/clinic", row | {"currency": "KES", "logo": "/elsewhere"})

    assert (same.status_code, same.get_json(), same.headers["ETag"]) == (200, row, first.headers["ETag"])
    assert "X-Ignored-Members" not in same.headers
    assert other.headers["X-Ignored-Members"] == "currency, logo"
    assert other.headers["ETag"] == first.headers["ETag"]


def test_an_outdated_version_is_refused(clinic: Clinic) -> None:
    tag = clinic.admin.get("/clinic").headers["ETag"]

    changed = clinic.admin.patch("/clinic", {"name": "A"}, headers=_with_token(clinic, {"If-Match": tag}))
    stale = clinic.admin.patch("/clinic", {"name": "B"}, headers=_with_token(clinic, {"If-Match": tag}))

    assert (changed.status_code, stale.status_code) == (200, 412)
    assert clinic.admin.get("/clinic").get_json()["name"] == "A"


def _with_token(clinic: Clinic, headers: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {clinic.admin.token}"} | headers


@pytest.mark.parametrize(
    ("member", "wrong"),
    [
        ("name", [None, "", "  "]),
        ("locale", ["english", "xx_YY", "en_XX", "root", "ca_ES@valencia", "../en", "en_US_POSIX"]),
        ("phones", ["0712 345 678", ["call us"], [""], [None], ["0712 345 678"] * 11]),
        (
            "website",
            [
                "javascript:alert(1)",
                "ftp://clinic.example",
                "www.clinic.example",
                "https://",
                "https://user:pw@clinic.example",
                'https://clinic.example/"onclick="',
                "https://clinic.example/a b",
            ],
        ),
        ("email", ["desk", "a@b@c"]),
        ("bank_details", ["x" * 2001]),
    ],
)
def test_wrong_members_are_refused(clinic: Clinic, member: str, wrong: list[object]) -> None:
    for value in wrong:
        response = clinic.admin.patch("/clinic", {member: value})
        assert response.status_code == 422, (value, response.get_data(as_text=True))
        assert all(path.startswith(member) for path in response.get_json()["errors"]), value


def test_members_are_cleared_and_made_inert(clinic: Clinic) -> None:
    clinic.admin.patch("/clinic", WHOLE)
    members = {"locale": None, "phones": None, "website": " ", "invoice_footer": "<script>x</script>"}

    row = clinic.admin.patch("/clinic", members).get_json()

    assert (row["locale"], row["phones"], row["website"]) == ("en_US", [], None)
    assert row["invoice_footer"] == "< script>x< /script>"


@pytest.mark.parametrize("value", ["english", "xx_YY", "root"])
def test_an_unknown_locale_stops_the_start(value: str) -> None:
    with pytest.raises(SettingsError, match="CLINIC_LOCALE: not a locale such as en_KE"):
        settings_for("sqlite:///clinic.db", clinic_locale=value)
