"""`flask users`: accounts from the terminal, for who keeps the server running."""

from __future__ import annotations

import click
from flask.cli import AppGroup
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy import select

from commands.terminal import acting, ask_password, checked
from enums import Role
from extensions import db
from models import User
from schemas.account import UserCreate
from services import clock
from services.users import accounts, sign_in

ROLES = click.Choice([role.value for role in Role])

users = AppGroup("users", help="List, add, activate and deactivate users, and help with forgotten passwords.")


@users.command("list")
@click.option("--role", type=ROLES, help="Only users of this role.")
@click.option("--active/--inactive", default=None, help="Only active users, or only the others.")
def list_users(role: str | None, active: bool | None) -> None:
    """List users: id, name, e-mail, role, whether they are active, last sign-in in the clinic's time.

    A table on a terminal, else one line per user with tabs between.
    """
    statement = select(User).order_by(User.id)
    if role is not None:
        statement = statement.where(User.role == Role(role))
    if active is not None:
        statement = statement.where(User.is_active == active)
    rows = []
    with acting("flask users list"):
        for user in db.session.execute(statement).scalars():
            last = (
                clock.local(user.last_login_at).strftime("%Y-%m-%d %H:%M") if user.last_login_at else "never"
            )
            state = "yes" if user.is_active else "no"
            rows.append((str(user.id), user.name, user.email, user.role.value, state, last))
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
@click.option("--role", type=ROLES, prompt="Role", help="What the user is in the clinic.")
@click.option("--phone", help="Phone number, as people write it.")
@click.option("--inactive", is_flag=True, help="Do not let the user sign in yet.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, without asking.")
def create(name: str, email: str, role: str, phone: str | None, inactive: bool, password_stdin: bool) -> None:
    """Add a user.

    Asks for what is not given. The password has at least 12 characters and is not a common one.
    Exits 1 and changes nothing where the address already has an account.
    """
    data = checked(
        UserCreate,
        name=name,
        email=email,
        role=Role(role),
        phone=phone,
        is_active=not inactive,
        password=ask_password(password_stdin),
    )
    with acting("flask users create") as actor:
        user = accounts.create_user(actor, **data.model_dump())
        told = f"User {user.id} is made: {user.email}, {user.role.value}."
    click.echo(told)


@users.command("activate")
@click.argument("user", metavar="USER")
def activate(user: str) -> None:
    """Let a user sign in. USER is an id or an e-mail address."""
    with acting("flask users activate") as actor:
        row = accounts.get_by_id_or_email(actor, user)
        told = f"{row.email} is active{' already' if row.is_active else ''}."
        accounts.update(actor, row, is_active=True)
    click.echo(told)


@users.command("deactivate")
@click.argument("user", metavar="USER")
def deactivate(user: str) -> None:
    """Keep a user from signing in and end their sessions. USER is an id or an e-mail address.

    Exits 1 for the last active admin.
    """
    with acting("flask users deactivate") as actor:
        row = accounts.get_by_id_or_email(actor, user)
        told = f"{row.email} is inactive{'' if row.is_active else ' already'}."
        accounts.deactivate(actor, row)
    click.echo(told)


@users.command("reset-password")
@click.argument("user", metavar="USER")
def reset_password(user: str) -> None:
    """Print a one-time token with which a user sets a new password. USER is an id or an e-mail address.

    The token is good for an hour and for one use:
    POST /auth/reset-password {"token": "...", "new_password": "..."}
    """
    with acting("flask users reset-password") as actor:
        row = accounts.get_by_id_or_email(actor, user)
        token, reset = sign_in.issue_reset(actor, row)
        until = clock.local(reset.expires_at).strftime("%Y-%m-%d %H:%M %Z")
        told = f"One-time token for {row.email}, good until {until}, for POST /auth/reset-password:"
    click.echo(told, err=True)
    click.echo(token)
