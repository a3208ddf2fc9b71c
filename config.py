"""Settings from the environment and `.env`, checked once, with all errors reported together.

`load()` reads and checks them, `use()` makes them the settings of the application, `settings()` returns them.
Why this does not use pydantic-settings: docs/adr/0004-settings-reader.md.
"""

from __future__ import annotations

import csv
import fcntl
import os
import re
import secrets
from collections.abc import Mapping
from decimal import Decimal
from functools import cache, cached_property
from ipaddress import AddressValueError, IPv6Address
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from babel import Locale, UnknownLocaleError
from dotenv import dotenv_values, set_key
from limits import parse_many
from phonenumbers import SUPPORTED_REGIONS
from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from redis import ConnectionPool
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from config_keys import SECRETS, KeySettings, in_production
from config_messages import DeliverySettings

ROOT = Path(__file__).resolve().parent
ENV_FILE = ROOT / ".env"
MIN_METRICS_TOKEN = 32  # characters, in production
ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?P<host>[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*|\[[0-9a-f:.]+\])"
    r"(:(?P<port>[0-9]{1,5}))?"
)
LOCALE = re.compile(r"[a-z]{2,3}(_[A-Z][a-z]{3})?(_([A-Z]{2}|[0-9]{3}))?", re.ASCII)
DEFAULT_PORTS = {"http": 80, "https": 443}  # browsers leave them out
MAX_PORT = 65535
DRIVERS = ("postgresql", "postgres", "postgresql+psycopg2", "sqlite", "sqlite+pysqlite")
MAX_CURRENCY_PLACES = 2  # the ledger stores two
ROLES = ("admin", "doctor", "receptionist", "technician")  # a test compares them with `enums.Role`
# Threads of one server worker. More than its 20 database connections: a slow request body and a waiting
# password check need a thread, but no connection.
SERVER_THREADS = 40


@cache
def _time_zones() -> set[str]:
    """Return the IANA time zones. The system adds two names that mean no place or differ by machine."""
    return available_timezones() - {"Factory", "localtime"}  # reads a directory tree


@cache
def _currencies() -> dict[str, int]:
    """Return the decimal places of each currency of ISO 4217 that has them (see data/NOTICE.md)."""
    with (ROOT / "data" / "currencies.csv").open(encoding="ascii", newline="") as file:
        return {row["code"]: int(row["decimals"]) for row in csv.DictReader(file)}


class SettingsError(Exception):
    """Invalid settings: one line per environment variable, which never contains its value."""


class Settings(KeySettings, DeliverySettings):
    """All settings. The environment variable of a field is its name in capitals.

    Those of `KeySettings` come before the others: pydantic validates fields in order, and the checks of
    production read `environment` and `flask_env`.
    """

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,  # the input contains secrets
        validate_default=True,
        frozen=True,
    )

    flask_debug: bool = False
    database_uri: str | None = None
    supabase_uri: str | None = None
    analytics_database_uri: str | None = None
    migration_database_uri: str | None = None
    jwt_access_token_expires_minutes: int = Field(15, ge=1, le=24 * 60)
    jwt_refresh_token_expires_days: int = Field(30, ge=1, le=365)
    session_idle_minutes: int = Field(0, ge=0, le=365 * 24 * 60)  # 0: sessions do not end without use
    session_max_hours: int = Field(720, ge=1, le=365 * 24)
    allowed_origins: tuple[str, ...] = ()
    public_url: str | None = None  # scheme and host by which browsers reach this server
    port: int = Field(5000, ge=1, le=MAX_PORT)
    host: str = "127.0.0.1"
    redis_url: str | None = None
    sqlalchemy_echo: bool = False
    clinic_timezone: str = "UTC"
    currency: str = "USD"  # ISO 4217
    default_phone_region: str = "US"  # ISO 3166
    clinic_locale: str = "en_US"  # until the clinic record has another one
    font_paths: tuple[Path, ...] = ()  # folders with fonts for documents, beside data/fonts
    registration: Literal["open", "closed"] = "open"
    calendar_feed_names: bool = False  # calendar feeds may show the names of patients
    audit_heads_file: Path | None = None
    rate_limit_enabled: bool = True
    rate_limit_default: str = "600 per minute"
    rate_limit_login_account: str = "10 per 15 minutes"
    rate_limit_login_address: str = "30 per 15 minutes"
    rate_limit_register: str = "10 per hour"
    rate_limit_files: str = "30 per minute"
    trusted_proxies: int = Field(0, ge=0, le=10)
    metrics_token: str | None = None
    mfa_required_roles: tuple[str, ...] = ()
    mfa_grace_days: int = Field(14, ge=0, le=365)
    bcrypt_cost: int = Field(12, ge=4, le=15)
    # Per worker. The upper limit leaves threads for every other request.
    password_check_queue: int = Field(20, ge=1, le=SERVER_THREADS - 10)
    web_concurrency: int = Field(2, ge=1, le=64)  # worker processes of the server

    @property
    def database_url(self) -> str:
        """Return the SQLAlchemy URL. A relative SQLite file is in the folder `instance/`."""
        uri = _primary_uri(self.database_uri, self.supabase_uri, production=self.production)
        url = make_url(_sqlalchemy_url(uri))
        if url.drivername.startswith("sqlite") and url.database and not Path(url.database).is_absolute():
            folder = ROOT / "instance"
            folder.mkdir(mode=0o700, exist_ok=True)
            url = url.set(database=str(folder / url.database))
        return url.render_as_string(hide_password=False)

    @property
    def replica_url(self) -> str | None:
        """Return the SQLAlchemy URL of the read replica for reports, or None."""
        return _sqlalchemy_url(self.analytics_database_uri) if self.analytics_database_uri else None

    @property
    def migration_url(self) -> str | None:
        """Return the SQLAlchemy URL of the owner of the tables, or None."""
        return _sqlalchemy_url(self.migration_database_uri) if self.migration_database_uri else None

    @cached_property
    def zone(self) -> ZoneInfo:
        """Return the time zone of the clinic."""
        return ZoneInfo(self.clinic_timezone)

    @cached_property
    def currency_places(self) -> int:
        """Return the number of decimal places of the currency: 2 or 0."""
        return _currencies()[self.currency]

    @cached_property
    def smallest_amount(self) -> Decimal:
        """Return the smallest amount of the currency, such as 0.01."""
        return Decimal(1).scaleb(-self.currency_places)

    @property
    def heads_file(self) -> Path:
        """Return the file to which the last entries of the audit chains are exported."""
        return self.audit_heads_file or ROOT / "instance" / "audit-heads.json"

    @property
    def last_backup_file(self) -> Path:
        """Return the file whose time of change is the time of the last backup. It has no content."""
        return self.heads_file.with_suffix(".last-backup")

    @property
    def last_verification_file(self) -> Path:
        """Return the file whose time of change is the time of the last verification. It has no content."""
        return self.heads_file.with_suffix(".last-verification")

    @field_validator("flask_debug")
    @classmethod
    def _check_debug(cls, value: bool, info: ValidationInfo) -> bool:
        if value and in_production(info):
            raise ValueError("must be off in production")
        return value

    @field_validator("font_paths", mode="before")
    @classmethod
    def _split_paths(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part for part in value.split(os.pathsep) if part)
        return value

    @field_validator("font_paths")
    @classmethod
    def _check_paths(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        missing = [str(number) for number, path in enumerate(value, 1) if not path.is_dir()]
        if missing:
            raise ValueError(f"entry {', '.join(missing)}: not a folder")
        return value

    @field_validator("allowed_origins", "mfa_required_roles", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part for part in value.split(",") if part.strip())
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        origins = [_exact_origin(entry) for entry in value]
        wrong = [str(number) for number, origin in enumerate(origins, 1) if origin is None]
        if wrong:
            raise ValueError(
                f"entry {', '.join(wrong)}: write each origin as scheme://host[:port], without '*', path or "
                "pattern; write a name with other than ASCII letters in its xn-- form"
            )
        return tuple(dict.fromkeys(origin for origin in origins if origin is not None))

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, value: str | None) -> str | None:
        origin = _exact_origin(value) if value is not None else None
        if value is not None and (origin is None or not origin.startswith(("http://", "https://"))):
            raise ValueError("write https://host[:port], without a path")
        return origin

    @field_validator("mfa_required_roles")
    @classmethod
    def _check_roles(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        roles = tuple(dict.fromkeys(role.strip().lower() for role in value))
        if not set(roles) <= set(ROLES):
            raise ValueError(f"write roles separated by commas; the roles are {', '.join(ROLES)}")
        return roles

    @field_validator("metrics_token")
    @classmethod
    def _check_metrics_token(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and in_production(info) and len(value) < MIN_METRICS_TOKEN:
            raise ValueError(f"shorter than {MIN_METRICS_TOKEN} characters; use a random one")
        return value

    @field_validator("clinic_timezone")
    @classmethod
    def _check_zone(cls, value: str) -> str:
        if value not in _time_zones():
            raise ValueError("not an IANA time zone such as Europe/Berlin")
        return value

    @field_validator("currency")
    @classmethod
    def _check_currency(cls, value: str) -> str:
        places = _currencies().get(value)
        if places is None:
            raise ValueError("not a code of a current currency of ISO 4217 such as USD")
        if places > MAX_CURRENCY_PLACES:
            raise ValueError(f"this currency has {places} decimal places; at most 2 are supported")
        return value

    @field_validator(
        "rate_limit_default",
        "rate_limit_login_account",
        "rate_limit_login_address",
        "rate_limit_register",
        "rate_limit_files",
    )
    @classmethod
    def _check_rate(cls, value: str) -> str:
        try:
            rates = parse_many(value)
        except ValueError:
            rates = []
        if len(rates) != 1 or rates[0].amount < 1:
            raise ValueError("write a rate such as '600 per minute' or '10 per 15 minutes'")
        return value

    @field_validator("default_phone_region")
    @classmethod
    def _check_region(cls, value: str) -> str:
        if value not in SUPPORTED_REGIONS:
            raise ValueError("not an ISO 3166 country code such as US")
        return value

    @field_validator("clinic_locale")
    @classmethod
    def _check_locale(cls, value: str) -> str:
        return canonical_locale(value)

    @field_validator("database_uri", "supabase_uri", "analytics_database_uri", "migration_database_uri")
    @classmethod
    def _check_database(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                url = make_url(value)
            except (ArgumentError, ValueError):  # the message of a ValueError quotes a part of the URL
                raise ValueError(
                    "not a database URL such as postgresql://user@host/name; in a password write %40 for @, "
                    "%3A for : and %2F for /"
                ) from None
            if url.drivername not in DRIVERS:
                raise ValueError("only postgresql:// and sqlite:// are supported")
            if url.drivername.startswith("sqlite") and url.database in (None, "", ":memory:"):
                raise ValueError(
                    "give a file such as sqlite:///clinic.db; a database in memory is lost on exit"
                )
        return value

    @field_validator("redis_url")
    @classmethod
    def _check_redis(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ConnectionPool.from_url(value).make_connection()  # without a connection to the server
            except (ValueError, TypeError):  # TypeError: an unknown option
                raise ValueError("not a Redis URL such as redis://:password@host:6379/0") from None
        return value

    @field_validator("analytics_database_uri", "migration_database_uri")
    @classmethod
    def _check_postgresql(cls, value: str | None, info: ValidationInfo) -> str | None:
        uris = info.data.get("database_uri"), info.data.get("supabase_uri")
        primary = _primary_uri(*uris, production=in_production(info))
        if value is not None and any(uri.startswith("sqlite") for uri in (value, primary)):
            raise ValueError("only PostgreSQL has read replicas and roles")
        return value


def canonical_locale(text: str) -> str:
    """Return a locale as Babel writes it, such as `en_KE`. Raises ValueError for an unknown one."""
    try:
        name = str(Locale.parse(text.strip().replace("-", "_")))
    except (ValueError, UnknownLocaleError):
        name = ""
    if not LOCALE.fullmatch(name):
        raise ValueError("not a locale such as en_KE: a language, and the country whose formats you use")
    return name


def _exact_origin(entry: str) -> str | None:
    """Return an origin as browsers send it, without trailing slashes and default port, or None."""
    match = ORIGIN.fullmatch(entry.strip().rstrip("/").lower())
    if match is None:
        return None
    scheme, host, port = match["scheme"], match["host"], match["port"]
    if host.startswith("["):
        try:
            host = f"[{IPv6Address(host[1:-1])}]"
        except AddressValueError:
            return None
    if port is None or int(port) == DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{int(port)}" if 1 <= int(port) <= MAX_PORT else None


def _primary_uri(database_uri: str | None, supabase_uri: str | None, *, production: bool) -> str:
    return database_uri or (supabase_uri if production else None) or "sqlite:///clinic.db"


def _sqlalchemy_url(url: str) -> str:
    # PostgreSQL hosts write postgres://, which SQLAlchemy does not accept
    return "postgresql://" + url.removeprefix("postgres://") if url.startswith("postgres://") else url


def load(env_file: Path | None = ENV_FILE, **overrides: Any) -> Settings:
    """Read and check all settings. The environment overrides `.env`, and `overrides` override both.

    An empty variable counts as unset. An empty variable of the environment also hides the value in `.env`,
    except for the secrets of development, which `.env` stores. Raises `SettingsError` with one line for each
    invalid variable.
    """
    try:
        stored = dotenv_values(env_file) if env_file is not None else {}
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"{env_file} cannot be read: {reason}.") from None
    values = _non_empty({**stored, **os.environ})
    environments = {values.get(name, "").strip().lower() for name in ("ENVIRONMENT", "FLASK_ENV")}
    missing = [name for name in SECRETS if name not in values]
    if missing and env_file is not None and "production" not in environments:
        values |= _development_secrets(env_file, missing)
    values = {name: values[name.upper()] for name in Settings.model_fields if name.upper() in values}
    try:
        return Settings(**(values | overrides))
    except ValidationError as failure:
        lines = []
        for error in failure.errors(include_input=False, include_url=False, include_context=False):
            variable = str(error["loc"][0]).upper()
            lines.append(f"{variable}: {error['msg'].removeprefix('Value error, ')}")
        raise SettingsError("\n".join(lines)) from None


def _non_empty(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value and value.strip()}


def _development_secrets(env_file: Path, names: list[str]) -> dict[str, str]:
    """Return these secrets from `env_file`. Generate the missing ones and store them there.

    Raises `SettingsError` if they cannot be stored.
    """
    stored = _non_empty(dotenv_values(env_file))
    if any(name not in stored for name in names):
        try:
            stored = _store_secrets(env_file, names)
        except OSError as failure:
            missing = ", ".join(name for name in names if name not in stored)
            raise SettingsError(f"{missing}: missing, and cannot be stored: {failure}") from None
    return {name: stored[name] for name in names}


def _store_secrets(env_file: Path, names: list[str]) -> dict[str, str]:
    """Generate the missing secrets in `env_file`, readable by its owner only. Return its variables."""
    folder = os.open(env_file.parent, os.O_RDONLY)
    try:
        # Of several processes that start together, one generates the secrets. The lock is on the folder:
        # set_key replaces the file, so that a lock on the file would stay with the old one.
        fcntl.flock(folder, fcntl.LOCK_EX)
        env_file.touch(mode=0o600)
        for name in names:
            if name not in _non_empty(dotenv_values(env_file)):
                set_key(env_file, name, secrets.token_urlsafe(48), quote_mode="never")
        env_file.chmod(0o600)
        return _non_empty(dotenv_values(env_file))
    finally:
        os.close(folder)  # releases the lock


_active: list[Settings] = []  # empty before `use`


def use(new_settings: Settings) -> None:
    """Make these the settings of the application."""
    _active[:] = [new_settings]


def settings() -> Settings:
    """Return the settings of the application."""
    if not _active:
        raise RuntimeError("there are no settings before the application is created")
    return _active[0]
