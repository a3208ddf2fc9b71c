"""The QR code of a document: it is read from the picture of the page, and it needs `PUBLIC_URL`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pypdfium2
import pytest
import zxingcpp

from tests.support import pdf
from tests.support.clinic import Clinic

PUBLIC = "https://appointments.lakeside-clinic.example"
SCALE = 3  # pixels for a point
MIN_SIDE = 20  # millimetres


def paths_of(clinic: Clinic) -> dict[str, str]:
    """Return the paths of documents of one bill."""
    bill = clinic.bill("100.00", amount_paid="60.00", payment_method="cash")
    payment_id = bill["payments"][0]["id"]
    return {
        "invoice": f"/billings/{bill['id']}/document?type=invoice",
        "receipt": f"/billings/{bill['id']}/document?type=receipt",
        "payment": f"/billings/{bill['id']}/payments/{payment_id}/receipt?",
    }


def code_on(document: bytes) -> tuple[str, float]:
    """Return the content of the only code on the first page, and its side in millimetres."""
    picture = pypdfium2.PdfDocument(document)[0].render(scale=SCALE).to_pil()
    (code,) = zxingcpp.read_barcodes(picture)
    side = code.position.top_right.x - code.position.top_left.x
    return code.text, side / SCALE / 72 * 25.4


@pytest.mark.parametrize("locale", ["en", "ar"])
def test_each_document_has_a_code_of_its_own_that_is_large_enough(
    make_clinic: Callable[..., Any], locale: str
) -> None:
    clinic: Clinic = make_clinic(public_url=PUBLIC)
    contents = []
    for name, path in paths_of(clinic).items():
        for paper in ("a4", "a5"):
            document = clinic.admin.get(f"{path}&paper={paper}&locale={locale}").get_data()
            content, side = code_on(document)
            assert content.startswith(f"{PUBLIC}/v/"), name
            assert side >= MIN_SIDE, (name, paper)
            assert f"({content})".encode() in document, "no link"
            copied = pypdfium2.PdfDocument(document)[0].get_textpage().get_text_bounded()
            assert "\u200b" not in copied
            if locale == "en":  # the reader changes the order of words on an Arabic page
                assert content in copied.replace("\r\n", ""), (name, paper)
            assert pdf.page_count(document) == 1
            contents.append(content)

    assert len(set(contents)) == 3


def test_there_is_no_code_without_a_public_url(clinic: Clinic) -> None:
    for path in paths_of(clinic).values():
        document = clinic.admin.get(path).get_data()
        assert pdf.codes_of(document) == []
        assert "/v/" not in pdf.text_of(document)
