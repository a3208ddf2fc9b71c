"""The console of `GET /docs`: its files, its policy, and no other host.

`python -m tests.browser` tries it in a browser.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.docs.console import ASSETS
from tests.api.test_docs import Page
from tests.conftest import settings_for
from tests.support.clinic import Clinic

FILES = ("/docs", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css")
MEDIA = ("text/html; charset=utf-8", "text/javascript; charset=utf-8", "text/css; charset=utf-8")


@pytest.fixture(scope="module")
def shared_clinic(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """Return a clinic that the tests of this module share."""
    path = tmp_path_factory.mktemp("console") / "clinic.db"
    shutil.copy(sqlite_template, path)
    clinic = Clinic(settings_for(f"sqlite:///{path}"))
    yield clinic
    clinic.close()


def digest(text: str) -> str:
    """Return the hash of an inline script or style in the form of a policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_page_loads_only_files_of_this_server(shared_clinic: Clinic) -> None:
    html = shared_clinic.nobody.get("/docs").get_data(as_text=True)
    page = Page()
    page.feed(html)

    assert set(page.links) == {"data:,", "/", *FILES[1:]}
    assert not {name for name in page.attributes if name.startswith("on") or name == "style"}
    for path in FILES[1:]:
        assert shared_clinic.nobody.get(path).status_code == 200


def test_the_policy_permits_no_inline_code_and_no_other_host(shared_clinic: Clinic) -> None:
    response = shared_clinic.nobody.get("/docs")
    html = response.get_data(as_text=True)
    policy = dict(
        part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";")
    )
    scripts = re.findall("<script>(.*?)</script>", html, re.DOTALL)
    styles = re.findall("<style>(.*?)</style>", html, re.DOTALL)

    assert policy == {
        "default-src": "'none'",
        "script-src": " ".join(["'self'", *map(digest, scripts)]),
        "style-src": " ".join(["'self'", *map(digest, styles)]),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert len(scripts) == len(styles) == 1
    assert "://" not in scripts[0] + styles[0]
    assert not re.search(r"url\((?!\"?data:)|@import", (ASSETS / "swagger-ui.css").read_text())


@pytest.mark.parametrize(("path", "media"), list(zip(FILES, MEDIA, strict=True)))
def test_a_file_is_compressed_and_has_an_entity_tag(shared_clinic: Clinic, path: str, media: str) -> None:
    plain = shared_clinic.nobody.get(path)
    packed = shared_clinic.nobody.get(path, headers={"Accept-Encoding": "gzip"})
    tag = packed.headers["ETag"]
    again = shared_clinic.nobody.get(path, headers={"Accept-Encoding": "gzip", "If-None-Match": tag})

    assert plain.content_type == media
    assert gzip.decompress(packed.data) == plain.data
    assert len(packed.data) < len(plain.data) / 2
    assert again.status_code == 304
    assert again.data == b""
    for response in (plain, packed, again):
        assert response.headers["Cache-Control"] == "public, no-cache"


def test_the_files_of_swagger_ui_are_the_published_ones() -> None:
    readme = (ASSETS / "README.md").read_text()
    hashes = dict(re.findall(r"^\| `([^`]+)` \| `([0-9a-f]{64})` \|$", readme, re.MULTILINE))

    assert set(hashes) == {"swagger-ui-bundle.js", "swagger-ui.css"}
    for name, expected in hashes.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == expected
    assert "Apache License" in (ASSETS / "LICENSE").read_text()
    assert "SmartBear" in (ASSETS / "NOTICE").read_text()
