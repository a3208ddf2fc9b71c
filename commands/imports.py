"""`flask import`: import a spreadsheet from a terminal, and undo an import."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from sqlalchemy import select

from commands.terminal import audited_transaction, validate
from enums import ImportRowState, ImportState, ImportSubject, JobState, OnDuplicate, OnError
from errors import ClinicError
from extensions import db
from models import Import, ImportedRow, Job
from schemas.imports import ImportCreate
from services.imports import imports
from services.imports import report as import_report
from services.imports.content import read_file, read_stored
from services.jobs.worker import Worker
from services.spreadsheets.reading import MAX_BYTES

MAX_SHOWN = 10  # refused rows on the terminal
MAX_ID = 2**63 - 1
OPERATION = "flask import"
console = Console()


class ImportGroup(click.Group):
    """A group in which the name of a file stands for the command `file`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of the arguments."""
        if args and args[0] not in self.commands:
            args = ["file", *args]
        return super().resolve_command(ctx, args)


@click.group(
    "import",
    cls=ImportGroup,
    help="Import FILE, a spreadsheet (xlsx or csv), or undo an import.\n\n"
    "Example: flask import patients.xlsx --kind patients --source clinic2019\n\n"
    "Options of an import: flask import file --help",
)
def import_group() -> None:
    """Group the commands of imports."""


@import_group.command("file")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--kind", required=True, type=click.Choice([kind.value for kind in ImportSubject]), help="What FILE has."
)
@click.option("--source", required=True, help="The system from which FILE comes, such as clinic2019.")
@click.option("--mapping", help='Column -> member as JSON, such as \'{"Full name": "name"}\'.')
@click.option("--encoding", help="Of a text file that is not in UTF-8, such as cp1252.")
@click.option("--delimiter", help="Of a text file: one of , ; | or tab.")
@click.option("--date-format", help="The order in dates, such as DD/MM/YYYY.")
@click.option("--decimal", type=click.Choice([".", ","]), help="The decimal mark.")
@click.option("--on-duplicate", type=click.Choice([each.value for each in OnDuplicate]), default="report")
@click.option("--on-error", type=click.Choice([each.value for each in OnError]), default="none")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write the problems here.")
@click.option("--apply", "applies", is_flag=True, help="Apply after the dry run. Asks before.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_appcontext
def import_file(file: Path, report: Path | None, applies: bool, yes: bool, **fields: Any) -> None:
    """Check FILE, and apply it with --apply.

    Prints the mapping, the first rows, and the result that each row would have. Nothing is imported
    without --apply. Exits with 1 if rows are refused and nothing was applied.
    """
    import_id = _upload(file, fields)
    row = _run(import_id, imports.request_dry_run, "dry run")
    _print_problems(import_id)
    if report is not None:
        _write_report(import_id, report)
    if not applies:
        click.echo(f"Nothing was imported. Import {import_id} is checked: --apply applies the rows.")
        raise SystemExit(1 if row.refused else 0)
    if row.refused and row.on_error is OnError.NONE:
        raise click.ClickException(
            f"{row.refused} rows are refused. Correct them, or use --on-error skip to import the others."
        )
    if not yes:
        click.confirm(f"Import {row.ready} rows?", abort=True)
    digest = row.digest or ""
    row = _run(import_id, lambda locked: imports.request_apply(locked, digest), "import")
    if row.refused and report is not None:
        _write_report(import_id, report)
    if row.state is not ImportState.APPLIED:
        raise click.ClickException(row.failure or f"The import is {row.state}.")
    click.echo(f"Imported. To take it back within 7 days: flask import undo {import_id}")


@import_group.command("undo")
@click.argument("import_id", type=click.IntRange(1, MAX_ID))
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_appcontext
def undo(import_id: int, yes: bool) -> None:
    """Undo import IMPORT_ID. Exits with 1 if its records were changed or used since."""
    if not yes:
        click.confirm(f"Take back import {import_id}?", abort=True)
    row = _run(import_id, imports.request_undo, "undo")
    if row.state is not ImportState.UNDONE:
        raise click.ClickException(row.failure or f"The import is {row.state}.")
    click.echo("Undone.")


def _upload(file: Path, fields: dict[str, Any]) -> int:
    """Store the file as an import, print its mapping and first rows, and return the id."""
    if file.stat().st_size > MAX_BYTES:
        raise click.ClickException(f"{file} is larger than {MAX_BYTES // 1024**2} MiB.")
    data = validate(
        ImportCreate,
        kind=ImportSubject(fields.pop("kind")),
        on_duplicate=OnDuplicate(fields.pop("on_duplicate")),
        on_error=OnError(fields.pop("on_error")),
        **fields,
    )
    content = file.read_bytes()
    with _explained():
        read = read_file(content, file.name, data.encoding, data.delimiter)
    with audited_transaction(OPERATION) as actor, _explained():
        row = imports.upload(actor, file_name=file.name, content=content, file=read, **data.model_dump())
        imports.add_details(actor, [row])
        import_id = row.id
        _print_mapping(row)
        _print_sample(row)
    return import_id


def _run(import_id: int, request: Any, title: str) -> Import:
    """Start a run, work on its job here or wait for the worker that does, and return the import."""
    with audited_transaction(OPERATION) as actor, _explained():
        row = request(imports.get(actor, import_id, lock=True))
        job_id, total = row.job_id or 0, row.rows
    application = current_app._get_current_object()  # type: ignore[attr-defined]
    with Progress(
        TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    ) as progress:
        task = progress.add_task(title, total=total)

        def report() -> None:
            progress.update(task, completed=total * (_load(import_id).progress or 0) // 100)

        with _run_to_the_end() as interrupts:
            Worker(application.app_context).run_one(job_id, report)
        report()
    row = _load(import_id)
    if row.state in imports.RUNNING:
        raise click.ClickException(_describe_job(job_id))
    counts = ", ".join(f"{getattr(row, name)} {name}" for name in imports.COUNTS if getattr(row, name))
    click.echo(f"{row.rows} rows: {counts or 'nothing to do'}; {row.blank} blank")
    if interrupts:
        raise click.ClickException(f"Interrupted. Import {import_id} is {row.state}.")
    return row


@contextmanager
def _run_to_the_end() -> Iterator[list[int]]:
    """Let Ctrl-C stop the command only after the run: half a run would block the import.

    A second Ctrl-C has its usual effect. Yields the list of the received signals.
    """
    interrupts: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        interrupts.append(number)
        signal.signal(signal.SIGINT, previous)
        click.echo("\nThe run goes on to its end, and the command then stops.", err=True)

    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _explained() -> Iterator[None]:
    """End the command with all that a refusal says: the wrong members, and the rows."""
    try:
        yield
    except ClinicError as refusal:
        details = [f"{name}: {problem}" for name, problem in refusal.errors.items()]
        lines = [refusal.message, *(line for line in details if line != refusal.message)]
        rows = refusal.members.get("rows", ())
        lines += [
            f"row {row['number']}: {row['entity']} {row['id']}" for row in rows if isinstance(row, dict)
        ]
        raise click.ClickException("\n".join(lines)) from None


def _load(import_id: int) -> Import:
    with audited_transaction(OPERATION) as actor:
        row = imports.get(actor, import_id)
        imports.add_computed_fields(actor, [row])
        db.session.expunge(row)
        return row


def _describe_job(job_id: int) -> str:
    with audited_transaction(OPERATION):
        job = db.session.get(Job, job_id)
        reason = job.last_error if job is not None else None
    state = "has failed" if job is None or job.state is JobState.DEAD else "runs again later"
    return f"The job {state}: {reason or 'see the log'} Start a worker with: flask jobs run"


def _print_mapping(row: Import) -> None:
    table = Table("column of the file", "member", title=f"import {row.id}: {row.rows} rows")
    for title in row.header:
        table.add_row(escape(title), escape(row.mapping.get(title, "(not imported)")))
    console.print(table)
    if row.title_rows:
        click.echo(f"Rows above the columns, not imported: {row.title_rows}")
    if row.other_sheets:
        click.echo(f"Sheets of the file, not imported: {', '.join(row.other_sheets)}")


def _print_sample(row: Import) -> None:
    """Print a line for each member: a terminal has no place for a column each."""
    samples = row.sample or ()
    titles = (f"row {sample['number']}" for sample in samples)
    table = Table(Column("member", no_wrap=True), *titles, title="the first rows, as they are read")
    for name in dict.fromkeys(row.mapping.values()):
        table.add_row(name, *(escape(_sample_text(sample, name)) for sample in samples))
    console.print(table)


def _sample_text(sample: dict[str, Any], name: str) -> str:
    if name in sample["problems"]:
        return f"! {sample['problems'][name]}"
    value = sample["members"].get(name)
    return "; ".join(value) if isinstance(value, list) else "" if value is None else str(value)


def _print_problems(import_id: int) -> None:
    with audited_transaction(OPERATION):
        refused = db.session.scalars(
            select(ImportedRow)
            .where(ImportedRow.import_id == import_id, ImportedRow.state == ImportRowState.REFUSED)
            .order_by(ImportedRow.number)
            .limit(MAX_SHOWN + 1)
        ).all()
        for row in refused[:MAX_SHOWN]:
            for problem in row.problems:
                click.echo(f"row {row.number}, {problem['field']}: {problem['message']}")
        if len(refused) > MAX_SHOWN:
            click.echo(f"These are the first {MAX_SHOWN} refused rows. --report writes all into a file.")


def _write_report(import_id: int, path: Path) -> None:
    file = read_stored(import_id)
    with audited_transaction(OPERATION) as actor:
        content = import_report.report(imports.get(actor, import_id), file)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise click.ClickException(f"The problems cannot be written: {error}") from None
    click.echo(f"The problems are in {path}.")
