"""Open the archive of a workbook: the parts that are needed, with limits on their size.

A zip file can declare any size, and few bytes can become gigabytes. So each part is read up to a limit, and
calamine gets a new archive with these parts only. It never sees a part that was not checked.
"""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from services.spreadsheets.sheet_scan import BadFileError, parse_xml

MAX_ENTRIES = 2_000
MAX_UNPACKED = 160 * 1024 * 1024  # bytes of all parts that are read
WORKBOOK = "xl/workbook.xml"
RELATIONS = "xl/_rels/workbook.xml.rels"
STYLES = "xl/styles.xml"
TEXTS = "xl/sharedStrings.xml"
SAVE_AS = "Open it in a spreadsheet program and save it as .xlsx or .csv."
_DATE_FORMATS = {*range(14, 23), *range(27, 37), 45, 46, 47, *range(50, 59)}  # built-in formats of ECMA-376


@dataclass(frozen=True)
class SheetEntry:
    """A worksheet of the workbook, with the path of its part."""

    name: str
    path: str
    is_visible: bool


@dataclass(frozen=True)
class NumberStyles:
    """The styles of numbers that change their meaning: `date` styles, and digits with leading zeros."""

    dates: frozenset[str]
    padded: Mapping[str, int]


class WorkbookArchive:
    """The parts of a workbook. All methods raise `BadFileError`."""

    def __init__(self, content: bytes) -> None:
        try:
            self._archive = zipfile.ZipFile(BytesIO(content))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError):
            raise damaged() from None
        entries = self._archive.infolist()
        if len(entries) > MAX_ENTRIES:
            raise too_large()
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) != len(entries):
            raise damaged()
        self._left = MAX_UNPACKED
        self._parts: dict[str, bytes] = {}
        self._check_kind()

    def _check_kind(self) -> None:
        if WORKBOOK in self._entries:
            if "xl/vbaProject.bin" in self._entries:
                raise unsupported("a workbook with macros (.xlsm)")
            return
        if "xl/workbook.bin" in self._entries:
            raise unsupported("a binary workbook (.xlsb)")
        if "mimetype" in self._entries and b"opendocument" in self.part("mimetype"):
            raise unsupported("an OpenDocument file (.ods)")
        if any(name.endswith(".iwa") for name in self._entries):
            raise unsupported("a file of Numbers")
        raise unsupported("an archive without a workbook")

    def part(self, name: str) -> bytes:
        """Return the content of a part. An absent part is empty."""
        if name not in self._parts:
            self._parts[name] = self._read(name)
        return self._parts[name]

    def _read(self, name: str) -> bytes:
        entry = self._entries.get(name)
        if entry is None:
            return b""
        if entry.flag_bits & 0x1:
            raise unsupported("encrypted")
        if entry.file_size > self._left:
            raise too_large()
        try:
            with self._archive.open(entry) as stream:
                # zipfile stops at the declared size and compares the checksum
                content = stream.read(self._left + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError):
            raise damaged() from None
        self._left -= len(content)
        if self._left < 0:
            raise too_large()
        return content

    def sheets(self) -> list[SheetEntry]:
        """Return the worksheets in the order of the workbook."""
        paths: dict[str, str] = {}
        entries: list[tuple[str, str, bool]] = []

        def on_relation(name: str, attributes: dict[str, str]) -> None:
            if name == "Relationship" and attributes.get("Type", "").endswith("/worksheet"):
                target = attributes.get("Target", "")
                paths[attributes.get("Id", "")] = posixpath.normpath(posixpath.join("/xl", target))[1:]

        def on_sheet(name: str, attributes: dict[str, str]) -> None:
            if name == "sheet":
                relation = next((attributes[key] for key in attributes if key.endswith(":id")), "")
                entries.append(
                    (attributes.get("name", ""), relation, attributes.get("state", "visible") == "visible")
                )

        parse_xml(self.part(RELATIONS), on_relation)
        parse_xml(self.part(WORKBOOK), on_sheet)
        return [SheetEntry(name, paths[key], visible) for name, key, visible in entries if key in paths]

    def trusts_results(self) -> bool:
        """Return False if the writer of the file did not calculate the formulas.

        Such a writer stores 0 as the result, and asks the spreadsheet program to calculate.
        """
        flags = []
        parse_xml(
            self.part(WORKBOOK),
            lambda name, attributes: (
                flags.append(attributes.get("fullCalcOnLoad", "0")) if name == "calcPr" else None
            ),
        )
        return not any(flag in ("1", "true") for flag in flags)

    def number_styles(self) -> NumberStyles:
        """Return the styles of dates and of numbers with leading zeros."""
        formats: dict[str, str] = {}
        styles: list[str] = []
        in_cell_styles = False

        def on_start(name: str, attributes: dict[str, str]) -> None:
            nonlocal in_cell_styles
            if name == "numFmt":
                formats[attributes.get("numFmtId", "")] = attributes.get("formatCode", "")
            elif name == "xf" and in_cell_styles:
                styles.append(attributes.get("numFmtId", "0"))
            elif name in ("cellXfs", "cellStyles", "cellStyleXfs"):
                in_cell_styles = name == "cellXfs"

        if self.part(STYLES):
            parse_xml(self.part(STYLES), on_start)
        dates, padded = set(), {}
        for index, format_id in enumerate(styles):
            code = formats.get(format_id)
            if _is_date_format(format_id, code):
                dates.add(str(index))
            elif code and len(code) > 1 and not code.strip("0"):
                padded[str(index)] = len(code)
        return NumberStyles(frozenset(dates), padded)

    def repacked(self, sheet: SheetEntry) -> bytes:
        """Return an archive of the checked parts that calamine needs to read one sheet."""
        output = BytesIO()
        with zipfile.ZipFile(output, "w") as archive:
            for name in (
                "_rels/.rels",
                "[Content_Types].xml",
                WORKBOOK,
                RELATIONS,
                STYLES,
                TEXTS,
                sheet.path,
            ):
                if name in self._entries:
                    archive.writestr(name, self.part(name))
        return output.getvalue()


def _is_date_format(format_id: str, code: str | None) -> bool:
    """Return True for the format of a date, of a time, or of both."""
    if code is None:
        return format_id.isdecimal() and int(format_id) in _DATE_FORMATS
    plain, quoted, skipped = [], False, False
    for character in code.split(";")[0]:
        if skipped:
            skipped = False
        elif character == '"':
            quoted = not quoted
        elif character in "\\_*":
            skipped = True
        elif not quoted:
            plain.append(character)
    text = "".join(plain).lower()
    while (start := text.find("[")) >= 0 and (end := text.find("]", start)) >= 0:
        inside = text[start + 1 : end]
        text = text[:start] + (inside if inside and not inside.strip("hms") else "") + text[end + 1 :]
    return "general" not in text and any(letter in text for letter in "ymdhs")


def damaged() -> BadFileError:
    """Return the error for a workbook that breaks the format."""
    return BadFileError("unreadable_file", f"The workbook is damaged. {SAVE_AS}")


def too_large() -> BadFileError:
    """Return the error for a workbook that is too large when it is unpacked."""
    return BadFileError(
        "payload_too_large", "The workbook is too large when it is unpacked. Save only the table as .csv."
    )


def unsupported(kind: str) -> BadFileError:
    """Return the error for another kind of file."""
    return BadFileError("unsupported_file", f"The file is {kind}. {SAVE_AS}")
