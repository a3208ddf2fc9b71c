"""The format of a request body: its media types and its largest size."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from urllib.parse import parse_qsl

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import MultiPartParser

from errors import ClinicError

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
FILE = "file"  # the part of a multipart body that holds the file
MAX_FORM_FIELDS = 100
MAX_FORM_BYTES = 256 * 1024  # of the fields of a multipart form, without the file
# A list of our own: Python has codecs that are no charsets of forms, and remembers every unknown name.
FORM_CHARSETS = ("utf-8", "utf8", "us-ascii", "iso-8859-1", "latin1", "iso-8859-15", "windows-1252")


@dataclass(frozen=True)
class BodyFormat:
    """The media types that an endpoint accepts, and the largest size of its body in bytes.

    JSON and forms are decoded into the members of a body. A multipart form also has one file, which is passed
    to the method as `upload`. The content of every other media type is passed to it as it was sent.
    """

    media_types: tuple[str, ...]
    limit: int

    @property
    def has_members(self) -> bool:
        """Return True for JSON and forms."""
        return self.has_file or not {"application/json", FORM}.isdisjoint(self.media_types)

    @property
    def has_file(self) -> bool:
        """Return True for a multipart form with a file."""
        return self.media_types == (MULTIPART,)

    def accepts(self, media_type: str) -> bool:
        """Return True for one of the media types. JSON includes the types that end in `+json`."""
        return media_type in self.media_types or (
            media_type.endswith("+json") and "application/json" in self.media_types
        )

    def size(self) -> str:
        """Return the largest size as text with its unit."""
        if self.limit % 1024**2 == 0:
            return f"{self.limit // 1024**2} MiB"
        return f"{self.limit // 1024} KiB" if self.limit % 1024 == 0 else f"{self.limit // 1000} kB"


@dataclass(frozen=True)
class Upload:
    """The file of a multipart form, with the name that the client gave it."""

    name: str
    content: bytes


JSON = BodyFormat(("application/json",), 256 * 1024)


def decode_form(body: bytes, charset: str = "utf-8") -> dict[str, str]:
    """Return the fields of a form, or raise 400 `bad_request` for a form that cannot be read.

    `charset` is the declared one. Gateways of SMS still use Latin-1.
    """
    unreadable = ClinicError(
        "bad_request",
        f"Send a form with at most {MAX_FORM_FIELDS} fields in UTF-8, or in the charset of its Content-Type, "
        f"which is one of: {', '.join(FORM_CHARSETS)}.",
    )
    if charset.lower() not in FORM_CHARSETS:
        raise unreadable
    try:
        fields = parse_qsl(
            body.decode("ascii"),
            encoding=charset,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_FORM_FIELDS,
        )
    except ValueError:  # also UnicodeDecodeError
        raise unreadable from None
    return _once(fields)


def _once(fields: list[tuple[str, str]]) -> dict[str, str]:
    members = dict(fields)
    if len(members) < len(fields):
        raise ClinicError("bad_request", "Send each field of the form once.")
    return members


def _open_in_memory(*_args: object, **_options: object) -> BytesIO:
    return BytesIO()  # the body is in memory already


def decode_multipart(body: bytes, boundary: str) -> tuple[dict[str, str], Upload]:
    """Return the fields of a multipart form and its file, or raise 400 `bad_request`."""
    parser = MultiPartParser(
        _open_in_memory, max_form_memory_size=MAX_FORM_BYTES, max_form_parts=MAX_FORM_FIELDS
    )
    try:
        form, files = parser.parse(BytesIO(body), boundary.encode("ascii"), len(body))
    except (ValueError, RequestEntityTooLarge):  # also UnicodeEncodeError
        raise ClinicError(
            "bad_request",
            f"Send a multipart form with a boundary, one file, and at most {MAX_FORM_FIELDS} short fields.",
        ) from None
    parts = list(files.items(multi=True))
    if len(parts) != 1 or parts[0][0] != FILE:
        raise ClinicError("bad_request", f"Send exactly one file, as the part {FILE!r}.")
    part = parts[0][1]
    return _once(list(form.items(multi=True))), Upload(part.filename or "", part.stream.read())
