"""`python -m tests.pictures`: make the pictures of docs/ again, from a clinic with invented persons.

`--all FOLDER` writes every page of every document in every language, on A4 and A5, to look at them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pypdfium2
import time_machine
from PIL import Image

from services.documents.language import LANGUAGES
from tests.conftest import settings_for
from tests.support import sample_clinic
from tests.support.clinic import Clinic
from tests.support.database import migrate
from tests.support.servers import ROOT

FOLDER = ROOT / "docs" / "pictures"
COLOURS = 32  # of a picture: a page has few colours, and the file stays small
# name of a picture -> name of its document, and the query
PICTURES = {
    "invoice": ("invoice", "paper=a5&locale=sw"),
    "receipt": ("receipt", "paper=a5"),
    "prescription": ("prescription", "paper=a5"),
    "sick-note": ("sick_note", "paper=a5"),
    "report": ("report", "paper=a4"),
}


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="write every page to look at it")
    folder = parser.parse_args().all
    with sample() as (clinic, paths):
        if folder is not None:
            _write_all(clinic, paths, folder)
            return
        FOLDER.mkdir(exist_ok=True)
        for name, (document, query) in PICTURES.items():
            page = next(_pages(clinic, f"{paths[document]}&{query}", scale=1.45))
            _save(page, FOLDER / f"{name}.png")


@contextmanager
def sample() -> Iterator[tuple[Clinic, dict[str, str]]]:
    """Yield the invented clinic with the paths of its documents, on an SQLite database in a new folder."""
    with (
        tempfile.TemporaryDirectory() as folder,
        time_machine.travel(sample_clinic.TODAY, tick=False),
    ):
        url = f"sqlite:///{Path(folder, 'clinic.db')}"
        migrate(url)
        clinic = Clinic(settings_for(url, **sample_clinic.SETTINGS))
        yield clinic, sample_clinic.fill(clinic)
        clinic.close()


def _pages(clinic: Clinic, path: str, *, scale: float) -> Iterator[Image.Image]:
    response = clinic.admin.get(path)
    if response.status_code != 200:
        raise SystemExit(f"{path}: {response.get_data(as_text=True)}")
    for page in pypdfium2.PdfDocument(response.get_data()):
        yield page.render(scale=scale).to_pil()


def _save(picture: Image.Image, path: Path) -> None:
    file = BytesIO()
    picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=COLOURS).save(file, "PNG", optimize=True)
    path.write_bytes(file.getvalue())
    print(f"{path.name}: {len(file.getvalue()) // 1000} kB")


def _write_all(clinic: Clinic, paths: dict[str, str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in paths.items():
        for locale in LANGUAGES:
            for paper in ("a4", "a5"):
                pages = _pages(clinic, f"{path}&locale={locale}&paper={paper}", scale=1)
                for number, page in enumerate(pages, 1):
                    page.save(folder / f"{name}-{locale}-{paper}-{number}.png")


if __name__ == "__main__":
    main()
