"""Documents, read by programs of other projects, and the memory of a server that sets many of them.

Only on the long level. It installs Debian packages, as root. Without them and a network it fails.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import time_machine

from services.documents.language import LANGUAGES
from tests.conftest import NewDatabase, settings_for
from tests.robustness import document_readers
from tests.robustness.conftest import Figures
from tests.robustness.load_level import selected_level
from tests.support import sample_clinic
from tests.support.clinic import Clinic
from tests.support.pdf import missing_part, parts_of

__test__ = selected_level().long

DOCUMENTS = 1_000
WARM_UP = 200  # until the allocator has all that it needs
MAX_GROWTH = 1.1  # of the memory after the warm-up
WITH_CODE = ("invoice", "receipt", "payment_receipt", "credit_note", "sick_note", "referral", "certificate")


@pytest.fixture
def sample(new_database: NewDatabase) -> Iterator[tuple[Clinic, dict[str, str]]]:
    """Yield an invented clinic, and the paths of its documents."""
    with time_machine.travel(sample_clinic.TODAY, tick=False):
        clinic = Clinic(settings_for(new_database("sqlite"), **sample_clinic.SETTINGS))
        yield clinic, sample_clinic.fill(clinic)
        clinic.close()


@pytest.mark.parametrize(
    ("locale", "paper"), list(zip(LANGUAGES, itertools.cycle(("a4", "a5")), strict=False))
)
def test_other_programs_read_each_document(
    sample: tuple[Clinic, dict[str, str]], locale: str, paper: str, tmp_path: Path
) -> None:
    document_readers.install()
    clinic, paths = sample
    problems = []
    for name, path in paths.items():
        response = clinic.admin.get(f"{path}&locale={locale}&paper={paper}")
        file = tmp_path / f"{name}.pdf"
        file.write_bytes(response.get_data())
        document_readers.check_structure(file)
        text = document_readers.text_of(file)
        if missing := missing_part(text, parts_of(clinic.admin, path, locale)):
            problems.append((file.name, missing))
        if name.removeprefix("long_") in WITH_CODE:
            codes = document_readers.codes_of(file)
            if len(codes) != 1 or not codes[0].startswith(f"{sample_clinic.SETTINGS['public_url']}/v/"):
                problems.append((file.name, str(codes)))

    assert problems == []


def test_the_memory_stays_flat(sample: tuple[Clinic, dict[str, str]], figures: Figures) -> None:
    clinic, paths = sample
    queries = itertools.cycle(
        f"{path}&locale={locale}" for path, locale in itertools.product(paths.values(), LANGUAGES)
    )
    process, memory = psutil.Process(), []
    for number, query in enumerate(itertools.islice(queries, DOCUMENTS), 1):
        assert clinic.admin.get(query).status_code == 200
        if number % WARM_UP == 0:
            memory.append(process.memory_info().rss)
    figures["memory after 200 and 1,000 documents, MB"] = [memory[0] // 10**6, memory[-1] // 10**6]

    assert memory[-1] <= memory[0] * MAX_GROWTH
