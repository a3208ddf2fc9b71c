"""Pictures for tests."""

from __future__ import annotations

from io import BytesIO

from PIL import Image


def small_png(size: tuple[int, int] = (8, 6), mode: str = "RGB") -> bytes:
    """Return a PNG of one colour."""
    file = BytesIO()
    Image.new(mode, size, 3 if mode in ("L", "P") else None).save(file, "PNG")
    return file.getvalue()
