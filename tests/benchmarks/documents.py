"""Pages of PDF documents a second, and the memory: `python -m tests.benchmarks.documents DOCUMENTS`.

One worker of the server sets every kind of document in all languages, for one client at a time.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from pathlib import Path

import pypdfium2
import requests
import time_machine

from services.documents.language import LANGUAGES
from tests.conftest import settings_for
from tests.support import sample_clinic
from tests.support.clinic import Clinic
from tests.support.database import migrate
from tests.support.keys import secrets_of
from tests.support.servers import AppServer, start_app, start_postgres


def measure(url: str, count: int) -> dict[str, float]:
    """Return pages a second, the slowest document in milliseconds, and resident megabytes."""
    migrate(url)
    settings = settings_for(url, **sample_clinic.SETTINGS)
    with time_machine.travel(sample_clinic.TODAY, tick=False):
        clinic = Clinic(settings)
        paths = sample_clinic.fill(clinic)
    token = clinic.sign_in("admin").token
    clinic.close()
    environment = {name.upper(): str(value) for name, value in sample_clinic.SETTINGS.items()}
    server = start_app(url, workers=1, env=secrets_of(settings) | environment)
    try:
        return _get_all(server, list(paths.values()), count, {"Authorization": f"Bearer {token}"})
    finally:
        server.stop()


def _get_all(server: AppServer, paths: list[str], count: int, headers: dict[str, str]) -> dict[str, float]:
    queries = itertools.cycle(
        f"{path}&locale={locale}&paper={paper}"
        for locale, paper, path in itertools.product(LANGUAGES, ("a4", "a5"), paths)
    )
    pages, slowest, memory = 0, 0.0, [0.0]
    session = requests.Session()
    session.headers.update(headers)
    session.get(server.url + next(queries), timeout=60).raise_for_status()  # the first one reads the fonts
    elapsed = 0.0
    for number, query in enumerate(itertools.islice(queries, count), 1):
        started = time.perf_counter()
        response = session.get(server.url + query, timeout=60)
        seconds = time.perf_counter() - started
        response.raise_for_status()
        elapsed, slowest = elapsed + seconds, max(slowest, seconds)
        pages += len(pypdfium2.PdfDocument(response.content))
        if number % (count // 10) == 0:
            memory.append(server.resident_bytes() / 1e6)
    return {
        "pages_per_second": round(pages / elapsed, 1),
        "pages": pages,
        "slowest_ms": round(slowest * 1000),
        "first_tenth_mb": round(memory[1], 1),
        "end_mb": round(memory[-1], 1),
    }


def main() -> None:
    """Measure both engines, on disk."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    server = start_postgres(durable=True)
    with tempfile.TemporaryDirectory(prefix="clinic-documents-") as folder:
        try:
            print("postgresql", measure(server.create(), count), flush=True)
            print("sqlite", measure(f"sqlite:///{Path(folder, 'clinic.db')}", count), flush=True)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
