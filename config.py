"""Settings: read from the environment or `.env`, checked once, every error at once.

`load()` reads and checks; `use()` makes the result the application's; `settings()` is what everybody asks.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from dotenv import dotenv_values, set_key
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

ROOT = Path(__file__).resolve().parent
ENV_FILE = ROOT / ".env"
SECRETS = ("JWT_SECRET_KEY", "AUDIT_KEY")
# Values that stand in examples and tutorials: everybody knows them.
WELL_KNOWN = re.compile(
    r"(your|change|secret|example|default|password|jwt|super|key|dev|test|[-_ .\d])+", re.I
)
MIN_SECRET = 32  # bytes: RFC 7518 section 3.2 asks for a key as long as the hash output
CURRENCY = re.compile(r"[A-Z]{3}")
RATE = re.compile(r"\d+ ?(/|per) ?(\d+ )?(second|minute|hour|day)s?", re.I)


class SettingsError(Exception):
    """What is wrong with the settings, a line each; names the variables, never their values."""


class Settings(BaseSettings):
    """All settings; the environment variable is the name in capitals."""

    model_config = SettingsConfigDict(
        env_file=None, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True, frozen=True
    )

    database_uri: str | None = None
    supabase_uri: str | None = None
    jwt_secret_key: str = ""
    jwt_access_token_expires_minutes: int = Field(15, ge=1, le=24 * 60)
    jwt_refresh_token_expires_days: int = Field(30, ge=1, le=365)
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    port: int = Field(5000, ge=1, le=65535)
    host: str = "127.0.0.1"
    flask_env: Literal["development", "production", "testing"] = "development"
    flask_debug: bool = False
    environment: Literal["development", "production", "testing"] | None = None
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
    web_concurrency: int = Field(2, ge=1, le=64)  # gunicorn's worker processes

    @property
    def production(self) -> bool:
        """Either variable says so: the stricter one wins."""
        return "production" in (self.environment, self.flask_env)

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL; SQLite's relative files lie in `instance/`."""
        chosen = (
            self.database_uri or (self.supabase_uri if self.production else None) or "sqlite:///clinic.db"
        )
        if chosen.startswith("postgres://"):
            chosen = "postgresql://" + chosen.removeprefix("postgres://")
        url = make_url(chosen)
        if url.drivername.startswith("sqlite") and url.database and not Path(url.database).is_absolute():
            folder = ROOT / "instance"
            folder.mkdir(exist_ok=True)
            url = url.set(database=str(folder / url.database))
        return url.render_as_string(hide_password=False)

    @property
    def zone(self) -> ZoneInfo:
        """The clinic's one time zone."""
        return ZoneInfo(self.clinic_timezone)

    @property
    def heads_file(self) -> Path:
        """Where the audit's heads are exported to."""
        return self.audit_heads_file or ROOT / "instance" / "audit-heads.json"

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
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
        if value not in available_timezones():
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
        if not RATE.fullmatch(value):
            raise ValueError("a rate reads like '600 per minute' or '10 per 15 minutes'")
        return value

    @field_validator("database_uri", "supabase_uri")
    @classmethod
    def _check_database(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                name = make_url(value).get_backend_name()
            except ArgumentError:
                raise ValueError("not a database URL such as postgresql://user@host/name") from None
            if name not in ("postgresql", "postgres", "sqlite"):
                raise ValueError("only postgresql:// and sqlite:// are supported")
        return value

    @model_validator(mode="after")
    def _check_secrets(self) -> Self:
        problems = []
        for name in SECRETS:
            value = getattr(self, name.lower())
            if len(value.encode()) < MIN_SECRET:
                problems.append(f"{name}: missing or shorter than {MIN_SECRET} bytes")
            elif self.production and (WELL_KNOWN.fullmatch(value) or len(set(value)) < 10):
                problems.append(f"{name}: a well-known or guessable value")
        if self.production and self.flask_debug:
            problems.append("FLASK_DEBUG: must be off in production")
        if problems:
            raise ValueError("\n".join(problems))
        return self


def keep_secrets(env_file: Path = ENV_FILE) -> dict[str, str]:
    """Development's secrets: what `.env` holds, and made at random and written there where it holds none.

    The file is made readable by its owner alone.
    """
    known = {name: value for name, value in dotenv_values(env_file).items() if value}
    for name in SECRETS:
        if not known.get(name) and not os.environ.get(name):
            known[name] = secrets.token_urlsafe(48)
            if not env_file.exists():
                env_file.touch(mode=0o600)
            set_key(env_file, name, known[name], quote_mode="never")
    return {name: value for name, value in known.items() if value is not None}


def load(env_file: Path | None = ENV_FILE, **overrides: Any) -> Settings:
    """Read and check all settings. The environment wins over `.env`, `overrides` over both.

    Raises `SettingsError` with one line for every variable that is wrong.
    """
    values: dict[str, str] = {}
    if env_file is not None:
        values = {name: value for name, value in dotenv_values(env_file).items() if value}
    values |= {name: value for name, value in os.environ.items() if value}
    if env_file is not None and "production" not in (values.get("ENVIRONMENT"), values.get("FLASK_ENV")):
        values = keep_secrets(env_file) | values
    known = {name: values[name.upper()] for name in Settings.model_fields if name.upper() in values}
    try:
        return Settings(**(known | overrides))
    except ValidationError as failure:
        lines = []
        for error in failure.errors(include_input=False, include_url=False, include_context=False):
            where = ".".join(str(part) for part in error["loc"]).upper()
            message = error["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {message}" if where else message)
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
