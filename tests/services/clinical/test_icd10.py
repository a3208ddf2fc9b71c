"""ICD-10-CM table: valid codes, their printed form and their titles."""

import gzip
import subprocess
import sys

import pytest

from services.clinical import icd10
from tests.support.clinic import Clinic

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
def test_a_category_and_a_full_code_are_valid_with_their_official_title(code: str, title: str) -> None:
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
def test_a_code_outside_the_release_is_invalid(code: str) -> None:
    tolerated = {"E11.", "E11.9\n"}  # a trailing dot or space is a typing error

    assert icd10.is_valid(code) is (code in tolerated)


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
def test_a_code_is_valid_in_any_case_with_or_without_its_dot(typed: str, printed: str) -> None:
    assert icd10.normalize(typed) == printed
    assert icd10.is_valid(typed)


def test_a_text_that_is_not_a_code_becomes_upper_case_and_loses_outer_spaces() -> None:
    assert icd10.normalize(" not a code ") == "NOT A CODE"


def test_lines_of_the_table_are_found_by_their_code() -> None:
    lines = gzip.decompress(icd10.TABLE.read_bytes()).decode().splitlines()
    pairs = [tuple(line.split("\t")) for line in lines]

    assert pairs[0] == ("#", icd10.RELEASE)
    assert len(pairs) == 98_187
    assert [code for code, _ in pairs] == sorted({code for code, _ in pairs})
    # The first and last lines, and every 97th between them.
    for code, title in [*pairs[1:4], *pairs[4::97], *pairs[-3:]]:
        assert icd10.normalize(code) == code
        assert icd10.describe(code) == title


def test_the_table_is_read_on_first_use() -> None:
    program = (
        "from services.clinical import icd10; before = icd10._load.cache_info().currsize;"
        "icd10.describe('E11.9'); print(before, icd10._load.cache_info().currsize)"
    )

    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert answer.stdout.split() == ["0", "1"]


def test_a_code_is_billable_if_no_code_is_below_it() -> None:
    for header in ("E11", "e11", "S72.0", "S72.001", "Z3A", "A00", "M1A.0"):
        assert icd10.is_header(header), header
    for code in ("E11.9", "e119", "I10", "B20", "S72.001A", "M1A.00X0", "Z99.89"):
        assert not icd10.is_header(code), code
    assert not icd10.is_header("E11.99")  # not in the table


def test_a_header_code_is_a_warning_in_a_visit_and_in_a_medical_history(clinic: Clinic) -> None:
    visit = clinic.visit(diagnoses=[{"icd10": "e11"}, {"icd10": "J02.9"}, {"description": "Cough"}])
    history = f"/patients/{visit['patient_id']}/medical-history"
    conditions = [{"name": "Fracture", "icd10": "S72.001"}, {"name": "Asthma", "icd10": "J45.909"}]

    for answer, code in (
        (visit, "E11"),
        (clinic.doctor.get(f"/visits/{visit['id']}").get_json(), "E11"),
        (clinic.doctor.patch(history, {"conditions": conditions}).get_json(), "S72.001"),
        (clinic.doctor.get(history).get_json(), "S72.001"),
    ):
        (warning,) = answer["warnings"]
        assert (warning["code"], warning["icd10"]) == ("not_billable", code)
        assert "more specific codes" in warning["message"]
    receptionist = clinic.receptionist.get(f"/visits/{visit['id']}").get_json()
    assert receptionist.keys().isdisjoint({"warnings", "diagnoses"})
    assert clinic.visit(diagnoses=[{"icd10": "J02.9"}])["warnings"] == []
