"""Clinical text comes back as typed, and nothing in it ever acts as HTML."""

import html
import re
import time
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from security.sanitize import sanitize, text_problem

# Control characters are written as their pictures, one sentence a line.
PICTURES = {"␀": "\0", "␉": "\t", "␊": "\n", "␌": "\f", "␍": "\r"}


def read_sentences(name: str) -> list[str]:
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return [line.translate(str.maketrans(PICTURES)) for line in text.split("\n") if line]


CLINICAL_SENTENCES = read_sentences("clinical_sentences.txt")
ACTIVE_HTML = read_sentences("active_html.txt")

# What may be written behind an answer by whoever embeds it, carelessly or with intent.
ENDINGS = ("", ">", '">', "'>", "-->", "/>", " >", "]]>", "<", "</p>")
# In the middle of what an answer may be embedded.
BEGINNINGS = ("", "<p>", '"', "-->", "</title>")

# Said again here rather than imported, so that a name struck from the module is missed.
ACTIVE_NAMES = set(
    """applet audio base bgsound button embed form frame frameset iframe img input isindex keygen link listing
    marquee math meta noembed noframes noscript object plaintext script select style svg template textarea
    title video xmp""".split()
)
LOADING_NAMES = set(
    """background classid codebase dynsrc formaction href lowsrc manifest ping poster src srcdoc srcset
    style xlink:href xmlns""".split()
)


def tag_is_active(name: str, attributes: list[tuple[str, str]]) -> bool:
    if name.lower() in ACTIVE_NAMES:
        return True
    for attribute, value in attributes:
        if value and (attribute.lower().startswith("on") or attribute.lower() in LOADING_NAMES):
            return True
        if re.sub(r"\s", "", html.unescape(value)).lower().startswith(("javascript:", "vbscript:")):
            return True
    return False


class StandardLibraryParser(HTMLParser):
    """Collects the active start tags that Python's own parser sees."""

    def __init__(self) -> None:
        super().__init__()
        self.active: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag_is_active(tag, [(name, value or "") for name, value in attrs]):
            self.active.append(tag)


def active_in_html5lib(text: str) -> list[str]:
    tree = html5lib.parseFragment(text, namespaceHTMLElements=False)
    elements = [element for element in tree.iter() if element.tag is not ElementTree.Comment]
    return [
        element.tag
        for element in elements
        if tag_is_active(re.sub(r"\{.*\}", "", element.tag), list(element.attrib.items()))
    ]


def active_in(text: str) -> list[str]:
    """Every active tag that either parser finds."""
    parser = StandardLibraryParser()
    parser.feed(text)
    parser.close()
    return parser.active + active_in_html5lib(text)


def hidden_sections_in(text: str) -> list[str]:
    return re.findall(r"<!--|<!\[|<!doctype|<\?xml|<\?php", text, re.IGNORECASE)


def assert_inert(text: str) -> None:
    assert not hidden_sections_in(text)
    for ending in ENDINGS:
        assert not active_in(text + ending), (text, ending)
    for beginning in BEGINNINGS:
        assert not active_in(beginning + text), (beginning, text)


# --- What clinicians write ------------------------------------------------------------------------


@pytest.mark.parametrize("sentence", CLINICAL_SENTENCES)
def test_what_a_clinician_typed_is_what_a_clinician_reads_back(sentence: str) -> None:
    assert sanitize(sentence) == sentence


@pytest.mark.parametrize("sentence", CLINICAL_SENTENCES)
def test_what_comes_back_as_typed_is_inert(sentence: str) -> None:
    assert_inert(sentence)


def test_all_clinical_sentences_in_one_note_come_back_as_typed() -> None:
    note = "\r\n".join(CLINICAL_SENTENCES)

    assert sanitize(note) == note


def test_a_text_without_markup_is_not_copied() -> None:
    note = "BP <120/80 & HR >60"

    assert sanitize(note) is note


@given(st.text(alphabet=st.characters(exclude_characters="<")))
def test_a_text_without_less_than_is_untouched(text: str) -> None:
    assert sanitize(text) == text


@given(
    st.lists(
        st.sampled_from(["<", ">", "&", "<= ", "< ", "<5", '"', "'", "=", "/80", ";", "\r\n", "\t"])
        | st.text("09 é患"),
        max_size=30,
    )
)
def test_less_than_before_anything_but_a_letter_is_untouched(pieces: list[str]) -> None:
    text = "".join(pieces)

    assert sanitize(text) == text


@given(st.text("abqxyXY09<>& \"'/;,.-\n"))
def test_tags_without_attributes_or_active_names_are_untouched(text: str) -> None:
    assert sanitize(text) == text


@given(
    st.sampled_from([sentence for sentence in CLINICAL_SENTENCES if "<" not in sentence]),
    st.sampled_from(
        ["<script>", "<img src=x onerror=alert(1)>", "<!-- x -->", "<a href='javascript:x'>", "</style>"]
    ),
    st.sampled_from([sentence for sentence in CLINICAL_SENTENCES if "<" not in sentence]),
)
def test_only_the_active_tag_is_taken_out_of_a_note(before: str, tag: str, after: str) -> None:
    assert sanitize(before + tag + after) == before + after


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("BP <120/80 & <script>alert(1)</script> A&lt;b&gt;\r\n", "BP <120/80 & alert(1) A&lt;b&gt;\r\n"),
        ("<b onclick=x>bold</b> <I STYLE='a:b'>it</I>", "<b>bold</b> <i>it</I>"),
        ('<p style="margin:0" class="MsoNormal"><b>Hx</b></p>', "<p><b>Hx</b></p>"),
        ('see <a href="https://x.example">the guide</a> & rest', "see the guide & rest"),
        ("x <!-- hidden --> y", "x  y"),
        ("x <!-- never closed, K <5", "x  never closed, K <5"),
        ("<![CDATA[a>b]]>y", "y"),
        ("<![CDATA[ K <5 >3", " K <5 >3"),
        ("<p onclick=x>one</p onclick=y> two", "<p>one two"),
        ("<script <b>bold</b>", " <b>bold</b>"),
        ("<img src=x onerror=alert(1) \nK <3.5", " \nK <3.5"),
        ("<img src=x onerror='alert(1) 2' K 3.5", " K 3.5"),
        ("<script never closed, K <5", " never closed, K <5"),
        ("note <scr<script>ipt>", "note "),
    ],
)
def test_the_words_around_active_markup_stay(typed: str, kept: str) -> None:
    assert sanitize(typed) == kept


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("output <input x3 days, HR >60", "output < input x3 days, HR >60"),
        ("Hb <base line", "Hb < base line"),
        ("<input>", ""),
        ("<base href=x", ""),
        ("</title of the note", " of the note"),
    ],
)
def test_less_than_before_an_english_word_keeps_the_word(typed: str, kept: str) -> None:
    assert sanitize(typed) == kept


# --- What attackers write -------------------------------------------------------------------------


@pytest.mark.parametrize("vector", ACTIVE_HTML)
def test_the_parsers_of_this_test_see_that_a_vector_is_active(vector: str) -> None:
    # A filter that looks once makes "<script>" of "<scr<script>ipt>".
    once = vector.replace("<script>", "", 1)
    twice = once.replace("<script>", "", 1)

    found = [active_in(text + ending) for text in (vector, once, twice) for ending in ENDINGS]

    assert any(found) or hidden_sections_in(vector)


@pytest.mark.parametrize("vector", ACTIVE_HTML)
def test_active_html_never_survives(vector: str) -> None:
    defused = sanitize(vector)

    assert_inert(defused)
    assert sanitize(defused) == defused


@pytest.mark.parametrize("vector", ACTIVE_HTML)
def test_active_html_does_not_survive_between_clinical_sentences(vector: str) -> None:
    defused = sanitize(f'BP <120/80, "x<y" & z>1 {vector} <q6h> prn')

    assert_inert(defused)
    assert defused.startswith('BP <120/80, "x<y" & z>1 ')


def test_entities_are_neither_decoded_nor_encoded() -> None:
    typed = "A&lt;script&gt;alert(1)&lt;/script&gt; & &#60;img src=x onerror=alert(1)&#62;"

    assert sanitize(typed) == typed
    assert sanitize(typed + "<script>") == typed


def test_markup_nested_without_end_leaves_no_less_than_at_all() -> None:
    defused = sanitize("<scr" * 50 + "<script>" + "ipt>" * 50)

    assert "<" not in defused


MARKUP_PIECES = [
    *"""< > </ / <! <!-- --> --!> <![CDATA[ ]]> <? ?> = == " ' ` & ; : a b p x 1 é ſ İ q6h scr ipt script
    style title input img svg on onx onerror onclick= href src=x style= javascript:
    java&#115;cript:""".split(),
    *(" ", "\t", "\n", "\f", "\x0b", "\r", "\0", "\xa0", "\x1f", "\ud800"),
]


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(MARKUP_PIECES), max_size=25))
def test_whatever_is_typed_the_result_is_inert_and_final(pieces: list[str]) -> None:
    result = sanitize("".join(pieces))

    assert_inert(result)
    assert sanitize(result) == result


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(ACTIVE_HTML + CLINICAL_SENTENCES), min_size=2, max_size=4), st.data())
def test_vectors_cut_and_joined_anywhere_are_defused(texts: list[str], data: st.DataObject) -> None:
    joined = ""
    for text in texts:
        joined = joined[: data.draw(st.integers(0, len(joined)))] + text + joined[-5:]

    result = sanitize(joined)

    assert_inert(result)
    assert sanitize(result) == result


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "<",
            "<a ",
            "<a",
            "<a/on=",
            "<a b='\"",
            '<a b="<a on=',
            "<b on=1>",
            "<x on=1></x>",
            "</a>",
            "&<onb=&",
        ),
        *(
            "<!--",
            "<![CDATA[",
            "<!doctype",
            "<script",
            "<scr<script>ipt>",
            "<input ",
            "\"on'on",
            "= ",
            " on=",
        ),
    ],
)
def test_a_text_of_64_kib_takes_no_longer_than_its_length_deserves(piece: str) -> None:
    text = (piece * 65_536)[:65_536]
    started = time.thread_time()

    sanitize(text + " on=1")

    # About 0.3 s of this thread at worst, several times that in a process with a large heap to collect;
    # a quadratic pass over these takes from ten seconds to minutes.
    assert time.thread_time() - started < 6


# --- What cannot be stored ------------------------------------------------------------------------


def test_ordinary_text_has_no_problem() -> None:
    assert text_problem("") is None
    assert text_problem("BP <120/80 & 👩‍⚕️ 患者\r\n\t") is None


@pytest.mark.parametrize("text", ["\0", "K 3.5\0", "a\0b"])
def test_nul_is_refused(text: str) -> None:
    assert text_problem(text) == "must not contain the NUL character (U+0000)"


@pytest.mark.parametrize("text", ["\ud83d", "x\udc4dx", "\udc00\ud800"])
def test_half_of_a_surrogate_pair_is_refused(text: str) -> None:
    problem = text_problem(text)

    assert problem is not None
    assert "unpaired surrogate (U+D" in problem


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_other_unicode_is_accepted(text: str) -> None:
    assert text_problem(text) is None
