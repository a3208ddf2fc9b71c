"""The address of the caller: recorded as an IP address, however a proxy writes it."""

from __future__ import annotations

from typing import Any

import pytest

from api.client_address import parse_address
from tests.support.clinic import Clinic


@pytest.mark.parametrize(
    ("reported", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1:5678 ", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:c000:201]:443", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("fe80::1%<script>", "fe80::1"),
        *(
            (text, None)
            for text in ("", None, "unknown", "_hidden", "localhost", "192.0.2.1:x", "[::1]x", "[::1")
        ),
        *(
            (text, None)
            for text in ("1.2.3", "1.2.3.4.5", "256.1.1.1", "<b>", "1.2.3.4, 5.6.7.8", ":80", "[]:80")
        ),
    ],
)
def test_a_reported_address_is_read_as_an_ip_address(reported: str | None, address: str | None) -> None:
    assert parse_address(reported) == address


def recorded_addresses(clinic: Clinic) -> list[str]:
    """Return the addresses of the audit log, oldest first."""
    entries = clinic.admin.get("/audit-logs?sort_by=id&sort_order=asc").get_json()
    return [entry["address"] for entry in entries]


def test_the_audit_log_and_the_sessions_hold_addresses_and_no_other_text(make_clinic: Any) -> None:
    clinic: Clinic = make_clinic(trusted_proxies=1)
    patient = clinic.patient()["id"]
    for reported in ("[2001:db8::1]:80", "::ffff:192.0.2.1", "drop table", "evil, 192.0.2.9:1", ""):
        clinic.admin.get(f"/patients/{patient}", headers={"X-Forwarded-For": reported})

    assert recorded_addresses(clinic)[1:] == [
        "2001:db8::1",
        "192.0.2.1",
        "unknown",
        "192.0.2.9",
        "127.0.0.1",
    ]


def test_invented_addresses_share_the_limit_of_the_peer_that_sent_them(make_clinic: Any) -> None:
    clinic: Clinic = make_clinic(
        trusted_proxies=1, rate_limit_enabled=True, rate_limit_default="2 per minute"
    )

    invented = [
        clinic.nobody.get("/patients", headers={"X-Forwarded-For": f"invented {number}"}).status_code
        for number in range(3)
    ]
    ports = [
        clinic.nobody.get("/patients", headers={"X-Forwarded-For": f"192.0.2.1:{number}"}).status_code
        for number in range(3)
    ]

    assert invented == ports == [401, 401, 429]
    headers = {"X-Forwarded-For": "192.0.2.2"}
    assert clinic.nobody.get("/patients", headers=headers).status_code == 401


def test_limits_count_an_unknown_address_by_its_peer(make_clinic: Any) -> None:
    clinic: Clinic = make_clinic(
        trusted_proxies=1, rate_limit_enabled=True, rate_limit_default="1 per minute"
    )

    statuses = [
        clinic.nobody.get(
            "/patients", headers={"X-Forwarded-For": "junk"}, environ_base={"REMOTE_ADDR": peer}
        ).status_code
        for peer in ("198.51.100.1", "198.51.100.2", "198.51.100.1")
    ]

    assert statuses == [401, 401, 429]


@pytest.mark.parametrize("sent", ['"', '1.2.3.4%"x', '1.2.3.4, "x', '"1.2.3.4", "', "1.2.3.4\\", ",", "[::1"])
def test_no_entry_of_the_caller_hides_the_address_that_the_proxy_appends(make_clinic: Any, sent: str) -> None:
    clinic: Clinic = make_clinic(trusted_proxies=1)
    patient = clinic.patient()["id"]

    clinic.admin.get(f"/patients/{patient}", headers={"X-Forwarded-For": f"{sent}, 192.0.2.7"})

    assert recorded_addresses(clinic)[-1] == "192.0.2.7"


def test_each_trusted_proxy_counts_one_entry_from_the_right(make_clinic: Any) -> None:
    clinic: Clinic = make_clinic(trusted_proxies=2)
    patient = clinic.patient()["id"]
    for reported in ("192.0.2.1, 192.0.2.2, 192.0.2.3", "192.0.2.4, 192.0.2.5", "192.0.2.6"):
        clinic.admin.get(f"/patients/{patient}", headers={"X-Forwarded-For": reported})

    assert recorded_addresses(clinic)[1:] == ["192.0.2.2", "192.0.2.4", "127.0.0.1"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/auth/login", {"email": "nobody@clinic.example", "password": "wrong"}),
        (
            "/auth/register",
            {"name": "A", "email": "admin1@clinic.example", "password": "a quiet harbour at dawn"},
        ),
    ],
)
def test_sign_in_limits_count_an_unknown_address_by_its_peer(
    make_clinic: Any, path: str, body: dict[str, str]
) -> None:
    limits = {"rate_limit_login_address": "1 per minute", "rate_limit_register": "1 per minute"}
    clinic: Clinic = make_clinic(trusted_proxies=1, rate_limit_enabled=True, **limits)
    assert clinic.admin.get("/auth/me").get_json()["email"] == "admin1@clinic.example"

    statuses = [
        clinic.nobody.post(
            path, body, headers={"X-Forwarded-For": "junk"}, environ_base={"REMOTE_ADDR": peer}
        ).status_code
        for peer in ("198.51.100.1", "198.51.100.2", "198.51.100.1")
    ]

    assert statuses[0] == statuses[1] != 429
    assert statuses[2] == 429
