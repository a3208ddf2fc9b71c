"""`flask users`: manage accounts on the server, without the API."""

from __future__ import annotations

import click
from flask.cli import AppGroup
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy import select

from commands.terminal import audited_transaction, read_password, validate
from enums import Role
from extensions import db
from models import User
from schemas.account import UserCreate
from schemas.second_factor import MfaResetIn
from services import clock
from services.users import accounts, second_factors, sign_in

ROLES = click.Choice([role.value for role in Role])

users = AppGroup(
    "users",
    help="List, create, activate, deactivate and unlock users, reset passwords and second factors.",
)


@users.command("list")
@click.option("--role", type=ROLES, help="List only users of this role.")
@click.option("--active/--inactive", default=None, help="List only active, or only inactive users.")
def list_users(role: str | None, active: bool | None) -> None:
    """List users: id, name, e-mail, role, active, last sign-in (in the time zone of the clinic).

    Prints a table on a terminal, otherwise one line per user, separated by tabs.
    """
    statement = select(User).order_by(User.id)
    if role is not None:
        statement = statement.where(User.role == Role(role))
    if active is not None:
        statement = statement.where(User.is_active == active)
    rows = []
    with audited_transaction("flask users list"):
        for user in db.session.execute(statement).scalars():
            last_sign_in = (
                clock.local(user.last_login_at).strftime("%Y-%m-%d %H:%M") if user.last_login_at else "never"
            )
            active_text = "yes" if user.is_active else "no"
            rows.append((str(user.id), user.name, user.email, user.role.value, active_text, last_sign_in))
    console = Console()
    if not console.is_terminal:
        for row in rows:
            click.echo("\t".join(row))
        return
    table = Table("id", "name", "e-mail", "role", "active", "last sign-in")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


@users.command("create")
@click.option("--name", prompt="Name", help="Full name.")
@click.option("--email", prompt="E-mail", help="Address to sign in with.")
@click.option("--role", type=ROLES, prompt="Role", help="Role of the user.")
@click.option("--phone", help="Phone number, in any usual notation.")
@click.option("--inactive", is_flag=True, help="Create the account inactive: the user cannot sign in.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
def create(name: str, email: str, role: str, phone: str | None, inactive: bool, password_stdin: bool) -> None:
    """Create a user.

    Prompts for missing values. The password has at least 12 characters and is not a common one.
    If the e-mail address has an account, changes nothing and exits with 1.
    """
    data = validate(
        UserCreate,
        name=name,
        email=email,
        role=Role(role),
        phone=phone,
        is_active=not inactive,
        password=read_password(password_stdin),
    )
    with audited_transaction("flask users create") as actor:
        user = accounts.create_user(actor, **data.model_dump())
        message = f"User {user.id} is created: {user.email}, {user.role.value}."
    click.echo(message)


@users.command("activate")
@click.argument("user", metavar="USER")
def activate(user: str) -> None:
    """Activate a user. USER is an id or an e-mail address."""
    with audited_transaction("flask users activate") as actor:
        row = accounts.get_by_id_or_email(actor, user)
        message = f"{row.email} is active{' already' if row.is_active else ''}."
        accounts.update(actor, row, is_active=True)
    click.echo(message)


@users.command("deactivate")
@click.argument("user", metavar="USER")
def deactivate(user: str) -> None:
    """Deactivate a user and end their sessions. USER is an id or an e-mail address.

    Refuses the last active admin and exits with 1.
    """
    with audited_transaction("flask users deactivate") as actor:
        row = accounts.get_by_id_or_email(actor, user)
        message = f"{row.email} is inactive{'' if row.is_active else ' already'}."
        accounts.deactivate(actor, row)
    click.echo(message)


@users.command("unlock")
@click.argument("user", metavar="USER")
def unlock(user: str) -> None:
    """Let a user sign in again after too many failures. USER is an id or an e-mail address.

    Earlier failures no longer count for this user: those of the account, of its known devices, and of the
    network that the user signs in from.
    """
    with audited_transaction("flask users unlock") as actor:
        row = accounts.unlock(actor, accounts.get_by_id_or_email(actor, user))
        message = f"{row.email} can sign in again."
    click.echo(message)


@users.command("reset-password")
@click.argument("user", metavar="USER")
def reset_password(user: str) -> None:
    """Print a one-time token to set a new password. USER is an id or an e-mail address.

    The token is valid for one hour and for one use:
    POST /auth/reset-password {"token": "...", "new_password": "..."}
    """
    with audited_transaction("flask users reset-password") as actor:
        row = accounts.get_by_id_or_email(actor, user)
        token, reset = sign_in.issue_reset(actor, row)
        until = clock.local(reset.expires_at).strftime("%Y-%m-%d %H:%M %Z")
        message = f"One-time token for {row.email}, valid until {until}, for POST /auth/reset-password:"
    click.echo(message, err=True)
    click.echo(token)


@users.command("mfa-reset")
@click.argument("user", metavar="USER")
@click.option("--reason", prompt="Reason", help="The reason, for the audit log: at most 100 characters.")
def mfa_reset(user: str, reason: str) -> None:
    """Remove the second factors of a user who has lost them. USER is an id or an e-mail address.

    Ends the sessions of the user. The password remains.
    """
    data = validate(MfaResetIn, reason=reason)
    with audited_transaction("flask users mfa-reset") as actor:
        row = second_factors.reset(actor, accounts.get_by_id_or_email(actor, user), reason=data.reason)
        message = f"{row.email} has no second factor. The sessions have ended."
    click.echo(message)
