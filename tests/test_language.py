"""The language of documents, docstrings and comments: plain words, short sentences."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.uncounted  # reads files, and runs nothing of the server

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (
    "api",
    "cache",
    "commands",
    "data",
    "database",
    "docs",
    "migrations",
    "resources",
    "schemas",
    "security",
    "services",
    "tests",
)
MAX_WORDS = 30  # in one sentence of a docstring
# Archaic or figurative words for which there is a standard technical term.
AVOIDED = re.compile(
    r"\b(whom|whoever|whosoever|for ever|the own|but for|be it|told|foretells?|spelled|spelt|judged|lies"
    r"|hands? out|handed out|thereof|whence)\b",
    re.IGNORECASE,
)

# A clause used as a noun: "What is stored." or "Return how many rows there are."
CLAUSE = re.compile(r"(Return (about )?)?(what|who|whose|how|where)\b", re.IGNORECASE)


def files() -> list[Path]:
    """Return the Python files and the Markdown documents of the project."""
    found = [path for suffix in ("py", "md") for path in ROOT.glob(f"*.{suffix}")]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md")]
    return sorted(found)


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield node.body[0].lineno, text


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each comment. Adjacent comment lines are one comment."""
    first, last, lines = 0, -1, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            if line != last + 1:
                yield first, " ".join(lines)
                first, lines = line, []
            last = line
            lines.append(token.string.lstrip("# "))
    yield first, " ".join(lines)


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each piece of prose, without code blocks and quotations."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        source = re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), source, flags=re.M | re.S)
        yield from (item for item in enumerate(source.splitlines(), 1) if not item[1].startswith(">"))
    else:
        yield from docstrings(source)
        yield from comments(source)


def without_code(text: str) -> str:
    """Return the text with each `literal` replaced by a dash, on one line."""
    return re.sub(r"\s+", " ", re.sub(r"`[^`]*`", "-", text))


def sentences(docstring: str) -> Iterator[str]:
    """Yield the sentences of a docstring. Paragraphs, list items and tables end a sentence, too."""
    for block in re.split(r"\n\s*\n|\n\s*[-*] |\n(?= {4})", docstring):
        yield from re.split(r"(?<=[.!?;:])\s", without_code(block))


def problems(path: Path) -> list[str]:
    """Return the violations of the rules in a file."""
    result = [
        f"line {line}: avoid '{match[0]}'"
        for line, text in prose(path)
        for match in AVOIDED.finditer(without_code(text))
    ]
    if path.suffix == ".py":
        for line, text in docstrings(path.read_text(encoding="utf-8")):
            if not text.splitlines()[0].rstrip().endswith((".", "?", "!", ":")):
                result.append(f"line {line}: the first line of a docstring ends with a period")
            if CLAUSE.match(text):
                result.append(f"line {line}: name the thing with a noun instead of a clause: {text[:50]}...")
            result += [
                f"line {line}: a sentence with more than {MAX_WORDS} words: {sentence[:50]}..."
                for sentence in sentences(text)
                if len(sentence.split()) > MAX_WORDS
            ]
    return result


def test_documents_docstrings_and_comments_are_plain() -> None:
    wrong = [f"{path.relative_to(ROOT)}: {problem}" for path in files() for problem in problems(path)]

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"""The caller whom the token names."""', "line 1: avoid 'whom'"),
        ("# one\n# but\n# for this\n", "line 1: avoid 'but for'"),
        ('"""Return what is stored."""', "line 1: name the thing with a noun"),
        ('"""A module without an end"""', "line 1: the first line of a docstring ends with a period"),
        ('def f():\n    """Return it.\n\n    ' + "word " * 31 + '."""', "line 2: a sentence with more than"),
    ],
)
def test_the_check_reports_a_violation(tmp_path: Path, source: str, expected: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(source, encoding="utf-8")

    found = problems(path)

    assert len(found) == 1
    assert found[0].startswith(expected)


@pytest.mark.parametrize("text", ["`whom` is a literal.", "```\nwhom\n```", "> persons to whom"])
def test_code_and_quotations_in_a_document_are_not_checked(tmp_path: Path, text: str) -> None:
    path = tmp_path / "document.md"
    path.write_text(text, encoding="utf-8")

    assert problems(path) == []
