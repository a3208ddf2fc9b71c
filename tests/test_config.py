"""Settings: sources and precedence, invalid values, and messages without values."""

from __future__ import annotations

import json
import os
import secrets
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import config
from config import SECRETS, Settings, SettingsError, load
from tests.support.servers import ROOT

JWT, AUDIT = "k7Q2x9Zr" * 3 + "Lm4pT8wB", "m4W8v1Lt" * 3 + "Qz6nR3yD"
DATA, BACKUP = "p9D3s6Yh" * 3 + "Ns5kX2cJ", "b5C2j8Uf" * 3 + "Hw7gV4aM"
GOOD: dict[str, Any] = {"jwt_secret_key": JWT, "audit_key": AUDIT, "data_key": DATA, "backup_key": BACKUP}
LINES = "".join(f"{name.upper()}={value}\n" for name, value in GOOD.items())


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove all variables of the settings from the environment."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def problems(**values: Any) -> dict[str, str]:
    """Return the invalid variables with their messages."""
    with pytest.raises(SettingsError) as raised:
        load(None, **values)
    return dict(line.split(": ", 1) for line in str(raised.value).splitlines())


# --- Sources and defaults ------------------------------------------------------------------------------


def test_unset_variables_have_the_documented_defaults() -> None:
    settings = load(None, **GOOD)

    assert (settings.host, settings.port) == ("127.0.0.1", 5000)
    assert (settings.jwt_access_token_expires_minutes, settings.jwt_refresh_token_expires_days) == (15, 30)
    assert (settings.clinic_timezone, settings.currency, settings.registration) == ("UTC", "USD", "open")
    assert (settings.bcrypt_cost, settings.rate_limit_default) == (12, "600 per minute")
    assert (settings.rate_limit_login_account, settings.trusted_proxies) == ("10 per 15 minutes", 0)
    assert (settings.rate_limit_login_address, settings.rate_limit_register) == (
        "30 per 15 minutes",
        "10 per hour",
    )
    assert (settings.session_idle_minutes, settings.session_max_hours) == (0, 720)
    assert (settings.redis_url, settings.flask_debug, settings.production) == (None, False, False)
    assert settings.database_url.startswith("sqlite:///")
    assert settings.database_url.endswith("/instance/clinic.db")


def test_the_environment_overrides_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(f"PORT=6000\nHOST=0.0.0.0\nCURRENCY=\n{LINES}")
    monkeypatch.setenv("PORT", "7000")

    settings = load(file)

    assert (settings.port, settings.host, settings.currency) == (7000, "0.0.0.0", "USD")
    assert settings.jwt_secret_key == JWT


def test_an_empty_variable_hides_the_value_in_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / ".env"
    file.write_text(f"REDIS_URL=redis://localhost\n{LINES}")
    monkeypatch.setenv("REDIS_URL", "")
    monkeypatch.setenv("PORT", " ")

    settings = load(file)

    assert (settings.redis_url, settings.port) == (None, 5000)


def test_origins_may_have_blanks_and_trailing_slashes() -> None:
    origins = {
        " http://localhost:5173/ ,, HTTPS://Front.example// ": (
            "http://localhost:5173",
            "https://front.example",
        ),
        "https://a.example:443,http://a.example:80,https://a.example:8443": (
            *("https://a.example", "http://a.example", "https://a.example:8443"),
        ),
        "http://[0:0::1]:3000,http://192.0.2.7": ("http://[::1]:3000", "http://192.0.2.7"),
        "capacitor://localhost,https://xn--bcher-kva.example,https://xn--bcher-kva.example": (
            *("capacitor://localhost", "https://xn--bcher-kva.example"),
        ),
    }

    for text, expected in origins.items():
        assert load(None, allowed_origins=text, **GOOD).allowed_origins == expected


@pytest.mark.parametrize("environment", ["development", "production"])
def test_an_origin_that_is_not_exact_is_refused(environment: str) -> None:
    wrong = [
        *(
            "*",
            "null",
            "https://*",
            "https://*.clinic.com",
            "https://clinic.com/app",
            "https://clinic.com?x=1",
        ),
        *("https://clinic.com#a", "https://user@clinic.com", "clinic.com", "//clinic.com", "https://"),
        *("https://clinic.com:0", "https://clinic.com:70000", "https://clinic.com:", "https://clinic..com"),
        *(r"https://.*\.clinic\.com", "https://clinic[.]com", "^https://clinic.com$", "https://(a|b).com"),
        *(
            "https://clinic.com https://b.com",
            "https://-clinic.com",
            "https://bücher.example",
            "http://[::g]",
        ),
        *("https://clinic.com\nhttps://b.com", "https://a?b.com", "https://a+b.com"),
    ]

    for entry in wrong:
        assert set(problems(**GOOD, allowed_origins=entry, environment=environment)) == {"ALLOWED_ORIGINS"}, (
            entry
        )


def test_all_wrong_origins_are_reported_by_their_place() -> None:
    errors = problems(**GOOD, allowed_origins="https://a.example, *, https://b.example, c", port="many")

    assert set(errors) == {"ALLOWED_ORIGINS", "PORT"}
    assert errors["ALLOWED_ORIGINS"].startswith("entry 2, 4: ")


def test_production_refuses_a_short_metrics_token() -> None:
    production = {"environment": "production", **GOOD}

    assert set(problems(**production, metrics_token="m" * 31)) == {"METRICS_TOKEN"}
    assert load(None, **production, metrics_token="m" * 32).metrics_token == "m" * 32
    assert load(None, **GOOD, metrics_token="short").metrics_token == "short"


def test_the_database_url_comes_from_the_variable_for_the_environment() -> None:
    supabase = "postgresql://u:p@db.supabase.co:6543/postgres"

    assert load(None, database_uri="postgres://u:p@h/n", **GOOD).database_url == "postgresql://u:p@h/n"
    assert load(None, database_uri="sqlite:////srv/c.db", **GOOD).database_url == "sqlite:////srv/c.db"
    assert load(None, supabase_uri=supabase, **GOOD).database_url.startswith("sqlite")
    in_production = GOOD | {"flask_env": "production", "supabase_uri": supabase}
    assert load(None, **in_production).database_url == supabase
    assert load(None, database_uri="postgresql://u:p@h/n", **in_production).database_url.endswith("@h/n")


# --- Invalid values ------------------------------------------------------------------------------------


def test_all_errors_are_reported_together() -> None:
    invalid = {
        "port": "many",
        "jwt_access_token_expires_minutes": "0",
        "allowed_origins": "*",
        "clinic_timezone": "Mars/Olympus",
        "currency": "dollars",
        "default_phone_region": "United States",
        "database_uri": "mysql://u:p@h/n",
        "redis_url": "localhost:6379",
        "registration": "maybe",
        "rate_limit_default": "many",
        "rate_limit_login_account": "0 per minute",
        "rate_limit_login_address": "3 per minute; 9 per hour",
        "rate_limit_register": "often",
        "session_idle_minutes": "-1",
        "session_max_hours": "0",
        "bcrypt_cost": "3",
        "trusted_proxies": "-1",
        "jwt_secret_key": "short",
    }

    errors = problems(**invalid, environment="production", flask_debug="true")

    assert set(errors) == {name.upper() for name in invalid} | {"FLASK_DEBUG", *SECRETS}


@pytest.mark.parametrize("variable", ["environment", "flask_env"])
def test_production_refuses_debug_mode_and_guessable_secrets(variable: str) -> None:
    production = {variable: "Production"}
    for value in (
        "",
        "short",
        "your-super-secret-key-here",
        "your-super-secret-jwt-key-change-this-in-production",
        "change-me-please-change-me-please-1234567890",
        "x" * 64,
        "abcabcabc" * 8,
    ):
        for name in SECRETS:
            assert set(problems(**production, **(GOOD | {name.lower(): value}))) == {name}, value
    assert set(problems(**production, **GOOD, flask_debug="1")) == {"FLASK_DEBUG"}
    assert set(problems(**production, **GOOD, allowed_origins="*")) == {"ALLOWED_ORIGINS"}
    assert load(None, **production, **GOOD).production is True


def test_a_zone_that_means_no_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"Europe/Berlin", "Factory", "localtime"}
    monkeypatch.setattr("config.available_timezones", lambda: set(names))
    config._time_zones.cache_clear()
    try:
        errors = {name: problems(**GOOD, clinic_timezone=name, port="many") for name in names}
    finally:
        config._time_zones.cache_clear()

    refused = {name for name, wrong in errors.items() if "CLINIC_TIMEZONE" in wrong}
    assert refused == {"Factory", "localtime"}


def test_a_missing_font_folder_is_named_by_its_place(tmp_path: Path) -> None:
    paths = os.pathsep.join((str(tmp_path), "/missing/secret"))

    assert problems(**GOOD, font_paths=paths) == {"FONT_PATHS": "entry 2: not a folder"}


def test_a_misspelt_environment_gets_the_checks_of_production() -> None:
    errors = problems(environment="prodution", flask_debug="true", **GOOD)

    assert set(errors) == {"ENVIRONMENT", "FLASK_DEBUG"}


def test_random_secrets_are_accepted_in_production() -> None:
    for _ in range(50):
        hexadecimal = {name.lower(): secrets.token_hex(32) for name in SECRETS}
        assert load(None, environment="production", **hexadecimal).production
        base64 = {name.lower(): secrets.token_urlsafe(32) for name in SECRETS}
        assert load(None, environment="production", **base64).production


def test_two_secrets_of_production_are_never_equal() -> None:
    same = GOOD | {"data_key": JWT, "backup_key": AUDIT}

    assert set(problems(environment="production", **same)) == {"DATA_KEY", "BACKUP_KEY"}
    assert load(None, **same).production is False


# --- Earlier keys --------------------------------------------------------------------------------------

OTHER, OLDEST = "r8Zt1uEw" * 3 + "Jc6yB9oG", "f3Nq7xKs" * 3 + "Vd0mT8pL"


def test_earlier_keys_are_a_json_array() -> None:
    settings = load(None, environment="production", **GOOD, audit_keys_previous=json.dumps([OTHER, OLDEST]))

    assert settings.audit_keys_previous == (OTHER, OLDEST)
    assert settings.jwt_secret_keys_previous == ()


@pytest.mark.parametrize("name", SECRETS)
def test_wrong_earlier_keys_are_refused_without_their_value(name: str) -> None:
    variable, current = f"{name}S_PREVIOUS", GOOD[name.lower()]
    for value in (
        OTHER,
        f'"{OTHER}"',
        f"[{OTHER}]",
        json.dumps({"key": OTHER}),
        json.dumps([OTHER, 7]),
        json.dumps([OTHER, "r8Zt1uEw"]),
        json.dumps([OTHER, OTHER]),
        json.dumps([OTHER, current]),
        json.dumps([OTHER, GOOD["backup_key" if name != "BACKUP_KEY" else "data_key"]]),
        "[" * 2000,
        json.dumps(["your-super-secret-jwt-key-change-this-r8Zt1u"]),
    ):
        found = problems(environment="production", **GOOD, **{variable.lower(): value})
        assert found.keys() == {variable}, value
        assert "r8Zt1u" not in found[variable]
        assert current not in found[variable]


def test_the_text_of_the_settings_shows_no_secret() -> None:
    mail = {"smtp_url": "smtp://user:r8Zt1uEw@mail.example", "mail_from": "a@mail.example"}
    settings = load(None, **GOOD, **mail, audit_keys_previous=[OTHER])

    for text in (repr(settings), str(settings), f"{settings}"):
        assert not any(secret in text for secret in (*GOOD.values(), "r8Zt1uEw"))


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(uri: str) -> None:
    assert set(problems(**GOOD, database_uri=uri)) == {"DATABASE_URI"}


def test_only_postgresql_has_a_replica() -> None:
    replica, name = "postgres://reader@replica/clinic", "ANALYTICS_DATABASE_URI"
    good = GOOD | {"database_uri": "postgresql://clinic@primary/clinic"}

    assert load(None, **good, analytics_database_uri=replica).replica_url == replica.replace(
        "gres:", "gresql:"
    )
    assert load(None, **good).replica_url is None
    assert set(problems(**good, analytics_database_uri="sqlite:///clinic.db")) == {name}
    assert set(problems(**good, analytics_database_uri="replica")) == {name}
    assert set(problems(**GOOD, analytics_database_uri=replica)) == {name}


def test_no_message_contains_a_value() -> None:
    with pytest.raises(SettingsError) as raised:
        load(None, jwt_secret_key="hunter2", database_uri="mysql://u:hunter2@h/n", redis_url="hunter2")

    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in repr(raised.value.__context__)


# --- Secrets for development ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("DATABASE_URI", "postgresql://u:p@hun:ter2@host/db"),
        ("SUPABASE_URI", "postgresql://u:p@host:hunter2/db"),
        ("ANALYTICS_DATABASE_URI", "postgresql://u:p@host:hunter2/db"),
        ("REDIS_URL", "redis://localhost:hunter2/0"),
        ("REDIS_URL", "redis://:hun/ter2@localhost/0"),
        ("REDIS_URL", "redis://[::1/0"),
        ("REDIS_URL", "redis://localhost?socket_timeout=hunter2"),
        ("REDIS_URL", "redis://localhost?hunter2=1"),
    ],
)
def test_a_malformed_url_is_an_error_without_its_value(variable: str, url: str) -> None:
    found = problems(**GOOD, **{variable.lower(): url})

    assert found.keys() == {variable}
    assert found[variable].startswith("not a ")
    assert "ter2" not in found[variable]


def test_a_file_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"CURRENCY=\xff\xfe")

    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        load(file)


def test_development_generates_secrets_once(tmp_path: Path) -> None:
    file = tmp_path / ".env"

    first, second = load(file), load(file)

    assert first.jwt_secret_key == second.jwt_secret_key
    assert first.audit_key == second.audit_key
    assert first.jwt_secret_key != first.audit_key
    assert len(first.jwt_secret_key) >= 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_generating_secrets_preserves_the_rest_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(f"# comment\nPORT=6000\nJWT_SECRET_KEY=\nAUDIT_KEY={AUDIT}\n")

    settings = load(file)

    assert (settings.port, settings.audit_key) == (6000, AUDIT)
    text = file.read_text()
    assert text.startswith("# comment\nPORT=6000\n")
    assert f"JWT_SECRET_KEY={settings.jwt_secret_key}\n" in text


def test_production_generates_no_secrets(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("ENVIRONMENT=production\n")

    with pytest.raises(SettingsError) as raised:
        load(file)

    assert [line.split(":")[0] for line in str(raised.value).splitlines()] == list(SECRETS)
    assert file.read_text() == "ENVIRONMENT=production\n"


def test_secrets_that_cannot_be_stored_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="JWT_SECRET_KEY, AUDIT_KEY, DATA_KEY, BACKUP_KEY: missing"):
        load(tmp_path / "nowhere" / ".env")


def test_processes_that_start_together_use_the_same_secrets(tmp_path: Path) -> None:
    code = (
        f"import config, pathlib; print(config.load(pathlib.Path({str(tmp_path / '.env')!r})).jwt_secret_key)"
    )

    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={}, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = {process.communicate(timeout=300)[0] for process in processes}

    assert len(outputs) == 1
    assert len(outputs.pop().strip()) >= 64


def test_a_process_that_starts_between_two_secrets_waits_for_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, set_key, first_is_stored = tmp_path / ".env", config.set_key, threading.Event()

    def set_key_slowly(path: Path, name: str, value: str, **options: Any) -> None:
        if name == SECRETS[1]:
            time.sleep(0.3)
        set_key(path, name, value, **options)
        first_is_stored.set()

    monkeypatch.setattr(config, "set_key", set_key_slowly)
    with ThreadPoolExecutor() as executor:
        first = executor.submit(load, file)
        assert first_is_stored.wait(10)
        second = executor.submit(load, file)

    assert first.result().audit_key == second.result().audit_key == load(file).audit_key


def test_every_setting_is_in_the_example_file() -> None:
    example = (ROOT / ".env.example").read_text()

    missing = [name.upper() for name in Settings.model_fields if f"\n{name.upper()}=" not in example]
    assert missing == []


@pytest.mark.parametrize(
    ("currency", "problem"),
    [
        ("XXX", "not a code"),
        ("XAU", "not a code"),
        ("usd", "not a code"),
        ("DEM", "not a code"),
        ("KWD", "3 decimal places"),
        ("CLF", "4 decimal places"),
    ],
)
def test_a_currency_without_places_or_with_more_than_two_is_refused(currency: str, problem: str) -> None:
    assert problem in problems(currency=currency)["CURRENCY"]


@pytest.mark.parametrize(("currency", "places"), [("USD", 2), ("KES", 2), ("JPY", 0), ("UGX", 0)])
def test_the_places_of_a_currency_are_those_of_iso_4217(currency: str, places: int) -> None:
    settings = load(None, **GOOD, currency=currency)

    assert settings.currency_places == places


# --- Messages ------------------------------------------------------------------------------------------


GATEWAY = {"sms_http_url": "https://gateway.example/send", "sms_http_body": "to={to}&text={text}"}


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example", ("mail.example", 587, False, None, None)),
        ("smtps://mail.example", ("mail.example", 465, True, None, None)),
        ("smtp://u%40x:p%3Aw%2F@mail.example:25", ("mail.example", 25, False, "u@x", "p:w/")),
        ("smtp://[::1]:2525", ("::1", 2525, False, None, None)),
    ],
)
def test_a_mail_server_is_read_from_its_url(url: str, server: tuple[Any, ...]) -> None:
    read = load(None, smtp_url=url, mail_from="clinic@example.com", **GOOD).mail_server

    assert read is not None
    assert (read.host, read.port, read.implicit_tls, read.user, read.password) == server


@pytest.mark.parametrize(
    ("values", "variable"),
    [
        ({"smtp_url": "http://mail.example"}, "SMTP_URL"),
        ({"smtp_url": "smtp://"}, "SMTP_URL"),
        ({"smtp_url": "smtp://mail.example:port"}, "SMTP_URL"),
        ({"smtp_url": "smtp://user@mail.example"}, "SMTP_URL"),
        ({"smtp_url": "smtp://mail.example/path"}, "SMTP_URL"),
        ({"smtp_url": "smtp://mail.example"}, "MAIL_FROM"),
        ({"mail_from": "clinic"}, "MAIL_FROM"),
        ({"mail_from": "a@example.com\nBcc: b@example.com"}, "MAIL_FROM"),
        ({"sms_provider": "twilio"}, "SMS_PROVIDER"),
        ({"sms_provider": "http", "sms_http_body": "to={to}&text={text}"}, "SMS_HTTP_URL"),
        ({"sms_provider": "http", "sms_http_url": "https://gateway.example"}, "SMS_HTTP_BODY"),
        ({"whatsapp_provider": "http", "whatsapp_http_url": "https://g.example"}, "WHATSAPP_HTTP_BODY"),
        ({"sms_http_url": "ftp://gateway.example"}, "SMS_HTTP_URL"),
        ({"sms_http_url": "https://user:pw@gateway.example"}, "SMS_HTTP_URL"),
        ({"sms_http_url": "https://gateway.example/a b"}, "SMS_HTTP_URL"),
        ({"sms_http_headers": "apiKey: x"}, "SMS_HTTP_HEADERS"),
        ({"sms_http_headers": '["x"]'}, "SMS_HTTP_HEADERS"),
        ({"sms_http_headers": '{"a": "x\\r\\nHost: y"}'}, "SMS_HTTP_HEADERS"),
        ({"sms_http_body": '{"to": "{to}"'}, "SMS_HTTP_BODY"),
        ({"sms_http_body": "to={to}"}, "SMS_HTTP_BODY"),
        ({"sms_http_body": "text={text}"}, "SMS_HTTP_BODY"),
        ({"sms_http_body": "to={to}&text={text}&x={patient}"}, "SMS_HTTP_BODY"),
        ({"sms_http_id_path": "messages[0].id"}, "SMS_HTTP_ID_PATH"),
        ({"sms_callback_secret": "short"}, "SMS_CALLBACK_SECRET"),
        ({"sms_callback_secret": "x" * 40 + "/"}, "SMS_CALLBACK_SECRET"),
    ],
)
def test_a_wrong_setting_of_messages_is_named_without_its_value(
    values: dict[str, str], variable: str
) -> None:
    wrong = problems(**GOOD, **values)

    assert set(wrong) == {variable}
    assert not any(value in wrong[variable] for value in values.values() if len(value) > 12)


def test_all_wrong_settings_of_messages_are_reported_together() -> None:
    wrong = problems(**GOOD, smtp_url="mail", sms_provider="http", whatsapp_callback_secret="x")

    assert set(wrong) == {"SMTP_URL", "SMS_HTTP_URL", "SMS_HTTP_BODY", "WHATSAPP_CALLBACK_SECRET"}


def test_a_gateway_is_used_only_if_its_provider_is_http() -> None:
    assert load(None, **GATEWAY, **GOOD).gateway("sms") is None

    gateway = load(None, sms_provider=" HTTP ", **GATEWAY, **GOOD).gateway("sms")

    assert gateway is not None
    assert (gateway.is_form, gateway.body, gateway.id_path) == (True, {"to": "{to}", "text": "{text}"}, ())
