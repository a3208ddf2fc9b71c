"""Create an admin: `python create_admin.py` prompts, `--name --email --password-stdin` does not."""

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
@click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input, without a prompt."
)
@click.option(
    "--first",
    is_flag=True,
    help=f"Create {FIRST_EMAIL} with a random password, printed once; only if there is no admin.",
)
def main(name: str | None, email: str | None, password_stdin: bool, first: bool) -> None:
    r"""Create an active admin account. Prompts for missing values.

    The password has at least 12 characters and is not a common one. There is no default password. If the
    address already has an account, the command exits with 1 and changes nothing.

    \b
    python create_admin.py
    python create_admin.py --name "Ada Okoye" --email ada@clinic.com --password-stdin <password.txt
    """
    if first and (name or email or password_stdin):
        raise click.UsageError("Use --first without the other options.")
    try:
        app = create_app()
    except SettingsError as problems:
        raise click.ClickException(f"The settings are wrong:\n{problems}") from None
    with app.app_context():
        if first:
            click.echo(create_first_admin())
            return
        members = {
            "name": name or click.prompt("Name"),
            "email": email or click.prompt("E-mail"),
            "password": read_password(password_stdin),
        }
        click.echo(create_admin(**members))


def create_admin(**members: str) -> str:
    """Create an admin with name, email and password; return the message for the terminal."""
    data = validate(UserCreate, role=Role.ADMIN, **members)
    with audited_transaction("create_admin.py") as actor:
        user = accounts.create_user(actor, **data.model_dump())
        return f"Created admin {user.id}: {user.email}."


def create_first_admin() -> str:
    """Create the first admin with a random password; return the message for the terminal."""
    password = secrets.token_urlsafe(18)
    try:
        with audited_transaction("create_admin.py --first") as actor:
            if accounts.has_admin():
                return "There is an admin already."
            accounts.create_user(
                actor, role=Role.ADMIN, name="Administrator", email=FIRST_EMAIL, password=password
            )
    except ConflictError:  # an account of another role, or one created at this moment
        return f"{FIRST_EMAIL} has an account already. Create an admin with python create_admin.py."
    return (
        f"Created the first admin: {FIRST_EMAIL}, password: {password}\n"
        "The password is shown only now. Change it with POST /auth/change-password."
    )


if __name__ == "__main__":
    main()
