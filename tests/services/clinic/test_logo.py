"""The logo of the clinic: what is accepted, and what is stored of it."""

from __future__ import annotations

import random
import struct
import zlib
from io import BytesIO

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from werkzeug.test import TestResponse

from services.clinic import logo
from services.clinic.logo import MAX_BYTES, MAX_SIDE
from tests.support.clinic import Caller, Clinic
from tests.support.pictures import small_png

SECRET = "taken at 1.2921 S, 36.8219 E"


def put(caller: Caller, content: bytes, media_type: str = "image/png", **headers: str) -> TestResponse:
    return caller.put(
        "/clinic/logo", data=content, headers=headers | {"Content-Type": media_type, **_token(caller)}
    )


def _token(caller: Caller) -> dict[str, str]:
    return {"Authorization": f"Bearer {caller.token}"}


def with_metadata() -> bytes:
    """Return a PNG with a text, EXIF data, a colour profile, and a file after its end."""
    image, file, text = Image.new("RGBA", (30, 20), (9, 99, 199, 128)), BytesIO(), PngInfo()
    text.add_text("Comment", SECRET)
    text.add_itxt("Author", SECRET)
    exif = Image.Exif()
    exif[0x010E] = SECRET  # ImageDescription
    image.save(file, "PNG", pnginfo=text, exif=exif, icc_profile=SECRET.encode())
    return file.getvalue() + b"<script>" + SECRET.encode()


def test_only_the_pixels_of_a_logo_are_stored(clinic: Clinic) -> None:
    sent = with_metadata()

    stored = put(clinic.admin, sent)

    assert stored.status_code == 200, stored.get_data(as_text=True)
    assert stored.get_json()["logo"] == "/clinic/logo"
    shown = clinic.technician.get("/clinic/logo")
    assert (shown.status_code, shown.mimetype) == (200, "image/png")
    assert shown.headers["Cache-Control"] == "private, no-cache"
    with Image.open(BytesIO(shown.data)) as image, Image.open(BytesIO(sent)) as original:
        assert (image.size, image.mode) == ((30, 20), "RGBA")
        assert image.tobytes() == original.tobytes()
        assert image.info == {}
    assert SECRET.encode() not in sent[:40] + shown.data
    assert _chunks(shown.data) == ["IHDR", "IDAT", "IEND"]
    unchanged = clinic.doctor.get(
        "/clinic/logo", headers=_token(clinic.doctor) | {"If-None-Match": shown.headers["ETag"]}
    )
    assert unchanged.status_code == 304
    # the same picture again is no change
    assert put(clinic.admin, sent).headers["ETag"] == stored.headers["ETag"]


def _chunks(content: bytes) -> list[str]:
    names, position = [], 8
    while position < len(content):
        (length,) = struct.unpack_from(">I", content, position)
        names.append(content[position + 4 : position + 8].decode())
        position += length + 12
    return names


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_png_is_accepted(clinic: Clinic, mode: str) -> None:
    response = put(clinic.admin, small_png(mode=mode))

    assert response.status_code == 200, response.get_data(as_text=True)
    with Image.open(BytesIO(clinic.admin.get("/clinic/logo").data)) as image:
        assert image.size == (8, 6)


def png_header(width: int, height: int) -> bytes:
    """Return the beginning of a PNG of this size."""
    data = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + data + struct.pack(">I", zlib.crc32(data))


def test_other_files_are_refused(clinic: Clinic) -> None:
    png, jpeg = small_png(), BytesIO()
    Image.new("RGB", (8, 6)).save(jpeg, "JPEG")
    noise = Image.frombytes("RGB", (300, 300), random.Random(1).randbytes(270_000))
    large = BytesIO()
    noise.save(large, "PNG")
    wrong = [
        b"\x89PNG\r\n\x1a\n",
        jpeg.getvalue(),
        b"<svg onload=alert(1)>",
        png[:-20],
        png[: len(png) // 2],
        png.replace(b"IDAT", b"IDAx"),
        png_header(MAX_SIDE + 1, 1),
        png_header(60_000, 60_000),
        png_header(0, 5),
        small_png((MAX_SIDE + 1, 1)),
        png[:33] + png_header(60_000, 60_000)[8:] + png[33:],
        png[:33] + small_png((MAX_SIDE + 1, 6))[8:],
    ]

    for content in wrong:
        response = put(clinic.admin, content)
        assert response.status_code == 422, (content[:60], response.get_data(as_text=True))
        assert list(response.get_json()["errors"]) == ["logo"]
    assert put(clinic.admin, b"", **{"If-Match": '"9"'}).status_code == 400
    assert put(clinic.admin, jpeg.getvalue(), "image/jpeg").status_code == 415
    assert put(clinic.admin, b"{}", "application/json").status_code == 415
    assert put(clinic.admin, large.getvalue()).status_code == 413
    assert len(large.getvalue()) > MAX_BYTES
    assert put(clinic.receptionist, png).status_code == 403
    assert clinic.admin.get("/clinic/logo").status_code == 404
    assert clinic.admin.get("/clinic").get_json()["logo"] is None


def test_a_picture_that_is_too_large_when_written_again_is_refused(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logo, "MAX_BYTES", 60)  # the limit of the request stays

    response = put(clinic.admin, small_png())

    assert response.status_code == 413
    assert clinic.admin.get("/clinic").get_json()["logo"] is None


def test_a_transparent_colour_of_a_palette_is_kept(clinic: Clinic) -> None:
    file = BytesIO()
    Image.new("P", (2, 2), 0).save(file, "PNG", transparency=0)

    put(clinic.admin, file.getvalue())

    with Image.open(BytesIO(clinic.admin.get("/clinic/logo").data)) as image:
        assert image.convert("RGBA").getpixel((0, 0))[3] == 0


def test_a_grey_image_of_16_bits_keeps_its_shades(clinic: Clinic) -> None:
    file = BytesIO()
    Image.frombytes("I;16", (4, 1), bytes([0, 0, 0, 64, 0, 128, 255, 255])).save(file, "PNG")

    put(clinic.admin, file.getvalue())

    with Image.open(BytesIO(clinic.admin.get("/clinic/logo").data)) as image:
        assert image.tobytes() == bytes([0, 64, 128, 255])


def test_if_match_takes_the_etag_of_the_picture_or_of_the_clinic(clinic: Clinic) -> None:
    def remove(tag: str) -> int:
        return clinic.admin.delete(
            "/clinic/logo", headers=_token(clinic.admin) | {"If-Match": tag}
        ).status_code

    put(clinic.admin, small_png())
    first = clinic.admin.get("/clinic/logo").headers["ETag"]
    other = BytesIO()
    Image.new("RGB", (3, 3), "red").save(other, "PNG")

    assert put(clinic.admin, other.getvalue(), **{"If-Match": first}).status_code == 200
    second = clinic.admin.get("/clinic/logo").headers["ETag"]
    assert [remove(first), put(clinic.admin, small_png(), **{"If-Match": first}).status_code] == [412, 412]
    patched = clinic.admin.patch(
        "/clinic", {"name": "A"}, headers=_token(clinic.admin) | {"If-Match": second}
    )
    assert patched.status_code == 412
    assert remove(second) == 200
    put(clinic.admin, small_png())
    assert remove(clinic.admin.get("/clinic").headers["ETag"]) == 200
    assert remove(first) == 412


def test_a_logo_is_removed(clinic: Clinic) -> None:
    stored = put(clinic.admin, small_png())

    stale = clinic.admin.delete("/clinic/logo", headers=_token(clinic.admin) | {"If-Match": '"1"'})
    removed = clinic.admin.delete("/clinic/logo")
    again = clinic.admin.delete("/clinic/logo")

    assert (stored.headers["ETag"], stale.status_code) == ('"2"', 412)
    assert (removed.status_code, removed.get_json()["logo"]) == (200, None)
    assert again.headers["ETag"] == removed.headers["ETag"]
    assert clinic.admin.get("/clinic/logo").status_code == 404
    changes = clinic.admin.get("/audit-logs?entity=clinic&outcome=success").get_json()
    assert [entry["fields"] for entry in changes] == [["logo"], ["logo"]]
