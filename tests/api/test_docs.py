"""What the API says of itself: complete, valid, and true of the application that says it."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.docs.html import render
from api.docs.json_schema import parameters
from api.docs.registry import registered_endpoints
from errors import CODES, CONSTRAINTS
from services.status_transitions import STATUS_TRANSITIONS
from tests.conftest import MEMORY, settings_for
from tests.support.clinic import PASSWORD, Caller, Clinic
from tests.support.furnished import furnish
from tests.support.servers import ROOT

PACKAGES = ("api", "cache", "commands", "database", "resources", "schemas", "security", "services")
SOURCES = [*ROOT.glob("*.py"), *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]

# Lines of `GET /` that cannot succeed as they stand, since what they need is known to nobody else or row 1 is
# in another state, and what they answer.
REFUSED = {
    "POST /auth/refresh-token": "token_invalid",
    "POST /auth/reset-password": "token_invalid",
    "POST /auth/change-password": "validation_failed",
    "DELETE /patients/{patient_id}": "in_use",
    "POST /visits/{visit_id}/addenda": "conflict",
    "POST /billings/{billing_id}/void": "in_use",
}


@pytest.fixture(scope="module")
def told(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A clinic that is only asked what it offers."""
    path = tmp_path_factory.mktemp("docs") / "clinic.db"
    shutil.copy(sqlite_template, path)
    made = Clinic(settings_for(f"sqlite:///{path}"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def document(told: Clinic) -> dict[str, Any]:
    """The OpenAPI document."""
    found: dict[str, Any] = told.nobody.get("/openapi.json").get_json()
    return found


@pytest.fixture(scope="module")
def guide(told: Clinic) -> dict[str, Any]:
    """The JSON of `GET /`."""
    found: dict[str, Any] = told.nobody.get("/").get_json()
    return found


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """(method, path) -> operation."""
    return {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def endpoints(guide: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """(method, path) -> what `GET /` says of it."""
    return {(one["method"], one["path"]): one for domain in guide["domains"].values() for one in domain}


def resolved(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """What a local reference stands for."""
    while "$ref" in part:
        where = part["$ref"].removeprefix("#/").split("/")
        part = document
        for name in where:
            part = part[name]
    return part


def validator(document: dict[str, Any], schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """Judges a value by a schema of the document."""
    return jsonschema.Draft202012Validator(
        {**schema, "components": document["components"]},
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    )


# --- Complete ------------------------------------------------------------------------------------------


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_every_route_stands_in_both_documents(
    told: Clinic, document: dict[str, Any], guide: dict[str, Any]
) -> None:
    routed = {(entry.method, entry.path) for entry in registered_endpoints(told.app)}

    assert set(operations(document)) == routed
    assert set(endpoints(guide)) == routed


def test_nothing_is_undocumented(document: dict[str, Any]) -> None:
    missing = [
        f"{method} {path}: {problem}"
        for (method, path), operation in operations(document).items()
        for problem in undocumented(document, operation)
    ]

    assert not missing, "\n".join(missing)


def undocumented(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    """What an operation leaves unsaid."""
    if not operation.get("summary", "").endswith("."):
        yield "no summary"
    for parameter in operation["parameters"]:
        found = resolved(document, parameter)
        if not found.get("description"):
            yield f"parameter {found['name']} without description"
        if not found.get("schema"):
            yield f"parameter {found['name']} without schema"
    for status, response in operation["responses"].items():
        if not response.get("description"):
            yield f"{status} without description"
        for media, content in response.get("content", {}).items():
            if not content.get("schema"):
                yield f"{status} {media} without schema"
    if not operation["x-roles"]:
        yield "nobody may"


def test_an_undocumented_operation_is_found(document: dict[str, Any]) -> None:
    silent = {
        "parameters": [{"name": "q", "in": "query", "schema": {}}],
        "responses": {"200": {"description": "", "content": {"application/json": {}}}},
        "x-roles": [],
    }

    assert len(list(undocumented(document, silent))) == 6


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(document).values()]

    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]+", name) for name in names)


def test_the_guide_tells_of_every_endpoint_what_a_caller_needs(told: Clinic, guide: dict[str, Any]) -> None:
    found = endpoints(guide)

    for entry in registered_endpoints(told.app):
        one = found[entry.method, entry.path]
        assert one["summary"]
        assert one["roles"] == entry.roles
        assert [each["name"] for each in one["parameters"]] == [each["name"] for each in parameters(entry)]
        assert one["answer"]["status"] == entry.spec.status
        assert one["curl"].startswith(f"curl -X {entry.method} http://localhost:5000/")
        assert ("body" in one) == (entry.spec.body is not None)


def test_the_guide_tells_the_graphs_the_codes_and_the_limits(guide: dict[str, Any]) -> None:
    assert guide["status_graphs"] == STATUS_TRANSITIONS
    assert set(STATUS_TRANSITIONS) == {"appointment", "visit", "treatment", "prescription", "refund", "claim"}
    assert set(guide["status_graphs"]["appointment"]["no_show"]) == {"completed", "scheduled"}
    assert {code: one["status"] for code, one in guide["errors"].items()} == {
        code: status for code, (status, _title) in CODES.items()
    }
    assert guide["limits"]["body_bytes"] == 256 * 1024
    assert guide["limits"]["requests"] == "600 per minute"
    assert guide["links"]["openapi"] == "/openapi.json"


# --- True ----------------------------------------------------------------------------------------------


def test_every_example_of_a_body_is_valid(document: dict[str, Any]) -> None:
    wrong = {
        operation["operationId"]: [
            error.message for error in validator(document, schema).iter_errors(example)
        ]
        for operation in operations(document).values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        for schema, example in [(content["schema"], content["example"])]
    }

    assert len(wrong) > 30
    assert {name: errors for name, errors in wrong.items() if errors} == {}


def test_every_example_of_an_answer_is_valid(document: dict[str, Any], guide: dict[str, Any]) -> None:
    wrong = {
        f"{method} {path}": errors
        for (method, path), one in endpoints(guide).items()
        if (errors := answer_errors(document, one["answer"]))
    }

    assert wrong == {}


def answer_errors(document: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """Why an example of an answer is none."""
    found = validator(document, answer["schema"]).iter_errors(answer["example"])
    return [f"{error.json_path}: {error.message}" for error in found]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place for databases that are copied over and over."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        yield Path(name)


def send(caller: Caller, line: str) -> Any:
    """What a curl line would get, sent through the test client."""
    words = shlex.split(line.replace("$TOKEN", caller.token or ""))
    assert words[:2] == ["curl", "-X"], line
    method, url, *options = words[2:]
    headers, data = {}, None
    for option, value in zip(options[::2], options[1::2], strict=True):
        if option == "-H":
            name, _, text = value.partition(": ")
            headers[name] = text
        else:
            assert option == "-d", line
            data = value
    path = url.removeprefix("http://localhost:5000")
    return caller.clinic.nobody.send(method, path, headers=headers, data=data)


def test_every_curl_line_works_where_row_1_exists(
    sqlite_template: Path, folder: Path, document: dict[str, Any]
) -> None:
    path, kept = folder / "clinic.db", folder / "furnished.db"
    shutil.copy(sqlite_template, path)
    clinic = Clinic(settings_for(f"sqlite:///{path}"))
    furnish(clinic)
    clinic.admin.make("/users", name="Admin", email="admin@clinic.com", password=PASSWORD, role="admin")
    clinic.close()
    shutil.copy(path, kept)

    answered = {}
    for key, one in endpoints(clinic.nobody.get("/").get_json()).items():
        shutil.copy(kept, path)  # each line meets row 1 of everything as it was made
        answer = send(clinic.admin, one["curl"])
        clinic.close()
        assert str(answer.status_code) in operations(document)[key]["responses"], (key, answer.status_code)
        answered[" ".join(key)] = answer.get_json(silent=True)["error"] if answer.status_code >= 400 else ""

    assert {line: code for line, code in answered.items() if code} == REFUSED, answered
    assert len(answered) > 90


def test_the_curl_lines_of_the_first_readme_work_as_written(told: Clinic) -> None:
    told.admin.make("/users", name="Admin", email="admin@clinic.com", password=PASSWORD, role="admin")
    login = """curl -X POST http://localhost:5000/auth/login
        -H "Content-Type: application/json" -d '{"email": "admin@clinic.com", "password": "%s"}' """
    create = """curl -X POST http://localhost:5000/patients
        -H "Content-Type: application/json" -H "Authorization: Bearer $TOKEN"
        -d '{
            "name": "John Doe",
            "phone": "+1234567890",
            "email": "john@example.com",
            "gender": "male",
            "date_of_birth": "1990-01-01"
        }'"""
    search = '''curl -X GET "http://localhost:5000/patients/search?q=john&gender=male"
        -H "Authorization: Bearer $TOKEN"'''

    signed_in = send(told.nobody, login % PASSWORD)
    caller = Caller(told, signed_in.get_json()["access_token"])
    me = send(caller, 'curl -X GET http://localhost:5000/auth/me -H "Authorization: Bearer $TOKEN"')
    before = send(caller, 'curl -X GET http://localhost:5000/patients -H "Authorization: Bearer $TOKEN"')
    created = send(caller, create)
    found = send(caller, search)

    assert signed_in.status_code == 200
    assert me.get_json()["email"] == "admin@clinic.com"
    assert before.get_json() == []
    assert created.status_code == 201
    assert [row["id"] for row in found.get_json()["patients"]] == [created.get_json()["id"]]
    assert found.get_json()["pagination"]["total_count"] == 1


# --- Error codes ---------------------------------------------------------------------------------------


def raised(tree: ast.AST) -> Iterator[str]:
    """The codes that a module raises."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "ClinicError":
            yield from (one.value for one in ast.walk(node.args[0]) if isinstance(one, ast.Constant))


def declared(tree: ast.AST) -> Iterator[str]:
    """The codes that the endpoints of a module declare."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "errors" and isinstance(node.value, ast.Tuple):
            yield from (one.value for one in node.value.elts if isinstance(one, ast.Constant))


def texts(tree: ast.AST) -> Iterator[str]:
    """Every text of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_code_that_is_raised_or_declared_is_listed_and_no_other() -> None:
    trees = {path: ast.parse(path.read_text()) for path in SOURCES}
    spoken = {text for path, tree in trees.items() if path.name != "errors.py" for text in texts(tree)}
    in_constraints = {code for code, _field, _message in CONSTRAINTS.values()}
    in_errors = set(raised(trees[ROOT / "errors.py"]))

    for path, tree in trees.items():
        assert set(raised(tree)) | set(declared(tree)) <= set(CODES), path.name
    assert in_constraints <= set(CODES)
    assert set(CODES) - spoken - in_constraints - in_errors == set()


# --- The page ------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in ("href", "src"):
                self.links.append(value or "")
            if name == "id":
                self.anchors.add(value or "")


def test_a_browser_gets_a_page_that_loads_nothing(told: Clinic) -> None:
    answer = told.nobody.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    html = answer.get_data(as_text=True)
    page = Page()
    page.feed(html)

    style = re.search("<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert answer.content_type.startswith("text/html")
    assert f"style-src 'sha256-{digest}'" in answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert not {"script", "img", "link", "iframe", "form", "object", "base"} & set(page.tags)
    assert not {name for name in page.attributes if name.startswith("on") or name in ("style", "src")}
    assert "@import" not in style[1]
    assert "url(" not in style[1]
    assert all(link.startswith("#") or link == "/openapi.json" for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.anchors
    assert page.tags.count("details") == len(registered_endpoints(told.app))
    assert "`" not in html
    assert "<code>METRICS_TOKEN</code>" in html


def test_programs_get_json(told: Clinic) -> None:
    for accept in ("*/*", "application/json", "application/json, text/html;q=0.5"):
        answer = told.nobody.get("/", headers={"Accept": accept})

        assert answer.content_type == "application/json"
        assert answer.headers["Vary"] == "Accept"


def test_every_text_of_the_page_is_escaped(guide: dict[str, Any]) -> None:
    hostile = "<img src=x onerror=alert(1)>&\"'"
    spoiled = json.loads(json.dumps(guide))
    spoiled["name"] = spoiled["conventions"]["time"] = spoiled["url"] = hostile
    spoiled["domains"] = {hostile: spoiled["domains"]["patients"]}
    spoiled["status_graphs"] = {hostile: {hostile: [hostile]}}
    spoiled["errors"] = {hostile: {"status": 400, "title": hostile}}
    spoiled["limits"] = {hostile: hostile}
    for one in spoiled["domains"][hostile]:
        one |= {"path": hostile, "summary": hostile, "description": hostile, "roles": [hostile]}
        one |= {"curl": hostile, "errors": {hostile: [hostile]}}
        one["parameters"] = [{"name": hostile, "in": hostile, "description": hostile}]
        one["answer"] |= {"media": [hostile], "example": {hostile: hostile}}

    html = render(spoiled)

    page = Page()
    page.feed(html)
    assert "img" not in page.tags
    assert "onerror" not in page.attributes
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") > 50
