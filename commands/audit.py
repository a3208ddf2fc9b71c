"""`flask audit`: prove the audit, export its heads, account for a restore."""

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
from security.permissions import Actor
from services.audit import audit_chain
from services.audit.audit_chain import Heads, HeadsFileError

audit = AppGroup("audit", help="Prove the audit, export its heads, account for a restore.")
FILE = click.Path(dir_okay=False, path_type=Path)


def _fail(problem: object) -> NoReturn:
    click.echo(f"audit: {problem}", err=True)
    sys.exit(1)


def _read(path: Path) -> Heads | None:
    try:
        return audit_chain.read_heads(path, settings().audit_key)
    except HeadsFileError as problem:
        _fail(problem)


@audit.command("verify")
@click.option("--heads", type=FILE, help="Exported heads to hold against; default AUDIT_HEADS_FILE.")
def verify(heads: Path | None) -> None:
    """Recompute every chain and hold it against the exported heads.

    Prints "ok" and exits 0 when every entry is as it was written; else names the first broken place (chain,
    entry, what) and exits 1. The application may go on working meanwhile.
    """
    path = heads or settings().heads_file
    exported = _read(path)  # before the database is looked at, which only gets more entries
    if exported is None:
        if heads is not None:
            _fail(f"{path}: there is no such file")
        click.echo(f"audit: no heads were exported to {path}; a cut tail would not be found", err=True)
    broken = audit_chain.verify(db.engine, exported)
    if broken is not None:
        _fail(broken)
    click.echo("ok")


@audit.command("heads")
@click.option("--to", type=FILE, help="Where to; default AUDIT_HEADS_FILE.")
def heads(to: Path | None) -> None:
    """Export the heads of the chains now, as the application does every minute.

    Where the database no longer holds what was exported before, the file keeps its word, the place is named,
    and the exit code is 1.
    """
    path = to or settings().heads_file
    try:
        broken = audit_chain.export(db.engine, settings(), path)
    except (HeadsFileError, OSError) as problem:
        _fail(problem)
    if broken:
        _fail(broken[0])
    click.echo(str(path))


@audit.command("restored")
@click.option("--reason", required=True, help="Why the database was restored, in a few words.")
def restored(reason: str) -> None:
    """Record that the database was restored from a backup, and which entries are lost, then export anew."""
    exported = _read(settings().heads_file)
    actor = Actor(None, "flask audit restored", Role.ADMIN)
    try:
        lost = audit_chain.record_restore(actor, reason, exported)
        db.session.commit()
    except ClinicError as refusal:
        db.session.rollback()
        _fail(refusal.message)
    audit_chain.export(db.engine, settings(), overwrite=True)
    for place in lost:
        click.echo(f"lost: chain {place.chain} from entry {place.number} on")
    click.echo("recorded")
