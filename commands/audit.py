"""`flask audit`: verify the audit log, export its heads, record a restore."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click
from flask.cli import AppGroup

from config import settings
from enums import Role
from errors import ClinicError
from extensions import db
from security.key_rings import ring
from security.permissions import Actor
from services.audit import audit_chain
from services.audit.audit_chain import Heads, HeadsFileError

audit = AppGroup("audit", help="Verify the audit log, export its heads, record a restore.")
FILE = click.Path(dir_okay=False, path_type=Path)


def _fail(problem: object) -> NoReturn:
    click.echo(f"audit: {problem}", err=True)
    sys.exit(1)


def _read_heads(path: Path) -> Heads | None:
    try:
        return audit_chain.read_heads(path, ring("AUDIT_KEY"))
    except HeadsFileError as error:
        _fail(error)


@audit.command("verify")
@click.option("--heads", type=FILE, help="File of exported heads. Default: AUDIT_HEADS_FILE.")
def verify(heads: Path | None) -> None:
    """Verify every chain of the audit log, also against the exported heads.

    Prints "ok" and exits with 0 if every entry is unchanged. Otherwise prints the first fault (chain, entry,
    problem) and exits with 1. The application may run meanwhile.
    """
    path = heads or settings().heads_file
    # Read the file before the database: the chains only get longer, so a head in the file must be in them.
    exported = _read_heads(path)
    if exported is None:
        if heads is not None:
            _fail(f"{path}: there is no such file")
        click.echo(
            f"audit: no heads were exported to {path}; entries deleted at the end of a chain are not found",
            err=True,
        )
    fault = audit_chain.verify(db.engine, exported)
    if fault is not None:
        _fail(fault)
    click.echo("ok")


@audit.command("heads")
@click.option("--to", "target", type=FILE, help="File to write. Default: AUDIT_HEADS_FILE.")
def heads(target: Path | None) -> None:
    """Export the heads of the chains now. The application does this every minute.

    If the database lacks an exported head, the file keeps that head. The command then prints the fault and
    exits with 1.
    """
    path = target or settings().heads_file
    try:
        faults = audit_chain.export(db.engine, settings(), path)
    except (HeadsFileError, OSError) as error:
        _fail(error)
    if faults:
        _fail(faults[0])
    click.echo(str(path))


@audit.command("restored")
@click.option("--reason", required=True, help="Why the database was restored, in a few words.")
def restored(reason: str) -> None:
    """Record a restore from a backup and the lost audit entries, then export the heads again."""
    exported = _read_heads(settings().heads_file)
    actor = Actor(None, "flask audit restored", Role.ADMIN)
    try:
        faults = audit_chain.record_restore(actor, reason, exported)
        db.session.commit()
    except ClinicError as error:
        db.session.rollback()
        _fail(error.message)
    audit_chain.export(db.engine, settings(), overwrite=True)
    for fault in faults:
        click.echo(f"lost: chain {fault.chain} from entry {fault.number} on")
    click.echo("recorded")
