"""Documents as PDF: a template and its data, set by typst.

The data reaches the template as JSON through `sys.inputs`. No part of it is read as markup. The export is
strict (PDF/UA-1): a character without glyph is an error and not an empty box. The same data gives the same
bytes.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import ROOT, settings
from errors import ClinicError
from lazy_imports import LazyModule

if TYPE_CHECKING:
    import typst
else:
    typst = LazyModule("typst")

TEMPLATES = Path(__file__).parent / "templates"
FONTS = ROOT / "data" / "fonts"
MAX_NAMED = 20  # texts without glyph that an error names
_WITHOUT_GLYPH = re.compile(r'the text `"(.+?)"` could not be displayed', re.DOTALL)
_ESCAPE = re.compile(r"\\u\{([0-9a-f]+)\}")
# PDF/UA forbids the byte order mark inside a text. Unicode names the word joiner as its replacement there:
# it has no width either (https://www.unicode.org/faq/utf_bom.html#bom6).
_BYTE_ORDER_MARK, _WORD_JOINER = "\ufeff", "\u2060"
_compilers = threading.local()  # a compiler keeps the data of its last document, so each thread has its own


def typeset(template: str, data: Mapping[str, Any]) -> bytes:
    """Return the document of a template, such as `invoice`, as PDF.

    Raise 422 `unprintable_characters`, which names the characters that no font has.
    """
    source = json.dumps({**data, "fonts": _families()}, ensure_ascii=False)
    source = source.replace(_BYTE_ORDER_MARK, _WORD_JOINER)
    missing: list[str] = []
    while len(missing) < MAX_NAMED:
        try:
            document = _compile(template, source)
        except typst.TypstError as error:
            match = _WITHOUT_GLYPH.search(error.message)
            if match is None:
                raise
            characters = _ESCAPE.sub(lambda code: chr(int(code[1], 16)), match[1])
            missing.append(_visible(characters))
            source = source.replace(
                json.dumps(characters, ensure_ascii=False)[1:-1], ""
            )  # to find the next one
        else:
            if not missing:
                return document
            break
    raise ClinicError(
        "unprintable_characters",
        f"No font has these characters: {' '.join(missing)}. Change the text, or ask the operator to add a "
        "font in FONT_PATHS.",
    )


def _visible(characters: str) -> str:
    """Return characters for an error. Those that a screen does not show are code points such as U+0007."""
    return characters if characters.isprintable() else " ".join(f"U+{ord(each):04X}" for each in characters)


def _compile(template: str, source: str) -> bytes:
    compiler: typst.Compiler | None = getattr(_compilers, "compiler", None)
    if compiler is None:
        fonts = typst.Fonts(False, False, _font_paths())
        compiler = _compilers.compiler = typst.Compiler(font_paths=fonts, root=TEMPLATES)
    return compiler.compile(  # type: ignore[return-value]  # a PDF is one file
        TEMPLATES / f"{template}.typ",
        format="pdf",
        sys_inputs={"data": source},
        pdf_standards=["ua-1"],
        timestamp=0,  # no time of creation: it would change the bytes
    )


def _font_paths() -> list[Path]:
    return [FONTS, *settings().font_paths]


@cache
def _families() -> list[str]:
    """Return the families of the fonts: the shipped ones first, then those of FONT_PATHS.

    The first font that has a character sets it.
    """
    shipped = typst.Fonts(False, False, [FONTS]).families()
    further = typst.Fonts(False, False, _font_paths()).families()
    latin_first = sorted(shipped, key=lambda family: (family != "Noto Sans", family))
    return [*latin_first, *(family for family in further if family not in shipped)]
