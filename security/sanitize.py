"""Free text without active HTML, and otherwise exactly as it was typed.

Clinicians write ``BP <120/80 & HR >60``, ``if x<y then a>b`` and ``dose 5mg/kg <q6h> prn``. HTML sanitisers
read these as broken markup and drop or re-encode parts of them, which changes what the record says. Here the
``<`` that open active markup are found first, and only those tags are touched (a complete tag is given to
bleach, alone). A text without any comes back as the same object.

What is active, and therefore never survives:

* an element that runs, loads, embeds, submits, or changes how the parser reads on (``ACTIVE_ELEMENTS``),
  terminated or not, since whatever is written after the text may terminate it;
* any tag, of whatever name, with an event handler, a loading attribute (``ACTIVE_ATTRIBUTES``) or a
  ``javascript:`` value;
* comments, CDATA, document types and processing instructions.

What is inert stays byte for byte: ``<b>bold</b>``, ``List<int>``, ``<j.doe@clinic.org>``, ``x<b and c>d``,
entities as typed (``A&lt;script&gt;`` is neither decoded nor encoded), ``javascript:`` outside a tag. What is
rendered as HTML, CSV or PDF still has to be escaped for that medium: this module is the second line.

Every ``<`` is judged as if a parser stood in front of it in its initial state, whatever precedes it, and a
tag is taken to reach as far as any parser might read it. So the verdict depends neither on the state that a
particular parser is in nor on its treatment of broken markup. The price is that it errs on the side of
"active": a letter right after ``<`` and ``onset=`` before the next ``>`` is taken for an event handler.
Sources: the tokenizer of the WHATWG HTML standard, section 13.2.5; the OWASP XSS filter evasion cheat sheet.
"""

import html
import re
from bisect import bisect_left, bisect_right
from typing import NamedTuple

from bleach.sanitizer import Cleaner

# They keep their tag when active attributes are taken off it; all others lose the tag and keep the words.
FORMATTING_ELEMENTS = frozenset({"b", "br", "em", "i", "li", "ol", "p", "strong", "sub", "sup", "u", "ul"})

_RUNNING = {"applet", "math", "meta", "script", "svg", "xml"}
_LOADING = {"audio", "bgsound", "embed", "fencedframe", "iframe", "ilayer", "img", "video"}
_ASKING = {"isindex", "keygen", "textarea"}
# These change how a parser reads whatever follows them.
_PARSING = {"frameset", "marquee", "noembed", "noframes", "noscript", "plaintext", "xmp"}
# Words of English. "urine output <input since noon" and "Hb <base line" are sentences, not elements.
_LOADING_WORDS = {"base", "frame", "layer", "link", "object", "portal", "style"}
_OTHER_WORDS = {"button", "form", "input", "listing", "select", "template", "title"}
_ENGLISH_WORDS = frozenset(_LOADING_WORDS | _OTHER_WORDS)

ACTIVE_ELEMENTS = frozenset(_RUNNING | _LOADING | _ASKING | _PARSING | _ENGLISH_WORDS)

_URL_ATTRIBUTES = {"background", "dynsrc", "href", "imagesrcset", "lowsrc", "ping", "poster", "src", "srcset"}
_OTHER_ATTRIBUTES = {"classid", "codebase", "datasrc", "formaction", "manifest", "srcdoc", "style", "xmlns"}
ACTIVE_ATTRIBUTES = frozenset(_URL_ATTRIBUTES | _OTHER_ATTRIBUTES)

_SCRIPT_SCHEMES = ("javascript:", "vbscript:", "livescript:", "data:text/html", "data:image/svg")

# Markup inside markup (``<scr<script>ipt>``) comes to light round by round; nobody nests it this deeply.
_MAX_ROUNDS = 8

# Characters of a value read for a scheme: blanks and character references may stretch "javascript:". The
# attributes that load are active whatever their value, so this bounds work and not safety.
_SCHEME_WINDOW = 256

_OPENING = re.compile(
    r"<(?:(?P<section>!--|!\[CDATA\[)"
    r"|(?P<declaration>!\[|!doctype|!(?:element|entity|attlist|notation)\b|\?(?:xml|php))"
    r"|/?(?P<name>[a-z][^\s/<>\x00-\x1f]*))",
    re.IGNORECASE | re.ASCII,
)
# A tag that all parsers read alike. Never crossing a "<" and never giving back what it took keeps it linear.
_WELL_FORMED = re.compile(
    r"</?[a-z][^\s/<>\"'=`\x00-\x1f]*+"
    r"(?:\s++[^\s/<>\"'=`\x00-\x1f]++(?:\s*+=\s*+(?:\"[^\"<]*+\"|'[^'<]*+'|[^\s\"'=<>`]++))?+)*+"
    r"\s*+/?>",
    re.IGNORECASE | re.ASCII,
)
_BARE = re.compile(r"</?[a-z][^\s/<>]*+\s*+/?>", re.IGNORECASE | re.ASCII)
_NAME_AND_EQUALS = re.compile(r"([^ \t\n\r\f/>=]+)(\s*=[\s=]*)?")
_NAME_PARTS = re.compile(r"[\s\"':\x00-\x1f]+")
_BLANKS = re.compile(r"[\s\x00-\x1f]+")
_VALUE = re.compile(r"\"[^\"]*\"|'[^']*'|[^\s>]*")
_OPENED_QUOTE = re.compile(r"=\s*[\"']")
_KEPT_TAG = re.compile(r"<[a-z]+>")
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Edit(NamedTuple):
    """Replace ``text[start:end]`` by ``replacement``, or by what bleach leaves of it where that is None."""

    start: int
    end: int
    replacement: str | None


def sanitize(text: str) -> str:
    """Return ``text`` without active HTML; everything else comes back byte for byte.

    Idempotent, linear in the length, and still inert when a quote, ``>`` or ``-->`` follows. Never raises.
    For free text only: not for passwords, codes, addresses or anything that is compared.
    """
    if _OPENING.search(text) is None:
        return text
    for _ in range(_MAX_ROUNDS):
        edits = _Markup(text).edits()
        if not edits:
            return text
        text = _apply(text, edits)
    # Still active: markup nested this deeply is an attack, and without "<" there is no markup at all.
    return text if not _Markup(text).edits() else text.replace("<", "")


def text_problem(text: str) -> str | None:
    """Say why ``text`` cannot be stored and answered as Unicode, or return None where it can.

    PostgreSQL has no NUL in text, half of a surrogate pair has no UTF-8 form. The text itself is not quoted.
    """
    if "\x00" in text:
        return "must not contain the NUL character (U+0000)"
    surrogate = _SURROGATE.search(text)
    if surrogate is not None:
        return f"must be valid Unicode: it contains an unpaired surrogate (U+{ord(surrogate[0]):04X})"
    return None


class _Markup:
    """The places of one text that a parser could take for markup, each list in ascending order."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.openings = list(_OPENING.finditer(text))
        self.less = [match.start() for match in re.finditer("<", text)]
        self.greater = [match.start() for match in re.finditer(">", text)]
        self.quotes = [match.start() for match in _OPENED_QUOTE.finditer(text)]
        named = (match for match in _NAME_AND_EQUALS.finditer(text) if match[2])
        active = [match for match in named if _is_active(text, match)]
        # Where the name of an active attribute ends, and where its value begins.
        self.attributes = [match.end(1) for match in active]
        self.values = [match.end() for match in active]
        self.section_ends = {terminator: text.rfind(terminator) for terminator in ("-->", "]]>")}

    def edits(self) -> list[_Edit]:
        """What has to change for nothing active to be left, in the order of the text, without overlaps."""
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
        return self._with_partners(edits, removed) if removed else edits

    def _with_partners(self, edits: list[_Edit], removed: set[str]) -> list[_Edit]:
        """Add the bare tags of removed elements: ``<a href=...>`` takes its ``</a>`` along."""
        partners = []
        ends = {edit.start: edit.end for edit in edits}
        done = 0
        for opening in self.openings:
            done = max(done, ends.get(opening.start(), 0))
            if opening.start() < done or (opening["name"] or "").lower() not in removed:
                continue
            bare = _BARE.match(self.text, opening.start())
            if bare is not None:
                partners.append(_Edit(bare.start(), bare.end(), ""))
        return sorted(edits + partners)

    def _edit(self, opening: re.Match[str]) -> _Edit | None:
        start = opening.start()
        if opening["section"]:
            terminator = "-->" if opening["section"] == "!--" else "]]>"
            # "<!-->" is a whole comment. Without a terminator only the opening goes, and the words stay.
            ends = self.section_ends[terminator] > start
            end = self.text.index(terminator, start + 2) + 3 if ends else opening.end()
            return _Edit(start, end, "")
        following = self._first(self.greater, start)
        # A tag that is not well-formed is removed up to the next "<" at most: what is left is judged anew.
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
        """Whether this is "<" and a word of English: it gets a blank after the "<" and loses nothing.

        ``<input>`` and ``<base href=x`` are elements, ``output <input since noon`` is not.
        """
        return (
            self.text[opening.start() + 1] != "/"
            and opening["name"].lower() in _ENGLISH_WORDS
            and "=" not in self.text[opening.start() : end]
            and _BARE.match(self.text, opening.start()) is None
        )

    def _active_attributes(self, start: int) -> tuple[int, int]:
        """The slice of ``self.attributes`` that any parser might give to the tag at ``start``."""
        first = bisect_right(self.attributes, start)
        if first == len(self.attributes):
            return first, first
        end = self._first(self.greater, start)
        if self._first(self.quotes, start) < end:
            # ">" inside a quoted value does not end the tag, and parsers disagree about broken quotes.
            well_formed = _WELL_FORMED.match(self.text, start)
            end = well_formed.end() if well_formed else len(self.text)
        return first, bisect_left(self.attributes, end, first)

    def _first(self, places: list[int], start: int) -> int:
        index = bisect_left(places, start)
        return places[index] if index < len(places) else len(self.text)


def _is_active(text: str, attribute: re.Match[str]) -> bool:
    """Whether ``name=`` would make a tag active. A quote in a name may be the end of the value before it."""
    for part in _NAME_PARTS.split(attribute[1].lower()):
        if part.startswith("on") or part in ACTIVE_ATTRIBUTES:
            return True
    value = html.unescape(text[attribute.end() : attribute.end() + _SCHEME_WINDOW])
    return _BLANKS.sub("", value).lstrip("\"'").lower().startswith(_SCRIPT_SCHEMES)


def _apply(text: str, edits: list[_Edit]) -> str:
    tags = {text[edit.start : edit.end] for edit in edits if edit.replacement is None}
    left = _left_by_bleach(tags) if tags else {}
    pieces = []
    done = 0
    for edit in edits:
        pieces.append(text[done : edit.start])
        pieces.append(left[text[edit.start : edit.end]] if edit.replacement is None else edit.replacement)
        done = edit.end
    return "".join([*pieces, text[done:]])


def _left_by_bleach(tags: set[str]) -> dict[str, str]:
    """What bleach leaves of each start tag: ``<b>`` of ``<b onclick=x>``, nothing of ``<a href=x>``."""
    # Made for each call: a Cleaner is not thread-safe.
    cleaner = Cleaner(tags=FORMATTING_ELEMENTS, attributes={}, strip=True)
    left = {}
    for tag in tags:
        # bleach closes what it opens; the element's own end tag stands further on in the text.
        kept = _KEPT_TAG.match(cleaner.clean(tag))
        left[tag] = kept[0] if kept else ""
    return left
