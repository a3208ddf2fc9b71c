"""Charts of reports: well-formed, accessible, the same bytes each time, and without hidden figures."""

from __future__ import annotations

import itertools
import re
from decimal import Decimal
from xml.etree import ElementTree as ET

import pytest

from services.charts.scale import scale_of, short_number
from services.charts.svg import Drawing, shortened, text_width
from tests.support.clinic import Caller, Clinic

NAMESPACE = "{http://www.w3.org/2000/svg}"
REPORTS = ("revenue", "doctor-performance", "patient-stats", "dashboard")


def chart(caller: Caller, name: str, query: str = "") -> ET.Element:
    response = caller.get(f"/analytics/{name}?format=svg{query}")
    assert (response.status_code, response.mimetype) == (200, "image/svg+xml")
    return ET.fromstring(response.get_data())


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{NAMESPACE}text")]


@pytest.mark.parametrize("name", REPORTS)
def test_a_chart_is_accessible_and_has_the_same_bytes_each_time(clinic: Clinic, name: str) -> None:
    clinic.bill("100.00", amount_paid="40.00", doctor_id=clinic.doctor.doctor_id)
    path = f"/analytics/{name}"
    first = clinic.admin.get(path, headers={"Accept": "image/svg+xml"})
    again = clinic.admin.get(f"{path}?format=svg")
    confirmed = clinic.admin.get(f"{path}?format=svg", headers={"If-None-Match": first.headers["ETag"]})

    assert first.get_data() == again.get_data()
    assert confirmed.status_code == 304
    assert first.headers["Cache-Control"] == "private, no-cache"
    root = ET.fromstring(first.get_data())
    assert root.get("role") == "img"
    names = {element.get("id"): element.text for element in root}
    assert all(names[reference] for reference in (root.get("aria-labelledby") or "").split())
    # the content security policy refuses styles, and a drawing needs no script
    assert not re.search(rb"<(script|style|image|use|foreignObject)|style=|href=|on\w+=", first.get_data())


def test_a_chart_shows_the_figures_of_its_report(clinic: Clinic) -> None:
    doctor_id = clinic.doctor_row(name="Zoë & <Sons>")["id"]
    clinic.bill("1234.50", amount_paid="400.00", doctor_id=doctor_id)

    revenue = chart(clinic.admin, "revenue", "&group_by=year")
    doctors = texts(chart(clinic.admin, "doctor-performance"))

    assert {"1,234.50", "400.00"} <= set(texts(revenue))
    description = next(element.text for element in revenue if element.get("id") == "description")
    assert "billed 1,234.50 USD, net revenue 400.00 USD" in (description or "")
    assert "Zoë & <Sons>" in doctors


def test_the_chart_of_today_has_no_money_for_roles_without_bills(clinic: Clinic) -> None:
    clinic.bill("100.00", amount_paid="40.00")

    assert "40.00" in texts(chart(clinic.admin, "dashboard"))
    assert not [text for text in texts(chart(clinic.technician, "dashboard")) if "USD" in text]
    assert clinic.receptionist.get("/analytics/doctor-performance?format=svg").status_code == 403


def test_many_periods_are_lines_and_labels_do_not_overlap(clinic: Clinic) -> None:
    root = chart(clinic.admin, "revenue", "&start_date=2025-01-01&end_date=2025-12-31")

    labels = [
        (float(element.get("x") or 0), element.text or "")
        for element in root.iter(f"{NAMESPACE}text")
        if re.fullmatch(r"\d{4}-\d\d-\d\d", element.text or "")
    ]
    assert len(labels) > 5
    assert all(right[0] - left[0] > 70 for left, right in itertools.pairwise(labels))
    assert root.findall(f"{NAMESPACE}path[@stroke-dasharray]")


PHONE = 390  # pixels
LEAST = 9  # pixels of a text on a phone: about 2.8 mm on A5


@pytest.mark.parametrize("name", REPORTS)
def test_the_texts_of_a_chart_are_readable_on_a_phone_and_inside_the_drawing(
    clinic: Clinic, name: str
) -> None:
    for number in range(3):
        doctor = clinic.doctor_row(name=f"Dr. Elizabeth Montgomery {number}")["id"]
        clinic.bill("1234567.50", amount_paid="1000000.00", doctor_id=doctor)

    root = chart(clinic.admin, name)

    width, height = (float(root.get(side) or 0) for side in ("width", "height"))
    for element in root.iter(f"{NAMESPACE}text"):
        size, x, y = (float(element.get(member) or 0) for member in ("font-size", "x", "y"))
        long = text_width(element.text or "", size=int(size))
        start = {"start": x, "middle": x - long / 2, "end": x - long}[element.get("text-anchor") or ""]
        assert size * PHONE / width >= LEAST, element.text
        assert start >= 0, element.text
        assert start + long <= width, element.text
        assert size <= y < height, element.text


@pytest.mark.parametrize(
    ("values", "whole", "ends", "step"),
    [
        ([], False, (0, 1), 0.2),
        ([0, 0], True, (0, 1), 1),
        ([3], True, (0, 3), 1),
        ([Decimal("9999999999.99")], False, (0, 1e10), 2e9),
        ([-632, 7604], False, (-2000, 8000), 2000),
        ([-5], False, (-5, 0), 1),
        ([0.3, 0.1], False, (0, 0.3), 0.1),
    ],
)
def test_an_axis_has_round_steps_and_contains_zero(
    values: list[float | Decimal], whole: bool, ends: tuple[float, float], step: float
) -> None:
    scale = scale_of(values, whole=whole)

    assert (scale.low, scale.high) == pytest.approx(ends)
    assert scale.step == pytest.approx(step)
    assert scale.ticks()[-1] == pytest.approx(scale.high)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.5, "0.5"), (-2000, "-2k"), (12_500, "12.5k"), (3e6, "3M"), (1e10, "10G")]
)
def test_the_numbers_of_an_axis_are_short(value: float, text: str) -> None:
    assert short_number(value) == text


def test_a_drawing_escapes_texts_and_drops_characters_that_xml_forbids() -> None:
    drawing = Drawing(10, 10, title='<&">', description="a\x0b\uffffb")
    drawing.text(1, 1, "</text><script>alert(1)</script>")

    root = ET.fromstring(drawing.content())

    assert [element.text for element in root][:2] == ['<&">', "ab"]
    assert texts(root) == ["</text><script>alert(1)</script>"]


def test_a_long_name_is_cut_with_an_ellipsis() -> None:
    assert shortened("Dr. Ada Quill", 200) == "Dr. Ada Quill"
    assert shortened("Dr. Elizabeth Montgomery-Featherstonehaugh", 100).endswith("…")
