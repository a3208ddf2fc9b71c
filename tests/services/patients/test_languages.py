"""The language of a patient: canonical tags, changes, filters and order."""

from __future__ import annotations

import pytest

from column_types import canonical_language
from tests.support.clinic import Clinic


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("sw", "sw"),
        ("SW", "sw"),
        (" pt-br ", "pt-BR"),
        ("pt_BR", "pt-BR"),
        ("zh-hant-tw", "zh-Hant-TW"),
        ("es-419", "es-419"),
        ("iw", "he"),
        ("swa", "sw"),
        ("eng", "en"),
        ("kik", "ki"),
        ("prs", "fa-AF"),
        ("en-uk", "en-GB"),
        ("luo", "luo"),
        ("tuv", "tuv"),
    ],
)
def test_a_language_is_stored_in_canonical_form(typed: str, canonical: str) -> None:
    assert canonical_language(typed) == canonical


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "x",
        "english",
        "xx",
        "und",
        "mul",
        "en-XX",
        "en-Abcd",
        "en-GB-oed-x",
        "en--GB",
        "s\u0430",
        "en-x-a",
    ],
)
def test_another_text_is_no_language(wrong: str) -> None:
    with pytest.raises(ValueError, match="BCP 47"):
        canonical_language(wrong)


def test_a_patient_has_a_language(clinic: Clinic) -> None:
    amina = clinic.patient(name="Amina", language="AR")
    joao = clinic.patient(name="João", language="pt_br")
    john = clinic.patient(name="John")

    assert [row["language"] for row in (amina, joao, john)] == ["ar", "pt-BR", None]
    path = f"/patients/{john['id']}"
    assert clinic.receptionist.patch(path, {"language": "swh"}).get_json()["language"] == "sw"
    version = clinic.admin.get(path).headers["ETag"]
    assert clinic.receptionist.patch(path, {"language": "SW"}).headers["ETag"] == version
    assert clinic.admin.patch(path, {"language": "klingon"}).status_code == 422
    assert clinic.admin.post("/patients", {"name": "X", "language": "xx"}).status_code == 422

    def names(query: str) -> list[str]:
        response = clinic.technician.get(f"/patients?{query}")
        assert response.status_code == 200, response.get_data(as_text=True)
        return [row["name"] for row in response.get_json()]

    assert names("language=pt-BR") == ["João"]
    assert names("language=PT_br&language=ar&sort_by=name") == ["Amina", "João"]
    assert names("language_ne=ar") == ["João", "John"]
    assert names("sort_by=language") == ["Amina", "João", "John"]
    assert clinic.admin.get("/patients?language=xx").status_code == 422
    found = clinic.admin.get("/patients/search?q=amina").get_json()["patients"]
    assert [row["language"] for row in found] == ["ar"]
    assert clinic.admin.patch(path, {"language": None}).get_json()["language"] is None
