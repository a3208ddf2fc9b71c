"""The format of a request body: its media types and its largest size."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl

from errors import ClinicError

FORM = "application/x-www-form-urlencoded"
MAX_FORM_FIELDS = 100
# A list of our own: Python has codecs that are no charsets of forms, and remembers every unknown name.
FORM_CHARSETS = ("utf-8", "utf8", "us-ascii", "iso-8859-1", "latin1", "iso-8859-15", "windows-1252")


@dataclass(frozen=True)
class BodyFormat:
    """The media types that an endpoint accepts, and the largest size of its body in bytes.

    JSON and forms are decoded into the members of a body. The content of every other media type is passed to
    the method as it was sent.
    """

    media_types: tuple[str, ...]
    limit: int

    @property
    def has_members(self) -> bool:
        """Return True for JSON and forms."""
        return not {"application/json", FORM}.isdisjoint(self.media_types)

    def accepts(self, media_type: str) -> bool:
        """Return True for one of the media types. JSON includes the types that end in `+json`."""
        return media_type in self.media_types or (
            media_type.endswith("+json") and "application/json" in self.media_types
        )

    def size(self) -> str:
        """Return the largest size as text with its unit."""
        return f"{self.limit // 1024} KiB" if self.limit % 1024 == 0 else f"{self.limit // 1000} kB"


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
    members = dict(fields)
    if len(members) < len(fields):
        raise ClinicError("bad_request", "Send each field of the form once.")
    return members
