"""`flask verify`: whether everything that must be true of the stored clinic is."""

from __future__ import annotations

import sys

import click
from flask.cli import with_appcontext

from services import integrity_checks


@click.command("verify")
@click.option("--all", "every", is_flag=True, help="Name every broken rule, not only the first.")
@with_appcontext
def verify(every: bool) -> None:
    """Check the invariants of the stored clinic.

    Appointments without overlap, bills equal to their ledger, stock equal to its movements, and so on.
    Prints nothing and exits 0 when all is well; else names the broken rule with the ids of some rows that
    break it, and exits 1. Reads only; `flask audit verify` checks the audit.
    """
    broken = False
    for sentence, ids in integrity_checks.violations():
        broken = True
        click.echo(f"broken: {sentence} Rows: {', '.join(map(str, ids))}", err=True)
        if not every:
            break
    sys.exit(1 if broken else 0)
