"""The files of exports, in the database: server and worker may be on hosts without a common folder."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Engine, and_, delete, func, insert, or_, select, update

from enums import ExportState, JobState
from errors import ClinicError
from models import Export, ExportChunk, Job
from services import clock
from services.exports.exports import KEPT, LIFETIME, OPEN
from services.rows import execute_core

CHUNK_SIZE = 1024 * 1024  # bytes
MAX_SIZE = 2 * 1024**3  # bytes of a file
MAX_STORED = 10 * 1024**3  # bytes of all files
BATCH = 50  # chunks that one transaction removes


def require_space(size: int) -> None:
    """Raise 422 if a file is too large to be stored."""
    if size > MAX_SIZE:
        raise ClinicError("too_many_rows", f"The file has more than {MAX_SIZE >> 30} GiB. Add a filter.")
    sizes = select(func.coalesce(func.sum(Export.size), 0)).where(Export.state == ExportState.READY)
    stored = execute_core(sizes).scalar_one()
    if stored + size > MAX_STORED:
        message = f"The files of all exports have more than {MAX_STORED >> 30} GiB. Try again tomorrow."
        raise ClinicError("too_many_rows", message)


def store(export_id: int, number: int, content: bytes) -> None:
    """Store a part of a file."""
    execute_core(insert(ExportChunk).values(export_id=export_id, number=number, content=content))


def remove_batch(export_id: int) -> bool:
    """Remove some parts of a file. Return False if there are none left."""
    numbers = select(ExportChunk.number).where(ExportChunk.export_id == export_id).limit(BATCH)
    statement = delete(ExportChunk).where(ExportChunk.export_id == export_id, ExportChunk.number.in_(numbers))
    return execute_core(statement).rowcount > 0


def read(engine: Engine, export_id: int, size: int) -> Iterator[bytes]:
    """Yield the parts of a file. No transaction is open between two parts.

    Raises `RuntimeError` for a file that was removed meanwhile: the client sees that the response is not
    complete.
    """
    sent = number = 0
    while sent < size:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            content = connection.execute(
                select(ExportChunk.content).where(
                    ExportChunk.export_id == export_id, ExportChunk.number == number
                )
            ).scalar_one_or_none()
        if content is None:
            raise RuntimeError("the file of the export was removed while it was sent")
        sent, number = sent + len(content), number + 1
        yield content


def remove_expired() -> int:
    """Remove one batch of parts of expired and failed exports, and old exports. Return the number of rows.

    The newest export stays: SQLite would give its id to the next one.
    """
    now = clock.now()
    execute_core(
        update(Export)
        .where(Export.state == ExportState.READY, Export.expires_at <= now)
        .values(state=ExportState.EXPIRED)
    )
    dead = select(Job.id).where(Job.state == JobState.DEAD)
    execute_core(
        update(Export)
        .where(Export.state.in_(OPEN), or_(Export.created_at <= now - LIFETIME, Export.job_id.in_(dead)))
        .values(
            state=ExportState.FAILED,
            finished_at=now,
            problem="No worker could write the file. Ask for a new export; if it fails too, tell an "
            "administrator: GET /jobs names the reason.",
        )
    )
    useless = (
        select(ExportChunk.export_id, ExportChunk.number)
        .join(Export, Export.id == ExportChunk.export_id)
        .where(Export.state.in_((ExportState.EXPIRED, ExportState.FAILED)))
        .limit(BATCH)
    )
    parts = execute_core(useless).all()
    if parts:
        is_useless = [and_(ExportChunk.export_id == part[0], ExportChunk.number == part[1]) for part in parts]
        return execute_core(delete(ExportChunk).where(or_(*is_useless))).rowcount
    newest = select(func.max(Export.id)).scalar_subquery()
    old = delete(Export).where(
        Export.created_at <= now - KEPT,
        Export.id < newest,
        Export.state.in_((ExportState.EXPIRED, ExportState.FAILED)),
    )
    return execute_core(old).rowcount
