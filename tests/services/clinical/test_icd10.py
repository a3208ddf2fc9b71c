"""The table of diagnoses: which codes are valid, how they are written, what they say."""

import gzip
import subprocess
import sys

import pytest

from services.clinical import icd10

CODES = [
    ("E11", "Type 2 diabetes mellitus"),
    ("E11.9", "Type 2 diabetes mellitus without complications"),
    ("I10", "Essential (primary) hypertension"),
    ("J45.909", "Unspecified asthma, uncomplicated"),
    ("B20", "Human immunodeficiency virus [HIV] disease"),
    ("C7A", "Malignant neuroendocrine tumors"),
    ("M1A.00X0", "Idiopathic chronic gout, unspecified site, without tophus (tophi)"),
    ("Z3A.20", "20 weeks gestation of pregnancy"),
    ("U07.1", "COVID-19"),
    (
        "S72.001A",
        "Fracture of unspecified part of neck of right femur, initial encounter for closed fracture",
    ),
    ("V97.33XD", "Sucked into jet engine, subsequent encounter"),
]


@pytest.mark.parametrize(("code", "title"), CODES)
def test_a_category_and_a_full_code_are_valid_and_have_their_official_title(code: str, title: str) -> None:
    assert icd10.is_valid(code)
    assert icd10.describe(code) == title


@pytest.mark.parametrize(
    "code",
    [
        "",
        " ",
        "E",
        "E1",
        "E11.",
        "E11.99",
        "E119.9",
        "Q99.99",
        "S72.001Z",
        "A00-A09",  # a block
        "4",  # a chapter
        "IV",
        "#",
        "diabetes",
        "E11.9\tType 2",
        "E11.9\n",
        "Ｅ11.9",
        "E١١",
        "250.00",  # ICD-9
    ],
)
def test_what_the_release_does_not_hold_is_no_diagnosis(code: str) -> None:
    known_by_its_category = {"E11.", "E11.9\n"}  # a trailing dot or blank is a slip of the pen

    assert icd10.is_valid(code) is (code in known_by_its_category)


@pytest.mark.parametrize(
    ("typed", "printed"),
    [
        ("e119", "E11.9"),
        (" E11.9 ", "E11.9"),
        ("E11.", "E11"),
        ("e11", "E11"),
        ("s72001a", "S72.001A"),
        ("c7a", "C7A"),
        ("m1a00x0", "M1A.00X0"),
    ],
)
def test_a_code_is_known_however_it_is_typed(typed: str, printed: str) -> None:
    assert icd10.normalize(typed) == printed
    assert icd10.is_valid(typed)


def test_normalising_what_is_no_code_changes_case_alone() -> None:
    assert icd10.normalize(" not a code ") == "NOT A CODE"


def test_every_line_of_the_table_is_found_under_its_own_code() -> None:
    lines = gzip.decompress(icd10.TABLE.read_bytes()).decode().splitlines()
    pairs = [tuple(line.split("\t")) for line in lines]

    assert pairs[0] == ("#", icd10.RELEASE)
    assert len(pairs) == 98_187
    assert [code for code, _ in pairs] == sorted({code for code, _ in pairs})
    # The ends of the table, and every 97th between them.
    for code, title in [*pairs[1:4], *pairs[4::97], *pairs[-3:]]:
        assert icd10.normalize(code) == code
        assert icd10.describe(code) == title


def test_the_table_is_read_at_the_first_question_and_quickly() -> None:
    program = (
        "import time; from services.clinical import icd10; assert not icd10._read.cache_info().currsize;"
        "start = time.process_time(); icd10.describe('E11.9'); print(time.process_time() - start)"
    )

    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert float(answer.stdout) < 0.15  # seconds of CPU
