"""Make active HTML in free text inert. No text is deleted, and all other text is unchanged.

Clinicians write ``BP <120/80 & HR >60``, ``if x<y then a>b``, ``5mg/kg <q6h> prn`` and ``<video visit>``.
HTML sanitisers read these as markup. They drop or re-encode parts of them, which changes the medical record.
This module inserts a space after the ``<`` of markup that a browser could execute: ``< video visit>``. A
parser reads ``<`` before a space as text. Without the inserted spaces, the result is the input.

Active markup gets the space:

* Elements that run, load, embed, submit, or change how the parser continues (``ACTIVE_ELEMENTS``), and their
  closing tags. They need no closing ``>``, because the text after them may contain one.
* Tags of any name with an event handler, a loading attribute (``ACTIVE_ATTRIBUTES``) or a ``javascript:``
  value. If such a tag is complete, bleach parses it and decides which attributes it has.
* Comments, CDATA, document types and processing instructions.

Inert text stays byte for byte: ``<b>bold</b>``, ``List<int>``, ``<j.doe@clinic.org>``, ``x<b and c>d``,
entities (``A&lt;script&gt;`` is neither decoded nor encoded), and ``javascript:`` outside a tag. Output in
HTML, CSV or PDF still has to be escaped: this module is the second line of defence.

Each ``<`` is checked as if a parser were in its initial state, whatever the text before it is. A tag that is
not complete is assumed to extend as far as any parser might read it. So the result does not depend on the
state of a parser or on how it handles broken markup. The cost is false positives: a letter directly after
``<`` and ``onset=`` before the next ``>`` count as an event handler.
Sources: the tokenizer of the WHATWG HTML standard, section 13.2.5; the OWASP XSS filter evasion cheat sheet.
"""

import html
import itertools
import re
from bisect import bisect_left, bisect_right

from bleach.sanitizer import Cleaner

_SCRIPT_ELEMENTS = {"applet", "math", "meta", "script", "svg", "xml"}
_LOADING_ELEMENTS = {
    *(
        "audio",
        "base",
        "bgsound",
        "embed",
        "fencedframe",
        "frame",
        "iframe",
        "ilayer",
        "img",
        "layer",
        "link",
    ),
    *("object", "portal", "style", "video"),
}
_INPUT_ELEMENTS = {"button", "form", "input", "isindex", "keygen", "select", "textarea"}
# These elements change how a parser reads the text after them.
_PARSER_ELEMENTS = {
    *("frameset", "listing", "marquee", "noembed", "noframes", "noscript", "plaintext", "template", "title"),
    "xmp",
}

ACTIVE_ELEMENTS = frozenset(_SCRIPT_ELEMENTS | _LOADING_ELEMENTS | _INPUT_ELEMENTS | _PARSER_ELEMENTS)

_URL_ATTRIBUTES = {"background", "dynsrc", "href", "imagesrcset", "lowsrc", "ping", "poster", "src", "srcset"}
_OTHER_ATTRIBUTES = {"classid", "codebase", "datasrc", "formaction", "manifest", "srcdoc", "style", "xmlns"}
ACTIVE_ATTRIBUTES = frozenset(_URL_ATTRIBUTES | _OTHER_ATTRIBUTES)

_SCRIPT_SCHEMES = ("javascript:", "vbscript:", "livescript:", "data:text/html", "data:image/svg")

# Characters of a value that are searched for a scheme. Blanks and character references can make "javascript:"
# longer. Loading attributes are active with every value, so this limits the work and not the safety.
_SCHEME_WINDOW = 256

_OPENING = re.compile(
    r"<(?:(?P<section>!--|!\[|!doctype|!(?:element|entity|attlist|notation)\b|\?(?:xml|php))"
    r"|/?(?P<name>[a-z][^\s/<>\x00-\x1f]*))",
    re.IGNORECASE | re.ASCII,
)
_ANY_OPENING = re.compile(r"<(?=[a-z/!?])", re.IGNORECASE | re.ASCII)
# A start tag that all parsers read alike. It is linear: it never crosses a "<" and does not backtrack.
_COMPLETE = re.compile(
    r"<[a-z][^\s/<>\"'=`\x00-\x1f]*+(?P<attributes>"
    r"(?:\s++[^\s/<>\"'=`\x00-\x1f]++(?:\s*+=\s*+(?:\"[^\"<]*+\"|'[^'<]*+'|[^\s\"'=<>`]++))?+)*+"
    r"\s*+/?>)",
    re.IGNORECASE | re.ASCII,
)
_NAME_AND_EQUALS = re.compile(r"([^ \t\n\r\f/>=]+)(\s*=[\s=]*)?")
_NAME_PARTS = re.compile(r"[\s\"':\x00-\x1f]+")
_BLANKS = re.compile(r"[\s\x00-\x1f]+")
_OPENED_QUOTE = re.compile(r"=\s*[\"']")
_SURROGATE = re.compile("[\ud800-\udfff]")


# Rounds of `sanitize`. A space can separate two names, so a second round can find more. A third one is rare.
_MAX_ROUNDS = 4


def sanitize(text: str) -> str:
    """Return ``text`` with a space after each ``<`` that opens active HTML. No text is deleted.

    The function is idempotent, needs linear time and never raises. The result stays inert if a quote, ``>``
    or ``-->`` follows it. Use it for free text only, not for passwords, codes, addresses or compared values.
    """
    if _OPENING.search(text) is None:
        return text
    for _ in range(_MAX_ROUNDS):
        openings = _Markup(text).active_openings()
        if not openings:
            return text
        bounds = [0, *(start + 1 for start in openings), len(text)]
        text = " ".join(text[first:last] for first, last in itertools.pairwise(bounds))
    return _ANY_OPENING.sub("< ", text) if _Markup(text).active_openings() else text


def text_problem(text: str) -> str | None:
    """Return the reason why ``text`` cannot be stored as Unicode, or None.

    PostgreSQL stores no NUL in text. An unpaired surrogate has no UTF-8 form. The reason does not quote the
    text.
    """
    if "\x00" in text:
        return "must not contain the NUL character (U+0000)"
    surrogate = _SURROGATE.search(text)
    if surrogate is not None:
        return f"must be valid Unicode: it contains an unpaired surrogate (U+{ord(surrogate[0]):04X})"
    return None


class _Markup:
    """The positions in a text that a parser could read as markup. All lists are in ascending order."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.greater = [match.start() for match in re.finditer(">", text)]
        self.quotes = [match.start() for match in _OPENED_QUOTE.finditer(text)]
        named = (match for match in _NAME_AND_EQUALS.finditer(text) if match[2])
        # the end of the name of each active attribute
        self.attributes = [match.end(1) for match in named if _is_active_in_text(text, match)]
        self.bleach = _Bleach()

    def active_openings(self) -> list[int]:
        """Return the position of each "<" that opens active markup."""
        return [opening.start() for opening in _OPENING.finditer(self.text) if self._is_active(opening)]

    def _is_active(self, opening: re.Match[str]) -> bool:
        if opening["section"] or opening["name"].lower() in ACTIVE_ELEMENTS:
            return True
        start = opening.start()
        first = bisect_right(self.attributes, start)
        if first == len(self.attributes):
            return False
        end = self._first(self.greater, start)
        complete = _COMPLETE.match(self.text, start)
        if self._first(self.quotes, start) < end:
            # ">" inside a quoted value does not end the tag, and parsers disagree about broken quotes.
            end = complete.end() if complete else len(self.text)
        if bisect_left(self.attributes, end, first) == first:
            return False
        return complete is None or self.bleach.finds_active_attribute(complete["attributes"])

    def _first(self, positions: list[int], start: int) -> int:
        index = bisect_left(positions, start)
        return positions[index] if index < len(positions) else len(self.text)


class _Bleach:
    """Parses complete tags with bleach. Not thread-safe, like the `Cleaner` in it."""

    def __init__(self) -> None:
        self._results: dict[str, bool] = {}
        self._found = False
        self._cleaner: Cleaner | None = None

    def finds_active_attribute(self, attributes: str) -> bool:
        """Return True if a tag with this text after its name has an active attribute."""
        if attributes not in self._results:
            if self._cleaner is None:
                self._cleaner = Cleaner(tags={"b"}, attributes=self._allow)
            self._found = False
            is_tag = self._cleaner.clean(f"<b{attributes}").startswith("<b")
            self._results[attributes] = self._found or not is_tag
        return self._results[attributes]

    def _allow(self, _tag: str, name: str, value: str) -> bool:
        self._found = self._found or _is_active(name, value)
        return True


def _is_active_in_text(text: str, attribute: re.Match[str]) -> bool:
    """Return True if ``name=`` in a text may be an active attribute of a tag."""
    return _is_active(attribute[1], text[attribute.end() : attribute.end() + _SCHEME_WINDOW])


def _is_active(name: str, value: str) -> bool:
    """Return True if an attribute makes a tag active. A quote in a name may end the previous value."""
    for part in _NAME_PARTS.split(name.lower()):
        if part.startswith("on") or part in ACTIVE_ATTRIBUTES:
            return True
    plain = _BLANKS.sub("", html.unescape(value[:_SCHEME_WINDOW]))
    return plain.lstrip("\"'").lower().startswith(_SCRIPT_SCHEMES)
