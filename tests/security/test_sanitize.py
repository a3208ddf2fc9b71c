"""Clinical text is unchanged, and contains no active HTML."""

import html
import re
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from security.sanitize import sanitize, text_problem

# The files have one sentence per line, with control characters as Unicode control pictures.
PICTURES = {"␀": "\0", "␉": "\t", "␊": "\n", "␌": "\f", "␍": "\r"}


def read_sentences(name: str) -> list[str]:
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return [line.translate(str.maketrans(PICTURES)) for line in text.split("\n") if line]


CLINICAL_SENTENCES = read_sentences("clinical_sentences.txt")
ACTIVE_HTML = read_sentences("active_html.txt")

# text that a page may have directly after the embedded text
ENDINGS = ("", ">", '">', "'>", "-->", "/>", " >", "]]>", "<", "</p>")
# text that a page may have directly before the embedded text
BEGINNINGS = ("", "<p>", '"', "-->", "</title>")

# A copy and not an import, so that the tests fail if a name is removed from the module.
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
    """A collector of the active start tags that the parser of the standard library reads."""

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
    """Return the active tags that one of the two parsers finds."""
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


def assert_only_spaces_were_inserted(text: str, result: str) -> None:
    """Check that the result is the text with single spaces inserted after some "<", and nothing else."""
    position = 0
    for index, character in enumerate(result):
        if position < len(text) and character == text[position]:
            position += 1
        else:
            assert character == " ", (text, result)
            assert result[index - 1] == "<", (text, result)
    assert position == len(text), (text, result)


# --- Clinical text ------------------------------------------------------------------------


@pytest.mark.parametrize("sentence", CLINICAL_SENTENCES)
def test_a_clinical_sentence_is_unchanged(sentence: str) -> None:
    assert sanitize(sentence) == sentence


@pytest.mark.parametrize("sentence", CLINICAL_SENTENCES)
def test_a_clinical_sentence_is_inert(sentence: str) -> None:
    assert_inert(sentence)


def test_all_clinical_sentences_in_one_note_are_unchanged() -> None:
    note = "\r\n".join(CLINICAL_SENTENCES)

    assert sanitize(note) == note


def test_a_text_without_markup_is_not_copied() -> None:
    note = "BP <120/80 & HR >60"

    assert sanitize(note) is note


@given(st.text(alphabet=st.characters(exclude_characters="<")))
def test_text_without_less_than_is_unchanged(text: str) -> None:
    assert sanitize(text) == text


@given(
    st.lists(
        st.sampled_from(["<", ">", "&", "<= ", "< ", "<5", '"', "'", "=", "/80", ";", "\r\n", "\t"])
        | st.text("09 é患"),
        max_size=30,
    )
)
def test_less_than_before_other_characters_than_letters_is_unchanged(pieces: list[str]) -> None:
    text = "".join(pieces)

    assert sanitize(text) == text


@given(st.text("abqxyXY09<>& \"'/;,.-\n"))
def test_tags_without_attributes_or_active_names_are_unchanged(text: str) -> None:
    assert sanitize(text) == text


@given(
    st.sampled_from([sentence for sentence in CLINICAL_SENTENCES if "<" not in sentence]),
    st.sampled_from(
        ["<script>", "<img src=x onerror=alert(1)>", "<!-- x -->", "<a href='javascript:x'>", "</style>"]
    ),
    st.sampled_from([sentence for sentence in CLINICAL_SENTENCES if "<" not in sentence]),
)
def test_only_the_active_tag_of_a_note_gets_a_space(before: str, tag: str, after: str) -> None:
    assert sanitize(before + tag + after) == f"{before}< {tag[1:]}{after}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<video visit> with mother", "< video visit> with mother"),
        ("moved to <object> and <Link to prior note>", "moved to < object> and < Link to prior note>"),
        ("output <input x3 days, HR >60", "output < input x3 days, HR >60"),
        ("Hb <base line", "Hb < base line"),
        ("</title of the note", "< /title of the note"),
        (
            "BP <120/80 & <script>alert(1)</script> A&lt;b&gt;\r\n",
            "BP <120/80 & < script>alert(1)< /script> A&lt;b&gt;\r\n",
        ),
        ("<b onclick=x>bold</b> <I STYLE='a:b'>it</I>", "< b onclick=x>bold</b> < I STYLE='a:b'>it</I>"),
        ('<p style="margin:0"><b class="x">Hx</b></p>', '< p style="margin:0"><b class="x">Hx</b></p>'),
        ('see <a href="javascript:x">the guide</a>', 'see < a href="javascript:x">the guide</a>'),
        ("x <!-- hidden --> y", "x < !-- hidden --> y"),
        ("x <!-- never closed, K <5", "x < !-- never closed, K <5"),
        ("<![CDATA[a>b]]>y <!DOCTYPE html> <?xml ?>", "< ![CDATA[a>b]]>y < !DOCTYPE html> < ?xml ?>"),
        ("<script <b>bold</b>", "< script <b>bold</b>"),
        ("<img src=x onerror='alert(1) 2' K 3.5", "< img src=x onerror='alert(1) 2' K 3.5"),
        ("note <scr<script>ipt>", "note <scr< script>ipt>"),
        ("<<script>> <</script>>", "<< script>> << /script>>"),
    ],
)
def test_active_markup_gets_a_space_and_no_text_is_deleted(text: str, expected: str) -> None:
    assert sanitize(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        '<x title="a onset=3">',
        "<note author='on=call' day=2>",
        '<p class="MsoNormal" lang=en>',
    ],
)
def test_a_complete_tag_stays_unchanged_if_bleach_finds_no_active_attribute(text: str) -> None:
    assert sanitize(text) == text
    assert_inert(text)


# --- Active HTML -------------------------------------------------------------------------


@pytest.mark.parametrize("vector", ACTIVE_HTML)
def test_the_parsers_of_these_tests_find_each_vector_active(vector: str) -> None:
    # A filter with one pass turns "<scr<script>ipt>" into "<script>".
    once = vector.replace("<script>", "", 1)
    twice = once.replace("<script>", "", 1)

    active_tags = [active_in(text + ending) for text in (vector, once, twice) for ending in ENDINGS]

    assert any(active_tags) or hidden_sections_in(vector)


@pytest.mark.parametrize("vector", ACTIVE_HTML)
def test_active_html_becomes_inert_text(vector: str) -> None:
    result = sanitize(vector)

    assert_inert(result)
    assert_only_spaces_were_inserted(vector, result)
    assert sanitize(result) == result


@pytest.mark.parametrize("vector", ACTIVE_HTML)
def test_active_html_between_clinical_sentences_becomes_inert(vector: str) -> None:
    result = sanitize(f'BP <120/80, "x<y" & z>1 {vector} <q6h> prn')

    assert_inert(result)
    assert result.startswith('BP <120/80, "x<y" & z>1 ')


def test_entities_are_neither_decoded_nor_encoded() -> None:
    text = "A&lt;script&gt;alert(1)&lt;/script&gt; & &#60;img src=x onerror=alert(1)&#62;"

    assert sanitize(text) == text
    assert sanitize(text + "<script>") == text + "< script>"


def test_deeply_nested_markup_becomes_inert() -> None:
    text = "<scr" * 50 + "<script>" + "ipt>" * 50

    assert sanitize(text) == text.replace("<script>", "< script>")
    assert_inert(sanitize(text))


MARKUP_PIECES = [
    *"""< > </ / <! <!-- --> --!> <![CDATA[ ]]> <? ?> = == " ' ` & ; : a b p x 1 é ſ İ q6h scr ipt script
    style title input img svg on onx onerror onclick= href src=x style= javascript:
    java&#115;cript:""".split(),
    *(" ", "\t", "\n", "\f", "\x0b", "\r", "\0", "\xa0", "\x1f", "\ud800"),
]


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(MARKUP_PIECES), max_size=25))
def test_the_result_is_inert_and_stable_for_any_input(pieces: list[str]) -> None:
    text = "".join(pieces)

    result = sanitize(text)

    assert_inert(result)
    assert_only_spaces_were_inserted(text, result)
    assert sanitize(result) == result


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(ACTIVE_HTML + CLINICAL_SENTENCES), min_size=2, max_size=4), st.data())
def test_truncated_and_joined_vectors_become_inert(texts: list[str], data: st.DataObject) -> None:
    joined = ""
    for text in texts:
        joined = joined[: data.draw(st.integers(0, len(joined)))] + text + joined[-5:]

    result = sanitize(joined)

    assert_inert(result)
    assert_only_spaces_were_inserted(joined, result)
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
def test_the_work_is_proportional_to_the_size_of_the_text(piece: str) -> None:
    def count_steps(size: int) -> int:
        steps = 0

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal steps
            steps += event in ("call", "c_call")

        text = (piece * size)[:size] + " on=1"
        sys.setprofile(count)
        try:
            sanitize(text)
        finally:
            sys.setprofile(None)
        return steps

    # Twice the text needs at most three times the calls; a quadratic pass needs four times as many.
    assert count_steps(8_192) <= 3 * count_steps(4_096) + 100


@pytest.mark.parametrize(
    "piece", ["<a b='\"", '<a b="<a on=', "<!--", "<scr<script>ipt>", "\"on'on", "<a<a/on="]
)
def test_256_kib_of_markup_become_inert(piece: str) -> None:
    text = (piece * 262_144)[:262_144]

    assert sanitize(sanitize(text)) == sanitize(text)
    assert_only_spaces_were_inserted(text, sanitize(text))


# --- Text that cannot be stored ------------------------------------------------------------------------


def test_ordinary_text_has_no_problem() -> None:
    assert text_problem("") is None
    assert text_problem("BP <120/80 & 👩‍⚕️ 患者\r\n\t") is None


@pytest.mark.parametrize("text", ["\0", "K 3.5\0", "a\0b"])
def test_the_nul_character_is_refused(text: str) -> None:
    assert text_problem(text) == "must not contain the NUL character (U+0000)"


@pytest.mark.parametrize("text", ["\ud83d", "x\udc4dx", "\udc00\ud800"])
def test_an_unpaired_surrogate_is_refused(text: str) -> None:
    problem = text_problem(text)

    assert problem is not None
    assert "unpaired surrogate (U+D" in problem


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_all_other_unicode_is_accepted(text: str) -> None:
    assert text_problem(text) is None
