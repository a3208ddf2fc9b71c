"""Settings: read from the environment or `.env`, checked once, every error at once.

Not by pydantic-settings, for which a variable set to nothing does not hide what `.env` says.

`load()` reads and checks; `use()` makes the result the application's; `settings()` is what everybody asks.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from dotenv import dotenv_values, set_key
from limits import parse_many
from phonenumbers import SUPPORTED_REGIONS
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

ROOT = Path(__file__).resolve().parent
ENV_FILE = ROOT / ".env"
SECRETS = ("JWT_SECRET_KEY", "AUDIT_KEY")
MIN_SECRET = 32  # bytes: RFC 7518 section 3.2 asks for a key as long as the hash output
# What the secrets of examples and tutorials are made of; random ones keep most of their characters.
WORDS = re.compile(
    "your|change|secret|example|default|password|jwt|super|key|token|here|this|that|value|very|long|string|"
    "random|replace|with|please|must|should|least|bytes|characters|character|secure|insecure|production|"
    "development|dev|testing|test|flask|clinic|management|system|server|backend|local|only|not|use|for|the|"
    "and|app|own|audit|in|is|it|at|be|me|my|to|of|or|do|a|1234567890|123456789|12345678|12345|1234|123|"
    "[-_ .!]",
    re.I,
)
MIN_VARIETY = 8  # different characters beyond those words
DRIVERS = ("postgresql", "postgres", "postgresql+psycopg2", "sqlite", "sqlite+pysqlite")
CURRENCY = re.compile(r"[A-Z]{3}")
Environment = Literal["development", "production", "testing"]
# Threads of one server worker. More than its 20 database connections: a slow request body and a waiting
# password check need a thread, but no connection.
SERVER_THREADS = 40


_zones = cache(available_timezones)  # reads a directory tree


class SettingsError(Exception):
    """What is wrong with the settings, a line each; names the variables, never their values."""


class Settings(BaseModel):
    """All settings; the environment variable is the name in capitals.

    Where the clinic runs comes first: what is checked in production only looks back at it.
    """

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,  # it would print secrets
        validate_default=True,
        frozen=True,
    )

    environment: Environment | None = None
    flask_env: Environment = "development"
    flask_debug: bool = False
    database_uri: str | None = None
    supabase_uri: str | None = None
    analytics_database_uri: str | None = None
    jwt_secret_key: str = ""
    jwt_access_token_expires_minutes: int = Field(15, ge=1, le=24 * 60)
    jwt_refresh_token_expires_days: int = Field(30, ge=1, le=365)
    allowed_origins: tuple[str, ...] = ()
    port: int = Field(5000, ge=1, le=65535)
    host: str = "127.0.0.1"
    redis_url: str | None = None
    sqlalchemy_echo: bool = False
    clinic_timezone: str = "UTC"
    currency: str = "USD"
    default_phone_region: str = "US"
    registration: Literal["open", "closed"] = "open"
    audit_key: str = ""
    audit_heads_file: Path | None = None
    rate_limit_enabled: bool = True
    rate_limit_default: str = "600 per minute"
    rate_limit_login_account: str = "10 per 15 minutes"
    rate_limit_login_address: str = "30 per 15 minutes"
    trusted_proxies: int = Field(0, ge=0, le=10)
    metrics_token: str | None = None
    bcrypt_cost: int = Field(12, ge=4, le=15)
    # Per worker. The upper limit leaves threads for every other request.
    password_check_queue: int = Field(20, ge=1, le=SERVER_THREADS - 10)
    web_concurrency: int = Field(2, ge=1, le=64)  # worker processes of the server

    @property
    def production(self) -> bool:
        """Either variable says so: the stricter one wins."""
        return "production" in (self.environment, self.flask_env)

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL; SQLite's relative files lie in `instance/`."""
        url = make_url(_scheme(_chosen(self.database_uri, self.supabase_uri, production=self.production)))
        if url.drivername.startswith("sqlite") and url.database and not Path(url.database).is_absolute():
            folder = ROOT / "instance"
            folder.mkdir(exist_ok=True)
            url = url.set(database=str(folder / url.database))
        return url.render_as_string(hide_password=False)

    @property
    def replica_url(self) -> str | None:
        """The SQLAlchemy URL of the read replica that answers reports, if there is one."""
        return _scheme(self.analytics_database_uri) if self.analytics_database_uri else None

    @property
    def zone(self) -> ZoneInfo:
        """The clinic's one time zone."""
        return ZoneInfo(self.clinic_timezone)

    @property
    def heads_file(self) -> Path:
        """Where the audit's heads are exported to."""
        return self.audit_heads_file or ROOT / "instance" / "audit-heads.json"

    @field_validator("environment", "flask_env", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("flask_debug")
    @classmethod
    def _check_debug(cls, value: bool, info: ValidationInfo) -> bool:
        if value and _in_production(info):
            raise ValueError("must be off in production")
        return value

    @field_validator("jwt_secret_key", "audit_key")
    @classmethod
    def _check_secret(cls, value: str, info: ValidationInfo) -> str:
        if len(value.encode()) < MIN_SECRET:
            raise ValueError(f"missing or shorter than {MIN_SECRET} bytes")
        if _in_production(info) and len(set(WORDS.sub("", value))) < MIN_VARIETY:
            raise ValueError("a well-known or guessable value; take a random one")
        return value

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip().rstrip("/").lower() for part in value.split(",") if part.strip())
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "*" in value:
            raise ValueError("'*' cannot go with credentials; name the exact origins")
        for origin in value:
            if not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError("an origin is scheme://host[:port], without a path")
        return value

    @field_validator("clinic_timezone")
    @classmethod
    def _check_zone(cls, value: str) -> str:
        if value not in _zones():
            raise ValueError("not an IANA time zone such as Europe/Berlin")
        return value

    @field_validator("currency")
    @classmethod
    def _check_currency(cls, value: str) -> str:
        if not CURRENCY.fullmatch(value):
            raise ValueError("not an ISO 4217 code such as USD")
        return value

    @field_validator("rate_limit_default", "rate_limit_login_account", "rate_limit_login_address")
    @classmethod
    def _check_rate(cls, value: str) -> str:
        try:
            rates = parse_many(value)
        except ValueError:
            rates = []
        if len(rates) != 1 or rates[0].amount < 1:
            raise ValueError("a rate reads like '600 per minute' or '10 per 15 minutes'")
        return value

    @field_validator("default_phone_region")
    @classmethod
    def _check_region(cls, value: str) -> str:
        if value not in SUPPORTED_REGIONS:
            raise ValueError("not an ISO 3166 country code such as US")
        return value

    @field_validator("redis_url")
    @classmethod
    def _check_redis(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("not a Redis URL such as redis://localhost:6379/0")
        return value

    @field_validator("database_uri", "supabase_uri", "analytics_database_uri")
    @classmethod
    def _check_database(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                url = make_url(value)
            except ArgumentError:
                raise ValueError("not a database URL such as postgresql://user@host/name") from None
            if url.drivername not in DRIVERS:
                raise ValueError("only postgresql:// and sqlite:// are supported")
            if url.drivername.startswith("sqlite") and url.database in (None, "", ":memory:"):
                raise ValueError("name a file such as sqlite:///clinic.db; what is in memory is lost")
        return value

    @field_validator("analytics_database_uri")
    @classmethod
    def _check_replica(cls, value: str | None, info: ValidationInfo) -> str | None:
        given = info.data.get
        followed = _chosen(given("database_uri"), given("supabase_uri"), production=_in_production(info))
        if value is not None and any(uri.startswith("sqlite") for uri in (value, followed)):
            raise ValueError("only PostgreSQL has read replicas")
        return value


def _chosen(database_uri: str | None, supabase_uri: str | None, *, production: bool) -> str:
    """The database that is meant, as it was written."""
    return database_uri or (supabase_uri if production else None) or "sqlite:///clinic.db"


def _scheme(url: str) -> str:
    """SQLAlchemy's name for what hosts of PostgreSQL call postgres://."""
    return "postgresql://" + url.removeprefix("postgres://") if url.startswith("postgres://") else url


def _in_production(info: ValidationInfo) -> bool:
    # one that is wrong itself is missing here: judged as strictly as production
    return "production" in (info.data.get(name, "production") for name in ("environment", "flask_env"))


def kept_secrets(env_file: Path = ENV_FILE) -> dict[str, str]:
    """Development's secrets: what `.env` holds, and made at random and written there where it holds none.

    Raises `SettingsError` where they cannot be written.
    """
    known = _filled(dotenv_values(env_file))
    missing = [name for name in SECRETS if name not in known | _filled(os.environ)]
    if missing:
        try:
            known = _keep(env_file, missing)
        except OSError as failure:
            raise SettingsError(f"{', '.join(missing)}: missing, and cannot be kept: {failure}") from None
    return {name: known[name] for name in SECRETS if name in known}


def _keep(env_file: Path, missing: list[str]) -> dict[str, str]:
    """Make the missing secrets, readable by the file's owner alone; what is in the file by then."""
    env_file.touch(mode=0o600)
    with env_file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # of several processes that start at once one makes them
        for name in missing:
            if name not in _filled(dotenv_values(env_file)):
                set_key(env_file, name, secrets.token_urlsafe(48), quote_mode="never")
        env_file.chmod(0o600)
        return _filled(dotenv_values(env_file))


def _filled(values: Mapping[str, str | None]) -> dict[str, str]:
    """The variables that hold something: an empty value is an unset one."""
    return {name: value for name, value in values.items() if value and value.strip()}


def load(env_file: Path | None = ENV_FILE, **overrides: Any) -> Settings:
    """Read and check all settings. The environment wins over `.env`, `overrides` over both.

    A variable that the environment sets to nothing is unset, whatever `.env` says; of development's secrets
    the kept ones count then. Raises `SettingsError` with one line for every variable that is wrong.
    """
    values = _filled(dotenv_values(env_file)) if env_file is not None else {}
    values = {name: value for name, value in values.items() if name not in os.environ} | _filled(os.environ)
    where = {values.get(name, "").strip().lower() for name in ("ENVIRONMENT", "FLASK_ENV")}
    if env_file is not None and "production" not in where:
        values = kept_secrets(env_file) | values
    known = {name: values[name.upper()] for name in Settings.model_fields if name.upper() in values}
    try:
        return Settings(**(known | overrides))
    except ValidationError as failure:
        lines = []
        for error in failure.errors(include_input=False, include_url=False, include_context=False):
            variable = str(error["loc"][0]).upper()
            lines.append(f"{variable}: {error['msg'].removeprefix('Value error, ')}")
        raise SettingsError("\n".join(lines)) from None


_active: Settings | None = None


def use(chosen: Settings) -> None:
    """Make these the application's settings."""
    global _active
    _active = chosen


def settings() -> Settings:
    """The application's settings."""
    if _active is None:
        raise RuntimeError("settings are asked for before the application was created")
    return _active
