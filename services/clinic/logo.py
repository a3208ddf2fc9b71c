"""The logo of the clinic: a small PNG, written again so that nothing but its pixels is stored."""

from __future__ import annotations

import hashlib
import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING

from errors import ClinicError, invalid, not_found
from lazy_imports import LazyModule
from models import ClinicRecord
from services.clinic import versions

if TYPE_CHECKING:
    from PIL import Image
else:
    Image = LazyModule("PIL.Image")

MAX_BYTES = 200_000
MAX_SIDE = 2_000  # pixels; a small file may describe an image of many gigabytes
_SIGNATURE = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"  # and the first chunk, which begins with the size
_SIZE = struct.Struct(">II")
DAMAGES = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
_KEPT_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


def logo_of(record: ClinicRecord) -> bytes:
    """Return the logo, or raise 404."""
    if record.logo is None:
        raise not_found("logo")
    return record.logo


def set_logo(record: ClinicRecord, content: bytes) -> ClinicRecord:
    """Store a PNG as the logo. Raises 422 for another file, and 413 for one that is too large afterwards."""
    logo = _write_again(content)
    if len(logo) > MAX_BYTES:
        raise ClinicError(
            "payload_too_large", f"The image needs more than {MAX_BYTES // 1000} kB. Send a smaller one."
        )
    digest = hashlib.sha256(logo).hexdigest()
    if digest != record.logo_hash:
        record.logo, record.logo_hash = logo, digest
        versions.append(record)
    return record


def remove_logo(record: ClinicRecord) -> ClinicRecord:
    """Remove the logo, if there is one."""
    if record.logo_hash is not None:
        record.logo = record.logo_hash = None
        versions.append(record)
    return record


def _write_again(content: bytes) -> bytes:
    """Return a PNG with the same pixels, without metadata and without data after the image."""
    if not content.startswith(_SIGNATURE) or len(content) < len(_SIGNATURE) + _SIZE.size:
        raise invalid("logo", "send a PNG image")
    width, height = _SIZE.unpack_from(content, len(_SIGNATURE))
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise invalid("logo", f"send an image of at most {MAX_SIDE} x {MAX_SIDE} pixels")
    try:
        with Image.open(BytesIO(content), formats=("PNG",)) as image:
            if image.size != (width, height):  # a second header
                raise ValueError(image.size)
            image.verify()  # the checksums; an image must be opened again afterwards
        with Image.open(BytesIO(content), formats=("PNG",)) as image:
            pixels = image.copy() if image.mode in _KEPT_MODES else _to_8_bits(image)
    except (*DAMAGES, Image.DecompressionBombError):
        raise invalid("logo", "the PNG image is damaged; export it again") from None
    # the information about an image also has texts and the colour profile
    pixels.info = {name: value for name, value in pixels.info.items() if name == "transparency"}
    output = BytesIO()
    pixels.save(output, "PNG")
    return output.getvalue()


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Return a grey image of 16 bits with 8 bits. Pillow itself would make most of it white."""
    return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
