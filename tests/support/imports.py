"""Imports of spreadsheets through the API, with a worker that runs their jobs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from services.jobs.worker import Worker
from tests.support.clinic import Caller


def csv_file(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return a CSV file in UTF-8."""
    output = io.StringIO()
    csv.writer(output).writerows([header, *rows])
    return output.getvalue().encode()


def send_file(caller: Caller, content: bytes, *, name: str = "patients.csv", **fields: Any) -> Any:
    """Send `POST /imports` and return the response."""
    form = {"kind": "patients", "source": "clinic2019"} | fields
    if isinstance(form.get("mapping"), Mapping):
        form["mapping"] = json.dumps(form["mapping"])
    return caller.post("/imports", data={**form, "file": (io.BytesIO(content), name)})


def upload(caller: Caller, content: bytes, **fields: Any) -> dict[str, Any]:
    """Upload a file and return the import. The test fails if it is refused."""
    response = send_file(caller, content, **fields)
    assert response.status_code == 201, response.get_data(as_text=True)
    row: dict[str, Any] = response.get_json()
    return row


def work(caller: Caller) -> None:
    """Run all jobs that are due."""
    Worker(caller.clinic.app.app_context, once=True).run()


def show(caller: Caller, import_id: int) -> dict[str, Any]:
    """Return the import."""
    row: dict[str, Any] = caller.get(f"/imports/{import_id}").get_json()
    return row


def dry_run(caller: Caller, import_id: int) -> dict[str, Any]:
    """Make the dry run, and return the import."""
    response = caller.post(f"/imports/{import_id}/dry-run")
    assert response.status_code == 202, response.get_data(as_text=True)
    work(caller)
    return show(caller, import_id)


def apply(caller: Caller, row: Mapping[str, Any]) -> dict[str, Any]:
    """Apply the result of the dry run, and return the import."""
    response = caller.post(f"/imports/{row['id']}/apply", {"digest": row["digest"]})
    assert response.status_code == 202, response.get_data(as_text=True)
    work(caller)
    return show(caller, row["id"])


def undo(caller: Caller, import_id: int) -> dict[str, Any]:
    """Undo the import, and return it."""
    response = caller.post(f"/imports/{import_id}/undo")
    assert response.status_code == 202, response.get_data(as_text=True)
    work(caller)
    return show(caller, import_id)


def run(caller: Caller, content: bytes, **fields: Any) -> dict[str, Any]:
    """Upload a file, make the dry run and apply it. Return the import."""
    return apply(caller, dry_run(caller, upload(caller, content, **fields)["id"]))


def problems(caller: Caller, import_id: int) -> dict[int, list[tuple[str, str]]]:
    """Return number of the row -> members and codes of its problems."""
    rows = caller.get(f"/imports/{import_id}/rows?per_page=1000").get_json()
    return {
        row["number"]: [(problem["field"], problem["code"]) for problem in row["problems"]]
        for row in rows
        if row["problems"]
    }
