"""Files of lists in LibreOffice: it opens every XLSX file, and saves the same values.

Only on the long level. They need the Debian package libreoffice-calc-nogui, and fail without it.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

from python_calamine import CalamineWorkbook

from tests.api.test_list_files import Table, flat, in_sheet, lists, members_of, path_of
from tests.robustness.load_level import selected_level
from tests.support.clinic import Clinic
from tests.support.furnished import furnish

__test__ = selected_level().long

HARD_PATIENTS = [
    {
        "name": "=HYPERLINK(A1)",
        "phone": "0712345678",
        "date_of_birth": "1899-12-31",
        "email": "a@example.com",
    },
    {"name": "@SUM(1+1)", "phone": "+254 712 345 678", "date_of_birth": "1900-02-28"},
    {"name": "محمد عبد الله", "file_number": "000123", "date_of_birth": "1900-03-01"},
    {"name": "王芳", "file_number": "1E5", "address": "12/3\n\tHarbour Road", "date_of_birth": "1984"},
]


def saved_by_libreoffice(contents: dict[str, bytes], folder: Path) -> dict[str, Table]:
    """Let LibreOffice open XLSX files and save them. Return their first sheets by name."""
    program = shutil.which("soffice")
    assert program is not None, "soffice is not installed: apt-get install libreoffice-calc-nogui"
    source, target = folder / "source", folder / "target"
    source.mkdir()
    for name, content in contents.items():
        (source / f"{name}.xlsx").write_bytes(content)
    profile = f"-env:UserInstallation=file://{folder / 'profile'}"
    command = [program, profile, "--headless", "--convert-to", "xlsx", "--outdir", str(target)]
    subprocess.run([*command, *map(str, source.iterdir())], check=True, capture_output=True, timeout=600)
    return {
        name: CalamineWorkbook.from_filelike(io.BytesIO((target / f"{name}.xlsx").read_bytes()))
        .get_sheet_by_index(0)
        .to_python()
        for name in contents
    }


def test_libreoffice_reads_every_list_as_its_json(clinic: Clinic, tmp_path: Path) -> None:
    rows = furnish(clinic)
    for members in HARD_PATIENTS:
        clinic.patient(**members)
    clinic.bill("9999999999.99")
    files, expected = {}, {}
    for number, endpoint in enumerate(lists(clinic)):
        path = path_of(endpoint, rows)
        shown = members_of(endpoint, clinic.admin.get(path))
        ids = "&".join(f"id={row['id']}" for row in shown)
        files[str(number)] = clinic.admin.get(f"{path}?{ids}&format=xlsx").get_data()
        expected[str(number)] = (path, [flat(row) for row in shown])

    sheets = saved_by_libreoffice(files, tmp_path)

    for name, (header, *lines) in sheets.items():
        path, members = expected[name]
        assert len(lines) == len(members) > 0, path
        wrong = [
            (heading, cell, row.get(heading))
            for line, row in zip(lines, members, strict=True)
            for heading, cell in zip(header, line, strict=True)
            if not in_sheet(cell, row.get(heading))
        ]
        assert not wrong, (path, wrong)
