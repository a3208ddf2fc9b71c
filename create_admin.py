"""Make an admin: `python create_admin.py` asks, `--name --email --password-stdin` do not."""

from __future__ import annotations

import secrets

import click

from app import create_app
from commands.terminal import ConflictError, audited_transaction, read_password, validate
from config import SettingsError
from enums import Role
from schemas.account import UserCreate
from services.users import accounts

FIRST_EMAIL = "admin@clinic.com"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--name", help="Full name.")
@click.option("--email", help="Address to sign in with.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, without asking.")
@click.option(
    "--first",
    is_flag=True,
    help=f"Only where there is no admin: make {FIRST_EMAIL} with a random password, printed once.",
)
def main(name: str | None, email: str | None, password_stdin: bool, first: bool) -> None:
    """Make an active admin account. Asks for what is not given.

    The password has at least 12 characters and is not a common one; there is no default password. Exits 1
    and changes nothing where the address already has an account.

    \b
    python create_admin.py
    python create_admin.py --name "Ada Okoye" --email ada@clinic.com --password-stdin <password.txt
    """
    if first and (name or email or password_stdin):
        raise click.UsageError("--first goes without the other options.")
    try:
        app = create_app()
    except SettingsError as problems:
        raise click.ClickException(f"The settings are wrong:\n{problems}") from None
    with app.app_context():
        if first:
            click.echo(_make_first())
            return
        members = {
            "name": name or click.prompt("Name"),
            "email": email or click.prompt("E-mail"),
            "password": read_password(password_stdin),
        }
        click.echo(_make(**members))


def _make(**members: str) -> str:
    data = validate(UserCreate, role=Role.ADMIN, **members)
    with audited_transaction("create_admin.py") as actor:
        user = accounts.create_user(actor, **data.model_dump())
        return f"Admin {user.id} is made: {user.email}."


def _make_first() -> str:
    password = secrets.token_urlsafe(18)
    try:
        with audited_transaction("create_admin.py --first") as actor:
            if accounts.has_admin():
                return "There is an admin already."
            accounts.create_user(
                actor, name="Administrator", email=FIRST_EMAIL, password=password, role=Role.ADMIN
            )
    except ConflictError:  # an account of another role, or one made at this moment
        return f"{FIRST_EMAIL} has an account already; make an admin with python create_admin.py."
    return (
        f"The first admin is made: {FIRST_EMAIL}, password: {password}\n"
        "The password is shown only now; change it with POST /auth/change-password."
    )


if __name__ == "__main__":
    main()
