"""`flask verify`: check the stored data against the integrity rules."""

from __future__ import annotations

import sys

import click
from flask.cli import with_appcontext

from commands.terminal import record_time
from config import settings
from database import roles
from extensions import db
from services import integrity_checks

AS_OWNER = (
    "The server connects as the owner of its tables, and could disable the triggers of the audit log. "
    "Use a role of its own in DATABASE_URI, and the owner in MIGRATION_DATABASE_URI."
)


@click.command("verify")
@click.option("--all", "show_all", is_flag=True, help="Report every violated rule, not only the first.")
@with_appcontext
def verify(show_all: bool) -> None:
    """Check the stored data against the integrity rules.

    Examples: appointments do not overlap, bills equal their ledger, stock equals its movements.
    Prints nothing and exits with 0 if there is no violation. Otherwise prints the violated rule and the ids
    of some rows, and exits with 1. In production it warns if the server owns its tables. Changes no data.
    `flask audit verify` checks the audit log.
    """
    with db.engine.connect() as connection:
        if settings().production and roles.owns_tables(connection):
            click.echo(f"warning: {AS_OWNER}", err=True)
    failed = False
    for rule, ids in integrity_checks.violations():
        failed = True
        click.echo(f"violated: {rule} Rows: {', '.join(map(str, ids))}", err=True)
        if not show_all:
            break
    if failed:
        sys.exit(1)
    record_time(settings().last_verification_file)
