"""Remove active HTML from free text, and leave all other text unchanged.

Clinicians write ``BP <120/80 & HR >60``, ``if x<y then a>b`` and ``dose 5mg/kg <q6h> prn``. HTML sanitisers
read these as broken markup. They drop or re-encode parts of them, which changes the medical record. This
module first finds each ``<`` that opens active markup, and changes only those tags. A complete start tag is
passed to bleach by itself. A text without active markup is returned as the same object.

Active markup is always removed:

* Elements that run, load, embed, submit, or change how the parser continues (``ACTIVE_ELEMENTS``). They need
  no closing ``>``, because the text after them may contain one.
* Tags of any name with an event handler, a loading attribute (``ACTIVE_ATTRIBUTES``) or a ``javascript:``
  value.
* Comments, CDATA, document types and processing instructions.

Inert text stays byte for byte: ``<b>bold</b>``, ``List<int>``, ``<j.doe@clinic.org>``, ``x<b and c>d``,
entities (``A&lt;script&gt;`` is neither decoded nor encoded), and ``javascript:`` outside a tag. Output in
HTML, CSV or PDF still has to be escaped: this module is the second line of defence.

Each ``<`` is checked as if a parser were in its initial state, whatever the text before it is. A tag is
assumed to extend as far as any parser might read it. So the result does not depend on the state of a parser
or on how it handles broken markup. The cost is false positives: a letter directly after ``<`` and ``onset=``
before the next ``>`` count as an event handler.
Sources: the tokenizer of the WHATWG HTML standard, section 13.2.5; the OWASP XSS filter evasion cheat sheet.
"""

import html
import re
from bisect import bisect_left, bisect_right
from typing import NamedTuple

from bleach.sanitizer import Cleaner

# These elements keep their tag without the active attributes. Others lose the tag and keep the text.
FORMATTING_ELEMENTS = frozenset({"b", "br", "em", "i", "li", "ol", "p", "strong", "sub", "sup", "u", "ul"})

_SCRIPT_ELEMENTS = {"applet", "math", "meta", "script", "svg", "xml"}
_LOADING_ELEMENTS = {"audio", "bgsound", "embed", "fencedframe", "iframe", "ilayer", "img", "video"}
_INPUT_ELEMENTS = {"isindex", "keygen", "textarea"}
# These elements change how a parser reads the text after them.
_PARSER_ELEMENTS = {"frameset", "marquee", "noembed", "noframes", "noscript", "plaintext", "xmp"}
# These names are also English words: "urine output <input since noon" and "Hb <base line" are sentences.
_LOADING_WORDS = {"base", "frame", "layer", "link", "object", "portal", "style"}
_OTHER_WORDS = {"button", "form", "input", "listing", "select", "template", "title"}
_ENGLISH_WORDS = frozenset(_LOADING_WORDS | _OTHER_WORDS)

ACTIVE_ELEMENTS = frozenset(
    _SCRIPT_ELEMENTS | _LOADING_ELEMENTS | _INPUT_ELEMENTS | _PARSER_ELEMENTS | _ENGLISH_WORDS
)

_URL_ATTRIBUTES = {"background", "dynsrc", "href", "imagesrcset", "lowsrc", "ping", "poster", "src", "srcset"}
_OTHER_ATTRIBUTES = {"classid", "codebase", "datasrc", "formaction", "manifest", "srcdoc", "style", "xmlns"}
ACTIVE_ATTRIBUTES = frozenset(_URL_ATTRIBUTES | _OTHER_ATTRIBUTES)

_SCRIPT_SCHEMES = ("javascript:", "vbscript:", "livescript:", "data:text/html", "data:image/svg")

# Each round uncovers nested markup such as ``<scr<script>ipt>``. Real text is never nested so deeply.
_MAX_ROUNDS = 8

# Characters of a value that are searched for a scheme. Blanks and character references can make "javascript:"
# longer. Loading attributes are active with every value, so this limits the work and not the safety.
_SCHEME_WINDOW = 256

_OPENING = re.compile(
    r"<(?:(?P<section>!--|!\[CDATA\[)"
    r"|(?P<declaration>!\[|!doctype|!(?:element|entity|attlist|notation)\b|\?(?:xml|php))"
    r"|/?(?P<name>[a-z][^\s/<>\x00-\x1f]*))",
    re.IGNORECASE | re.ASCII,
)
# A tag that all parsers read alike. It is linear: it never crosses a "<" and does not backtrack.
_WELL_FORMED = re.compile(
    r"</?[a-z][^\s/<>\"'=`\x00-\x1f]*+"
    r"(?:\s++[^\s/<>\"'=`\x00-\x1f]++(?:\s*+=\s*+(?:\"[^\"<]*+\"|'[^'<]*+'|[^\s\"'=<>`]++))?+)*+"
    r"\s*+/?>",
    re.IGNORECASE | re.ASCII,
)
_BARE_TAG = re.compile(r"</?[a-z][^\s/<>]*+\s*+/?>", re.IGNORECASE | re.ASCII)
_NAME_AND_EQUALS = re.compile(r"([^ \t\n\r\f/>=]+)(\s*=[\s=]*)?")
_NAME_PARTS = re.compile(r"[\s\"':\x00-\x1f]+")
_BLANKS = re.compile(r"[\s\x00-\x1f]+")
_VALUE = re.compile(r"\"[^\"]*\"|'[^']*'|[^\s>]*")
_OPENED_QUOTE = re.compile(r"=\s*[\"']")
_START_TAG = re.compile(r"<[a-z]+>")
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Edit(NamedTuple):
    """A replacement of ``text[start:end]``. None means: by the result of bleach."""

    start: int
    end: int
    replacement: str | None


def sanitize(text: str) -> str:
    """Return ``text`` without active HTML. All other text is unchanged.

    The function is idempotent, needs linear time and never raises. The result stays inert if a quote, ``>``
    or ``-->`` follows it. Use it for free text only, not for passwords, codes, addresses or compared values.
    """
    if _OPENING.search(text) is None:
        return text
    for _ in range(_MAX_ROUNDS):
        edits = _Markup(text).edits()
        if not edits:
            return text
        text = _apply(text, edits)
    # Markup that is nested more deeply is an attack. Without "<" there is no markup.
    return text if not _Markup(text).edits() else text.replace("<", "")


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
        self.openings = list(_OPENING.finditer(text))
        self.less = [match.start() for match in re.finditer("<", text)]
        self.greater = [match.start() for match in re.finditer(">", text)]
        self.quotes = [match.start() for match in _OPENED_QUOTE.finditer(text)]
        named = (match for match in _NAME_AND_EQUALS.finditer(text) if match[2])
        active = [match for match in named if _is_active(text, match)]
        # the end of the name of each active attribute, and the start of its value
        self.attributes = [match.end(1) for match in active]
        self.values = [match.end() for match in active]
        self.section_ends = {terminator: text.rfind(terminator) for terminator in ("-->", "]]>")}

    def edits(self) -> list[_Edit]:
        """Return the edits that remove all active markup, in the order of the text, without overlaps."""
        edits: list[_Edit] = []
        removed: set[str] = set()
        for opening in self.openings:
            if edits and opening.start() < edits[-1].end:
                continue
            edit = self._edit(opening)
            if edit is None:
                continue
            edits.append(edit)
            if opening["name"] and edit.start == opening.start():
                removed.add(opening["name"].lower())
        removed -= FORMATTING_ELEMENTS
        return self._with_matching_tags(edits, removed) if removed else edits

    def _with_matching_tags(self, edits: list[_Edit], removed: set[str]) -> list[_Edit]:
        """Add the bare tags of removed elements, such as the ``</a>`` of ``<a href=...>``."""
        matching_tags = []
        ends = {edit.start: edit.end for edit in edits}
        done = 0
        for opening in self.openings:
            done = max(done, ends.get(opening.start(), 0))
            if opening.start() < done or (opening["name"] or "").lower() not in removed:
                continue
            bare = _BARE_TAG.match(self.text, opening.start())
            if bare is not None:
                matching_tags.append(_Edit(bare.start(), bare.end(), ""))
        return sorted(edits + matching_tags)

    def _edit(self, opening: re.Match[str]) -> _Edit | None:
        start = opening.start()
        if opening["section"]:
            terminator = "-->" if opening["section"] == "!--" else "]]>"
            # "<!-->" is a complete comment. Without a terminator only the opening is removed.
            ends = self.section_ends[terminator] > start
            end = self.text.index(terminator, start + 2) + 3 if ends else opening.end()
            return _Edit(start, end, "")
        following = self._first(self.greater, start)
        # A tag that is not well-formed is removed up to the next "<" at most. The next round checks the rest.
        limit = self._first(self.less, start + 1)
        if opening["declaration"]:
            return _Edit(start, following + 1 if following < limit else opening.end(), "")
        first, last = self._active_attributes(start)
        if first == last and opening["name"].lower() not in ACTIVE_ELEMENTS:
            return None
        well_formed = _WELL_FORMED.match(self.text, start)
        if self._is_sentence(opening, min(following + 1, limit)):
            return _Edit(start + 1, start + 1, " ")
        if well_formed is not None:
            is_start_tag = not well_formed[0].startswith("</")
            return _Edit(start, well_formed.end(), None if is_start_tag else "")
        if following < limit:
            return _Edit(start, following + 1, "")
        last = bisect_left(self.attributes, limit, first, last)
        if first == last:
            return _Edit(start, opening.end(), "")
        value = _VALUE.match(self.text, self.values[last - 1])
        return _Edit(start, value.end() if value else limit, "")

    def _is_sentence(self, opening: re.Match[str], end: int) -> bool:
        """Return True for "<" before an English word. It gets a blank after the "<" and loses nothing.

        ``<input>`` and ``<base href=x`` are elements, ``output <input since noon`` is not.
        """
        return (
            self.text[opening.start() + 1] != "/"
            and opening["name"].lower() in _ENGLISH_WORDS
            and "=" not in self.text[opening.start() : end]
            and _BARE_TAG.match(self.text, opening.start()) is None
        )

    def _active_attributes(self, start: int) -> tuple[int, int]:
        """Return the bounds of the attributes that some parser might read in the tag at ``start``."""
        first = bisect_right(self.attributes, start)
        if first == len(self.attributes):
            return first, first
        end = self._first(self.greater, start)
        if self._first(self.quotes, start) < end:
            # ">" inside a quoted value does not end the tag, and parsers disagree about broken quotes.
            well_formed = _WELL_FORMED.match(self.text, start)
            end = well_formed.end() if well_formed else len(self.text)
        return first, bisect_left(self.attributes, end, first)

    def _first(self, positions: list[int], start: int) -> int:
        index = bisect_left(positions, start)
        return positions[index] if index < len(positions) else len(self.text)


def _is_active(text: str, attribute: re.Match[str]) -> bool:
    """Return True if ``name=`` makes a tag active. A quote in a name may end the previous value."""
    for part in _NAME_PARTS.split(attribute[1].lower()):
        if part.startswith("on") or part in ACTIVE_ATTRIBUTES:
            return True
    value = html.unescape(text[attribute.end() : attribute.end() + _SCHEME_WINDOW])
    return _BLANKS.sub("", value).lstrip("\"'").lower().startswith(_SCRIPT_SCHEMES)


def _apply(text: str, edits: list[_Edit]) -> str:
    tags = {text[edit.start : edit.end] for edit in edits if edit.replacement is None}
    cleaned_tags = _clean_tags(tags) if tags else {}
    pieces = []
    done = 0
    for edit in edits:
        pieces.append(text[done : edit.start])
        pieces.append(
            cleaned_tags[text[edit.start : edit.end]] if edit.replacement is None else edit.replacement
        )
        done = edit.end
    return "".join([*pieces, text[done:]])


def _clean_tags(tags: set[str]) -> dict[str, str]:
    """Return each start tag as bleach cleans it: ``<b onclick=x>`` to ``<b>``, ``<a href=x>`` to nothing."""
    # a new one for each call, because a Cleaner is not thread-safe
    cleaner = Cleaner(tags=FORMATTING_ELEMENTS, attributes={}, strip=True)
    cleaned_tags = {}
    for tag in tags:
        # bleach adds an end tag; the end tag of the element follows later in the text
        start_tag = _START_TAG.match(cleaner.clean(tag))
        cleaned_tags[tag] = start_tag[0] if start_tag else ""
    return cleaned_tags
