"""A writer of SVG drawings: no script, no style sheet, no font file, and the same bytes for the same data.

All looks are presentation attributes, because the content security policy of the API refuses styles.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

MEDIA_TYPE = "image/svg+xml"

INK = "#1f2933"  # texts and values
QUIET = "#52606d"  # labels of axes: contrast 6.4 with white (WCAG 2.2, 1.4.3 asks for 4.5)
GRID = "#d5dbe1"
PAPER = "#ffffff"
ACCENT = "#0b6e6e"
SECOND = "#b7dada"
# Sizes of texts. A drawing of 600 pixels is about 390 wide on a phone and 118 mm on A5: 16 is then 9 points.
SIZE, SMALL = 16, 14

Anchor = Literal["start", "middle", "end"]

_FONTS = "Noto Sans, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif"
# Mean width of a character in units of the font size, for texts that must fit into a space.
_CHARACTER_WIDTH = 0.56


class Drawing:
    """A drawing of fixed width and height in pixels, with a title and a description for screen readers."""

    def __init__(self, width: int, height: int, *, title: str, description: str) -> None:
        self.width, self.height = width, height
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" aria-labelledby="title description" '
            f"font-family={quoteattr(_FONTS)}>",
            f'<title id="title">{_text(title)}</title>',
            f'<desc id="description">{_text(description)}</desc>',
        ]
        self.rectangle(0, 0, width, height, fill=PAPER)

    def rectangle(
        self, x: float, y: float, width: float, height: float, *, fill: str, stroke: str | None = None
    ) -> None:
        """Add a rectangle. Negative sizes do not exist: the caller orders the corners."""
        outline = f' stroke="{stroke}"' if stroke else ""
        self._parts.append(
            f'<rect x="{_number(x)}" y="{_number(y)}" width="{_number(width)}" height="{_number(height)}" '
            f'fill="{fill}"{outline}/>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, *, stroke: str = GRID) -> None:
        """Add a line of one pixel."""
        self._parts.append(
            f'<path d="M{_number(x1)} {_number(y1)}L{_number(x2)} {_number(y2)}" stroke="{stroke}"/>'
        )

    def curve(self, points: Sequence[tuple[float, float]], *, stroke: str, dashed: bool = False) -> None:
        """Add straight lines from point to point, two pixels wide."""
        path = "L".join(f"{_number(x)} {_number(y)}" for x, y in points)
        dashes = ' stroke-dasharray="6 4"' if dashed else ""
        self._parts.append(f'<path d="M{path}" fill="none" stroke="{stroke}" stroke-width="2"{dashes}/>')

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = SIZE,
        fill: str = INK,
        anchor: Anchor = "start",
        bold: bool = False,
    ) -> None:
        """Add a text whose base line is at `y`."""
        weight = ' font-weight="600"' if bold else ""
        # The direction of a name in Arabic or Hebrew must not move the text: the anchor is physical here.
        self._parts.append(
            f'<text x="{_number(x)}" y="{_number(y)}" font-size="{size}" fill="{fill}" '
            f'text-anchor="{anchor}"{weight}>{_text(text)}</text>'
        )

    def content(self) -> bytes:
        """Return the drawing as an SVG document in UTF-8."""
        return "\n".join([*self._parts, "</svg>", ""]).encode()


def text_width(text: str, *, size: int = SIZE) -> float:
    """Return the approximate width of a text in pixels."""
    return len(text) * size * _CHARACTER_WIDTH


def shortened(text: str, width: float, *, size: int = SIZE) -> str:
    """Return a text that is about `width` pixels wide at most, with an ellipsis where it was cut."""
    if text_width(text, size=size) <= width:
        return text
    return text[: max(0, int(width / (size * _CHARACTER_WIDTH)) - 1)].rstrip() + "…"


def lines_of(text: str, width: float, *, size: int = SIZE) -> list[str]:
    """Return the lines of a text that are about `width` pixels wide at most."""
    return textwrap.wrap(text, max(1, int(width / (size * _CHARACTER_WIDTH))))


def _number(value: float) -> str:
    """Return a coordinate with at most two places."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _text(text: str) -> str:
    """Return a text as XML, without the characters that XML 1.0 forbids (section 2.2)."""
    return escape(
        "".join(character for character in text if character >= " " and character not in "\ufffe\uffff")
    )
