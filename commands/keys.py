"""`flask keys`: list, rotate and remove the keys of the rings."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from flask.cli import AppGroup

import config
from commands import env_file
from commands.terminal import ConflictError, audited_transaction
from extensions import db
from security.key_rings import RING_NAMES, Key, KeyRing, RingName, previous_name, ring
from services import idempotency, key_usage
from services.audit import audit_log
from services.audit.audit_log import PendingEntry

NAME = click.Choice(RING_NAMES, case_sensitive=False)
FOLDERS = click.option(
    "--backups",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with backups, to count those under a key. Can be repeated.",
)
DRY_RUN = click.option("--dry-run", is_flag=True, help="Print what the command would do, and change nothing.")
keys = AppGroup("keys", help="List, rotate and remove the keys of tokens, audit, data and backups.")


@keys.command("list")
@FOLDERS
def list_keys(folders: Sequence[Path]) -> None:
    """List the keys: secret, id, use, and the stored values under the key. Separated by tabs.

    A key id is derived from its key, and does not reveal it. Tokens are not stored, so they are not counted.
    """
    with audited_transaction("flask keys list"):
        for name in RING_NAMES:
            keys, usage = ring(name), key_usage.count_usage(name, _files(folders))
            uses: dict[str | None, str] = {keys.current.id: "current"}
            uses |= {key.id: "earlier" for key in keys.previous}
            for _, key_id in usage:
                uses.setdefault(key_id, "missing" if key_id else "tried with every key")
            for key_id, use in uses.items():
                numbers = [f"{number} {kind}" for (kind, other), number in usage.items() if other == key_id]
                click.echo("\t".join((name, key_id or "no id", use, ", ".join(numbers) or "-")))


@keys.command("rotate")
@click.argument("name", type=NAME)
@click.option("--to", "key_id", help="Id of an earlier key: the second step, which makes it the current key.")
@DRY_RUN
def rotate(name: RingName, key_id: str | None, dry_run: bool) -> None:
    """Rotate a key in two steps, so that processes with old and new settings understand each other.

    The first step adds a random key to the earlier keys: every process then accepts it, but none uses it yet.
    Reload all processes. The second step, with --to, makes it the current key. The key until then becomes an
    earlier one. Reload again. Changes `.env`. Keys from the environment are printed instead.
    """
    keys = ring(name)
    if key_id is None:
        added = Key.of(secrets.token_urlsafe(48))
        changed = KeyRing(name, keys.current, (added, *keys.previous))
    else:
        added = _find(keys, key_id)
        changed = KeyRing(name, added, tuple(key for key in keys.keys if key != added))
    with audited_transaction("flask keys rotate"):
        _change(keys, changed, added, "rotate", dry_run=dry_run)
    following = f", then: flask keys rotate {name} --to {added.id}" if key_id is None else ""
    click.echo(f"next: reload all processes{following}", err=True)


@keys.command("remove")
@click.argument("name", type=NAME)
@click.argument("key_id", metavar="ID")
@FOLDERS
@DRY_RUN
def remove(name: RingName, key_id: str, folders: Sequence[Path], dry_run: bool) -> None:
    """Remove an earlier key. Refuses it while stored values are under the key, with their number.

    Backups are outside the database: name all their folders with --backups. Tokens are not stored: without
    the key, users with tokens under it sign in again.
    """
    keys = ring(name)
    key = _find(keys, key_id)
    if name == "BACKUP_KEY" and not folders:
        raise click.ClickException("Name the folders that have backups: --backups FOLDER")
    with audited_transaction("flask keys remove"):
        idempotency.delete_expired()
        numbers = key_usage.count_under(name, key, _files(folders))
        if numbers:
            needed_by = " and ".join(f"{number} {kind}" for kind, number in numbers.items())
            raise ConflictError(f"{name} {key.id} is needed by {needed_by}. Nothing was changed.")
        changed = KeyRing(name, keys.current, tuple(other for other in keys.previous if other != key))
        _change(keys, changed, key, "remove", dry_run=dry_run)
        if dry_run:
            db.session.rollback()
    click.echo("next: reload all processes", err=True)


def _find(keys: KeyRing, key_id: str) -> Key:
    """Return an earlier key of the ring. End the command if there is none with this id."""
    key = keys.find(key_id)
    if key is None:
        raise click.ClickException(f"{keys.name} has no key {key_id}. See: flask keys list")
    if key == keys.current:
        raise click.ClickException(f"{key_id} is the current key of {keys.name}.")
    return key


def _files(folders: Sequence[Path]) -> list[Path]:
    return [file for folder in folders for file in sorted(folder.iterdir()) if file.is_file()]


def _change(keys: KeyRing, changed: KeyRing, key: Key, action: str, *, dry_run: bool) -> None:
    """Store a changed ring in `.env`, or print it if the keys are not stored there."""
    earlier = ", ".join(other.id for other in changed.previous) or "none"
    state = f"{keys.name}: current {changed.current.id}, earlier {earlier}"
    if dry_run:
        click.echo(f"dry run, nothing was changed: {state}")
        return
    entry = PendingEntry(action, "key", fields={keys.name}, detail=key.id)
    audit_log.pending_entries().add(("key", None), entry)
    after = _variables(changed)
    before = env_file.read(config.ENV_FILE, list(after))
    if _is_stored(keys, before):
        env_file.change(config.ENV_FILE, before, after)
        click.echo(f"written to {config.ENV_FILE}: {state}")
    else:
        click.echo(f"not in {config.ENV_FILE}. Set these variables: {state}", err=True)
        for name, value in after.items():
            click.echo(f"{name}={value}")


def _variables(keys: KeyRing) -> dict[str, str]:
    previous = [key.secret.decode() for key in keys.previous]
    array = json.dumps(previous, separators=(",", ":"), ensure_ascii=False) if previous else ""
    return {keys.name: keys.current.secret.decode(), previous_name(keys.name): array}


def _is_stored(keys: KeyRing, stored: Mapping[str, str]) -> bool:
    """Return True if the file has the keys that the settings have: a variable of the environment hides it."""
    previous = stored[previous_name(keys.name)]
    try:
        values = json.loads(previous or "[]")
    except ValueError:
        return False
    return stored[keys.name].encode() == keys.current.secret and values == [
        key.secret.decode() for key in keys.previous
    ]
