"""Accounts from the terminal: `create_admin.py` and `flask users`."""

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
from tests.support.servers import ROOT

MakeClinic = Callable[..., Clinic]
ADA = ("--name", "Ada Okoye", "--email", "Ada@clinic.com", "--password-stdin")
Run = Callable[..., Result]


def environment(database_url: str) -> dict[str, str]:
    """The settings of a clinic with this database, as a shell has them."""
    chosen = settings_for(database_url)
    return {
        "ENVIRONMENT": "development",
        "FLASK_ENV": "development",
        "FLASK_DEBUG": "",
        "DATABASE_URI": database_url,
        "JWT_SECRET_KEY": chosen.jwt_secret_key,
        "AUDIT_KEY": chosen.audit_key,
        "BCRYPT_COST": "4",
    }


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`create_admin.py` with these arguments and this input."""
    for name, value in environment(database_url).items():
        monkeypatch.setenv(name, value)
    return lambda *arguments, typed="": CliRunner().invoke(create_admin.main, arguments, input=typed)


def users(clinic: Clinic) -> list[tuple[str, str, bool]]:
    with clinic.inside() as session:
        found = session.execute(select(User).order_by(User.id)).scalars()
        return [(user.email, user.role.value, user.is_active) for user in found]


def log_in(clinic: Clinic, email: str, password: str) -> int:
    return clinic.nobody.post("/auth/login", {"email": email, "password": password}).status_code


# --- create_admin.py -----------------------------------------------------------------------------------


def test_an_admin_made_with_options_signs_in(run: Run, make_clinic: MakeClinic) -> None:
    made = run(*ADA, typed=f"{PASSWORD}\n")

    assert made.exit_code == 0, made.output
    assert made.output == "Admin 1 is made: ada@clinic.com.\n"
    clinic = make_clinic()
    assert log_in(clinic, "ada@clinic.com", PASSWORD) == 200
    assert users(clinic) == [("ada@clinic.com", "admin", True)]
    with clinic.inside() as session:
        entry = session.execute(select(AuditLog).where(AuditLog.action == "create")).scalar_one()
        assert (entry.user_name, entry.entity_id, entry.operation) == ("command line", 1, "create_admin.py")


def test_what_is_not_given_is_asked_for(run: Run, make_clinic: MakeClinic) -> None:
    made = run(typed=f"Ada Okoye\nada@clinic.com\n{PASSWORD}\n")

    assert made.exit_code == 0, made.output
    for asked in ("Name:", "E-mail:", "Password:"):
        assert asked in made.output
    assert log_in(make_clinic(), "ada@clinic.com", PASSWORD) == 200


def test_nothing_typed_makes_nobody(run: Run, make_clinic: MakeClinic) -> None:
    assert run(typed="").exit_code != 0
    assert users(make_clinic()) == []


def test_an_address_with_an_account_makes_no_second(run: Run, make_clinic: MakeClinic) -> None:
    run(*ADA, typed=f"{PASSWORD}\n")

    again = run(*ADA, typed="another fine morning\n")

    assert again.exit_code == 1
    assert "already registered" in again.output
    clinic = make_clinic()
    assert len(users(clinic)) == 1
    assert log_in(clinic, "ada@clinic.com", PASSWORD) == 200


def test_bad_values_are_named_and_make_nobody(run: Run, make_clinic: MakeClinic) -> None:
    for arguments, typed, named in (
        (ADA, "password1234\n", "too common"),
        (ADA, "\n", "at least 12 characters"),
        ((*ADA, "--email", "ada"), f"{PASSWORD}\n", "email:"),
        ((*ADA, "--name", "x" * 201), f"{PASSWORD}\n", "name:"),
    ):
        refused = run(*arguments, typed=typed)

        assert refused.exit_code == 1, refused.output
        assert named in refused.output
    assert users(make_clinic()) == []


def test_no_output_repeats_a_typed_password(run: Run) -> None:
    outputs = [run(*ADA, typed=f"{PASSWORD}\n").output for _ in range(2)]

    assert PASSWORD not in "".join(outputs)


def test_the_first_admin_gets_a_random_password_shown_once(run: Run, make_clinic: MakeClinic) -> None:
    first, again = run("--first"), run("--first")

    password = first.output.splitlines()[0].rpartition("password: ")[2]
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert len(password) >= 20
    assert again.output == "There is an admin already.\n"
    clinic = make_clinic()
    assert log_in(clinic, "admin@clinic.com", password) == 200
    assert users(clinic) == [("admin@clinic.com", "admin", True)]


def test_who_asked_for_the_first_admins_address_does_not_become_admin(
    run: Run, make_clinic: MakeClinic
) -> None:
    asked = {"name": "Eve", "email": "admin@clinic.com", "password": PASSWORD}
    make_clinic().nobody.post("/auth/register", asked)

    told = run("--first")

    assert told.exit_code == 0
    assert "has an account already" in told.output
    assert users(make_clinic()) == [("admin@clinic.com", "receptionist", False)]


def test_before_the_tables_are_made_it_says_what_to_do(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("DATABASE_URI", f"sqlite:///{tmp_path}/empty.db")

    refused = run(*ADA, typed=f"{PASSWORD}\n")

    assert refused.exit_code == 1
    assert "flask db upgrade" in refused.output


def test_wrong_settings_are_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("JWT_SECRET_KEY", "short")
    monkeypatch.setenv("PORT", "many")

    refused = run(*ADA, typed=f"{PASSWORD}\n")

    assert refused.exit_code == 1
    assert "JWT_SECRET_KEY" in refused.output
    assert "PORT" in refused.output
    assert "short\n" not in refused.output


def test_processes_that_run_at_once_make_one_admin(database_url: str, make_clinic: MakeClinic) -> None:
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

    named = [start(*ADA) for _ in range(2)]
    told = [process.communicate(f"{PASSWORD}\n", timeout=60) for process in named]

    assert sorted(process.returncode for process in named) == [0, 1], told
    assert users(make_clinic()) == [("ada@clinic.com", "admin", True)]


def test_the_help_suffices() -> None:
    told = CliRunner().invoke(create_admin.main, ["--help"]).output

    for word in (
        "--name",
        "--email",
        "--password-stdin",
        "--first",
        "12 characters",
        "python create_admin.py",
    ):
        assert word in told


# --- flask users ---------------------------------------------------------------------------------------


def flask(clinic: Clinic, *arguments: str, typed: str = "") -> Result:
    return clinic.app.test_cli_runner().invoke(args=["users", *arguments], input=typed)


def test_users_are_added_and_listed_from_the_terminal(clinic: Clinic) -> None:
    rita = ("--name", "Rita", "--email", "rita@clinic.example", "--role", "technician", "--password-stdin")

    made = flask(clinic, "create", *rita, "--phone", "555-767-7476", typed=f"{PASSWORD}\n")
    again = flask(clinic, "create", *rita, typed=f"{PASSWORD}\n")
    asked = flask(clinic, "create", typed=f"Tove\ntove@clinic.example\ndoctor\n{PASSWORD}\n")

    assert made.exit_code == 0, made.output
    assert made.output == "User 1 is made: rita@clinic.example, technician.\n"
    assert (again.exit_code, len(users(clinic))) == (1, 2)
    assert asked.exit_code == 0, asked.output
    assert log_in(clinic, "rita@clinic.example", PASSWORD) == 200
    listed = flask(clinic, "list").output
    assert "Rita" in listed
    assert "Tove" in listed
    assert "Rita" not in flask(clinic, "list", "--role", "doctor").output
    assert "Rita" not in flask(clinic, "list", "--inactive").output


def test_users_are_deactivated_and_activated_from_the_terminal(clinic: Clinic) -> None:
    clinic.admin  # noqa: B018 - is signed in
    rita = clinic.sign_in("receptionist")

    gone = flask(clinic, "deactivate", str(rita.user_id))
    refused = rita.get("/auth/me")
    back = flask(clinic, "activate", f"receptionist{rita.user_id}@clinic.example")
    last = flask(clinic, "deactivate", str(clinic.admin.user_id))
    nobody = flask(clinic, "activate", "nobody@clinic.example")

    assert (gone.exit_code, refused.status_code, back.exit_code) == (0, 401, 0), back.output
    assert clinic.admin.get(f"/users/{rita.user_id}").get_json()["is_active"] is True
    assert (last.exit_code, nobody.exit_code) == (1, 1)
    assert "last active admin" in last.output
    assert "no such user" in nobody.output


def test_a_forgotten_password_is_helped_from_the_terminal(clinic: Clinic) -> None:
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

    told = flask(clinic, "reset-password", "rita@clinic.example")

    token = told.stdout.strip()
    body = {"token": token, "new_password": "another fine morning"}
    assert clinic.nobody.post("/auth/reset-password", body).status_code == 200
    assert log_in(clinic, "rita@clinic.example", "another fine morning") == 200


def test_every_users_command_explains_itself(clinic: Clinic) -> None:
    for command in ("list", "create", "activate", "deactivate", "reset-password"):
        told = flask(clinic, command, "--help")

        assert told.exit_code == 0
        assert command in flask(clinic, "--help").output
        assert len(told.output.splitlines()) > 4
