"""Account commands: `create_admin.py` and `flask users`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

import create_admin
from models import AuditLog, User
from tests.conftest import settings_for
from tests.support.clinic import PASSWORD, Clinic
from tests.support.keys import secrets_of
from tests.support.servers import ROOT

MakeClinic = Callable[..., Clinic]
ADA = ("--name", "Ada Okoye", "--email", "Ada@clinic.com", "--password-stdin")
Run = Callable[..., Result]


def environment(database_url: str) -> dict[str, str]:
    """Return the environment variables of a clinic with this database."""
    settings = settings_for(database_url)
    return {
        "ENVIRONMENT": "development",
        "FLASK_ENV": "development",
        "FLASK_DEBUG": "",
        "DATABASE_URI": database_url,
        **secrets_of(settings),
        "BCRYPT_COST": "4",
    }


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs `create_admin.py` with the arguments and the input."""
    for name, value in environment(database_url).items():
        monkeypatch.setenv(name, value)
    return lambda *arguments, typed="": CliRunner().invoke(create_admin.main, arguments, input=typed)


def users(clinic: Clinic) -> list[tuple[str, str, bool]]:
    with clinic.inside() as session:
        rows = session.execute(select(User).order_by(User.id)).scalars()
        return [(user.email, user.role.value, user.is_active) for user in rows]


def log_in(clinic: Clinic, email: str, password: str) -> int:
    return clinic.nobody.post("/auth/login", {"email": email, "password": password}).status_code


# --- create_admin.py -----------------------------------------------------------------------------------


def test_an_admin_created_with_options_can_sign_in(run: Run, make_clinic: MakeClinic) -> None:
    made = run(*ADA, typed=f"{PASSWORD}\n")

    assert made.exit_code == 0, made.output
    assert made.output == "Created admin 1: Ada@clinic.com.\n"
    clinic = make_clinic()
    assert log_in(clinic, "ada@clinic.com", PASSWORD) == 200
    assert users(clinic) == [("Ada@clinic.com", "admin", True)]
    with clinic.inside() as session:
        entry = session.execute(select(AuditLog).where(AuditLog.action == "create")).scalar_one()
        assert (entry.user_name, entry.entity_id, entry.operation) == ("command line", 1, "create_admin.py")


def test_missing_values_are_prompted_for(run: Run, make_clinic: MakeClinic) -> None:
    made = run(typed=f"Ada Okoye\nada@clinic.com\n{PASSWORD}\n")

    assert made.exit_code == 0, made.output
    for prompt in ("Name:", "E-mail:", "Password:"):
        assert prompt in made.output
    assert log_in(make_clinic(), "ada@clinic.com", PASSWORD) == 200


def test_empty_input_creates_no_account(run: Run, make_clinic: MakeClinic) -> None:
    assert run(typed="").exit_code != 0
    assert users(make_clinic()) == []


def test_an_email_address_with_an_account_is_refused(run: Run, make_clinic: MakeClinic) -> None:
    run(*ADA, typed=f"{PASSWORD}\n")

    again = run(*ADA, typed="another fine morning\n")

    assert again.exit_code == 1
    assert "already registered" in again.output
    clinic = make_clinic()
    assert len(users(clinic)) == 1
    assert log_in(clinic, "ada@clinic.com", PASSWORD) == 200


def test_invalid_values_are_reported_and_create_no_account(run: Run, make_clinic: MakeClinic) -> None:
    for arguments, typed, message in (
        (ADA, "password1234\n", "too common"),
        (ADA, "short\n", "at least 12 characters"),
        (ADA, "\n", "must not be blank"),
        ((*ADA, "--email", "ada"), f"{PASSWORD}\n", "email:"),
        ((*ADA, "--name", "x" * 201), f"{PASSWORD}\n", "name:"),
    ):
        refused = run(*arguments, typed=typed)

        assert refused.exit_code == 1, refused.output
        assert message in refused.output
    assert users(make_clinic()) == []


def test_the_output_never_contains_the_password(run: Run) -> None:
    outputs = [run(*ADA, typed=f"{PASSWORD}\n").output for _ in range(2)]

    assert PASSWORD not in "".join(outputs)


def test_the_first_admin_gets_a_random_password_that_is_printed_once(
    run: Run, make_clinic: MakeClinic
) -> None:
    first, again = run("--first"), run("--first")

    password = first.output.splitlines()[0].rpartition("password: ")[2]
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert len(password) >= 20
    assert again.output == "There is an admin already.\n"
    clinic = make_clinic()
    assert log_in(clinic, "admin@clinic.com", password) == 200
    assert users(clinic) == [("admin@clinic.com", "admin", True)]


def test_first_does_not_promote_an_account_with_its_address(run: Run, make_clinic: MakeClinic) -> None:
    body = {"name": "Eve", "email": "admin@clinic.com", "password": PASSWORD}
    make_clinic().nobody.post("/auth/register", body)

    result = run("--first")

    assert result.exit_code == 0
    assert "has an account already" in result.output
    assert users(make_clinic()) == [("admin@clinic.com", "receptionist", False)]


def test_a_database_without_tables_is_reported(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("DATABASE_URI", f"sqlite:///{tmp_path}/empty.db")

    refused = run(*ADA, typed=f"{PASSWORD}\n")

    assert refused.exit_code == 1
    assert "flask db upgrade" in refused.output


def test_wrong_settings_are_reported(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("JWT_SECRET_KEY", "short")
    monkeypatch.setenv("PORT", "many")

    refused = run(*ADA, typed=f"{PASSWORD}\n")

    assert refused.exit_code == 1
    assert "JWT_SECRET_KEY" in refused.output
    assert "PORT" in refused.output
    assert "short\n" not in refused.output


def test_concurrent_processes_create_one_admin(database_url: str, make_clinic: MakeClinic) -> None:
    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "create_admin.py", *arguments],
            cwd=ROOT,
            env=environment(database_url),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    processes = [start(*ADA) for _ in range(2)]
    outputs = [process.communicate(f"{PASSWORD}\n", timeout=300) for process in processes]

    assert sorted(process.returncode for process in processes) == [0, 1], outputs
    assert users(make_clinic()) == [("Ada@clinic.com", "admin", True)]


def test_the_help_explains_every_option() -> None:
    output = CliRunner().invoke(create_admin.main, ["--help"]).output

    for word in (
        "--name",
        "--email",
        "--password-stdin",
        "--first",
        "12 characters",
        "python create_admin.py",
    ):
        assert word in output


# --- flask users ---------------------------------------------------------------------------------------


def flask(clinic: Clinic, *arguments: str, typed: str = "") -> Result:
    return clinic.app.test_cli_runner().invoke(args=["users", *arguments], input=typed)


def test_users_create_and_list(clinic: Clinic) -> None:
    rita = ("--name", "Rita", "--email", "rita@clinic.example", "--role", "technician", "--password-stdin")

    made = flask(clinic, "create", *rita, "--phone", "555-767-7476", typed=f"{PASSWORD}\n")
    again = flask(clinic, "create", *rita, typed=f"{PASSWORD}\n")
    prompted = flask(clinic, "create", typed=f"Tove\ntove@clinic.example\ndoctor\n{PASSWORD}\n")

    assert made.exit_code == 0, made.output
    assert made.output == "User 1 is created: rita@clinic.example, technician.\n"
    assert (again.exit_code, len(users(clinic))) == (1, 2)
    assert prompted.exit_code == 0, prompted.output
    assert log_in(clinic, "rita@clinic.example", PASSWORD) == 200
    listed = flask(clinic, "list").output
    assert "Rita" in listed
    assert "Tove" in listed
    assert "Rita" not in flask(clinic, "list", "--role", "doctor").output
    assert "Rita" not in flask(clinic, "list", "--inactive").output


def test_users_deactivate_and_activate(clinic: Clinic) -> None:
    clinic.admin  # noqa: B018 - the property creates the account
    rita = clinic.sign_in("receptionist")

    deactivated = flask(clinic, "deactivate", str(rita.user_id))
    refused = rita.get("/auth/me")
    activated = flask(clinic, "activate", f"receptionist{rita.user_id}@clinic.example")
    last_admin = flask(clinic, "deactivate", str(clinic.admin.user_id))
    unknown = flask(clinic, "activate", "nobody@clinic.example")

    assert (deactivated.exit_code, refused.status_code, activated.exit_code) == (0, 401, 0), activated.output
    assert clinic.admin.get(f"/users/{rita.user_id}").get_json()["is_active"] is True
    assert (last_admin.exit_code, unknown.exit_code) == (1, 1)
    assert "last active admin" in last_admin.output
    assert "no such user" in unknown.output


def test_users_reset_password_prints_a_token_that_sets_a_new_password(clinic: Clinic) -> None:
    flask(
        clinic,
        *(
            "create",
            "--name",
            "Rita",
            "--email",
            "rita@clinic.example",
            "--role",
            "admin",
            "--password-stdin",
        ),
        typed=f"{PASSWORD}\n",
    )

    result = flask(clinic, "reset-password", "rita@clinic.example")

    token = result.stdout.strip()
    body = {"token": token, "new_password": "another fine morning"}
    assert clinic.nobody.post("/auth/reset-password", body).status_code == 200
    assert log_in(clinic, "rita@clinic.example", "another fine morning") == 200


def test_every_users_command_has_a_help_text(clinic: Clinic) -> None:
    for command in ("list", "create", "activate", "deactivate", "reset-password"):
        result = flask(clinic, command, "--help")

        assert result.exit_code == 0
        assert command in flask(clinic, "--help").output
        assert len(result.output.splitlines()) > 4
