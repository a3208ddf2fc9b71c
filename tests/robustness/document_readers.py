"""Programs of other projects that read PDF documents: qpdf, pdftotext, and zbarimg for QR codes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

# program -> its Debian package
PACKAGES = {
    "qpdf": "qpdf",
    "pdftotext": "poppler-utils",
    "pdftoppm": "poppler-utils",
    "zbarimg": "zbar-tools",
}
RESOLUTION = 150  # dots per inch, as of a photograph of the page


def install() -> None:
    """Install the missing programs, as root on Debian. Others get an error that names the packages."""
    missing = sorted({package for program, package in PACKAGES.items() if shutil.which(program) is None})
    if not missing:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if os.geteuid() != 0:
        raise RuntimeError(f"Install the programs first: sudo {' '.join(command)}")
    subprocess.run(["apt-get", "update"], check=True, capture_output=True)
    subprocess.run(command, check=True, capture_output=True)


def check_structure(document: Path) -> None:
    """Raise an error if qpdf finds a fault, or repairs one, in the structure of a document."""
    subprocess.run(["qpdf", "--check", str(document)], check=True, capture_output=True)  # a warning is 3


def text_of(document: Path) -> str:
    """Return the text of a document, in the order in which pdftotext reads it."""
    result = subprocess.run(["pdftotext", str(document), "-"], check=True, capture_output=True)
    return result.stdout.decode()


def codes_of(document: Path) -> list[str]:
    """Return the contents of the QR codes on the pages of a document, read from their pictures."""
    prefix = document.with_suffix("")
    subprocess.run(["pdftoppm", "-r", str(RESOLUTION), "-png", str(document), str(prefix)], check=True)
    codes: list[str] = []
    for picture in sorted(document.parent.glob(f"{prefix.name}-*.png")):
        result = subprocess.run(
            ["zbarimg", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", str(picture)],
            check=False,  # a page without a code is an error for zbarimg
            capture_output=True,
        )
        codes += result.stdout.decode().split()
        picture.unlink()
    return codes
