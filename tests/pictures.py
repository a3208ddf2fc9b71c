"""`python -m tests.pictures`: make the pictures of docs/ again, from a clinic with invented persons.

`--all FOLDER` writes every page of every document in every language, on A4 and A5, to look at them.
The pictures of a message and of the page for patients need Chromium. Without it, they stay as they are.
"""

from __future__ import annotations

import argparse
import csv
import html
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pypdfium2
import time_machine
from PIL import Image, ImageChops

from enums import MessageChannel, MessageKind
from models import Appointment
from services.documents.language import LANGUAGES
from services.messages import links
from services.messages.rendering import MessageVariables, render
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
    "credit-note": ("long_credit_note", "paper=a5"),
}
PHONE = (390, 640)  # pixels of a telephone
SCREEN = (860, 900)  # pixels of a window of a computer
# A file as clinics have it: a title, Swahili names of columns, a phone as a number, days in local form.
SHEET = [
    ("Wagonjwa 2019", "", "", "", ""),
    ("Na.", "Jina kamili", "Tarehe ya kuzaliwa", "Simu", "Mzio"),
    ("1", "Achieng' Oluoch", "23/05/1990", "0712 345 678", "penicillin"),
    ("2", "Musa Juma", "03/04/1985", "712345679", ""),
    ("3", "", "17/11/2001", "0733 111 222", "sulfa; latex"),
    ("4", "Wanjiru Kamau", "31/02/1999", "0733 111 333", ""),
    ("5", "Otieno Ouma", "#N/A", "0733 111 444", ""),
]
TABLE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; font: 14px/1.6 "Noto Sans", sans-serif; color: #222 }}
table {{ border-collapse: collapse }}
td, th {{ border: 1px solid #c8c8c8; padding: 2px 10px; text-align: left; white-space: nowrap }}
th {{ background: #eee; color: #666; font-weight: normal; text-align: center }}
</style><table>{rows}</table>"""
TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 14px; background: #17212b; color: #e6edf3 }}
pre {{ font: 13px/1.35 "Noto Sans Mono", monospace }}
</style><pre>{text}</pre>"""
MAIL = """<!doctype html><meta charset="utf-8"><style>
body {{ font: 15px/1.5 "Noto Sans", sans-serif; margin: 20px; color: #222 }}
h1 {{ font-size: 20px; margin: 0 }}
.from {{ color: #666; border-bottom: 1px solid #ccc; padding-bottom: 10px }}
pre {{ font: inherit; white-space: pre-wrap; overflow-wrap: anywhere }}
</style><h1>{subject}</h1><p class="from">{sender}<br>to {recipient}</p><pre>{text}</pre>"""


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
        for name, content in _pages_for_patients(clinic).items():
            _photograph(content, FOLDER / f"{name}.png", PHONE)
        for name, content in _pages_of_import(clinic).items():
            _photograph(content, FOLDER / f"{name}.png", SCREEN)


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


def _pages_for_patients(clinic: Clinic) -> dict[str, str]:
    """Return the confirmation e-mail and the page behind its link, as HTML by the name of the picture."""
    patient = clinic.patient(name="Imani Wekesa", email="imani@example.com")["id"]
    start = sample_clinic.TODAY + timedelta(days=4)
    appointment = clinic.appointment(patient_id=patient, date=start.isoformat())["id"]
    with clinic.inside() as session:
        link = links.answer_url(session.get_one(Appointment, appointment)) or ""
        unsubscribe = links.unsubscribe_url(patient, MessageChannel.EMAIL)
        name = sample_clinic.CLINIC["name"]
        variables = MessageVariables(clinic=str(name), start=start, link=link, unsubscribe=unsubscribe)
        mail = render(MessageKind.BOOKED, MessageChannel.EMAIL, "en", variables)
    page = clinic.nobody.get(link.removeprefix(sample_clinic.SETTINGS["public_url"]))
    shown = {
        "subject": mail.subject or "",
        "sender": f"{name} <{sample_clinic.CLINIC['email']}>",
        "recipient": "imani@example.com",
        "text": mail.text,
    }
    escaped = {member: html.escape(value) for member, value in shown.items()}
    return {"confirmation-email": MAIL.format(**escaped), "confirmation-page": page.get_data(as_text=True)}


def _pages_of_import(clinic: Clinic) -> dict[str, str]:
    """Return a messy spreadsheet and its dry run on a terminal, as HTML by the name of the picture."""
    letters = "".join(f"<th>{letter}</th>" for letter in " ABCDE")
    rows = [f"<tr>{letters}</tr>"]
    for number, cells in enumerate(SHEET, 1):
        texts = "".join(f"<td>{html.escape(text)}</td>" for text in cells)
        rows.append(f"<tr><th>{number}</th>{texts}</tr>")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "wagonjwa.csv")
        with file.open("w", newline="", encoding="utf-8") as target:
            csv.writer(target).writerows(SHEET)
        command = [str(file), "--kind", "patients", "--source", "clinic2019", "--date-format", "DD/MM/YYYY"]
        result = clinic.app.test_cli_runner(env={"COLUMNS": "100"}).invoke(args=["import", *command])
    shown = " ".join(["$ flask import", file.name, *command[1:]])
    text = html.escape(f"{shown}\n{result.output}")
    return {
        "import-sheet": TABLE.format(rows="".join(rows)),
        "import-terminal": TERMINAL.format(text=text),
    }


def _photograph(content: str, path: Path, size: tuple[int, int]) -> None:
    """Save the picture of a page in a window of this size, without its empty lower part."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print(f"{path.name}: NOT MADE, there is no Chromium on this machine")
        return
    with tempfile.TemporaryDirectory() as folder:
        page, picture = Path(folder, "page.html"), Path(folder, "page.png")
        page.write_text(content, encoding="utf-8")
        window = f"--window-size={size[0]},{size[1]}"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", window]
        command = [browser, *options, f"--user-data-dir={folder}/profile", f"--screenshot={picture}"]
        subprocess.run([*command, page.as_uri()], check=True, capture_output=True, timeout=120)
        with Image.open(picture) as image:
            _save(_trimmed(image.convert("RGB")), path)


def _trimmed(picture: Image.Image) -> Image.Image:
    """Return the picture without the part at its right and its end that has one colour."""
    background = Image.new("RGB", picture.size, picture.getpixel((picture.width - 1, picture.height - 1)))
    box = ImageChops.difference(picture, background).getbbox() or (0, 0, *picture.size)
    return picture.crop((0, 0, min(picture.width, box[2] + 14), min(picture.height, box[3] + 14)))


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
