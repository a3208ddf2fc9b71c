"""The API documentation: complete, valid, and consistent with the application."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import jsonschema
import pyotp
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import TypeAdapter
from sqlalchemy import select

from api.docs import json_schema
from api.docs.examples import VARIABLES
from api.docs.html import render
from api.docs.index import index_document
from api.docs.json_schema import parameters
from api.docs.openapi import openapi_document
from api.docs.registry import registered_endpoints
from create_admin import create_admin
from enums import MessageChannel
from errors import CODES, CONSTRAINTS
from models import Appointment, User
from security.link_tokens import Purpose
from services.documents.qr_code import verification_url
from services.messages import links
from services.status_transitions import STATUS_TRANSITIONS
from services.users import sessions
from tests.conftest import ENGINES, NewDatabase, settings_for
from tests.support.authenticator import Authenticator
from tests.support.calendars import calendar_token
from tests.support.clinic import PASSWORD, Caller, Clinic
from tests.support.furnished import add_dead_job, add_export
from tests.support.imports import dry_run, run, upload
from tests.support.pictures import small_png
from tests.support.servers import ROOT

PACKAGES = ("api", "cache", "commands", "database", "resources", "schemas", "security", "services")
SOURCES = [*ROOT.glob("*.py"), *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]


@pytest.fixture(scope="module")
def shared_clinic(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """Return a clinic that the tests of the documents share."""
    path = tmp_path_factory.mktemp("docs") / "clinic.db"
    shutil.copy(sqlite_template, path)
    clinic = Clinic(settings_for(f"sqlite:///{path}"))
    yield clinic
    clinic.close()


@pytest.fixture(scope="module")
def document(shared_clinic: Clinic) -> dict[str, Any]:
    """Return the OpenAPI document."""
    document: dict[str, Any] = shared_clinic.nobody.get("/openapi.json").get_json()
    return document


@pytest.fixture(scope="module")
def index(shared_clinic: Clinic) -> dict[str, Any]:
    """Return the JSON document of `GET /`."""
    index: dict[str, Any] = shared_clinic.nobody.get("/").get_json()
    return index


def test_the_schema_of_a_type_is_generated_once(
    shared_clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generation takes most of the time of the first request for a document."""
    generated: Counter[Any] = Counter()
    generate = TypeAdapter.json_schema

    def count(adapter: TypeAdapter[Any], **options: Any) -> dict[str, Any]:
        generated[adapter._type, options["mode"]] += 1
        return generate(adapter, **options)

    monkeypatch.setattr(TypeAdapter, "json_schema", count)
    json_schema._generated.cache_clear()

    index_document(shared_clinic.app)
    openapi_document(shared_clinic.app)

    assert set(generated.values()) == {1}
    assert len(generated) > 100


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return (method, path) -> operation."""
    return {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def endpoints(index: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return (method, path) -> description of the endpoint in `GET /`."""
    return {
        (endpoint["method"], endpoint["path"]): endpoint
        for domain in index["domains"].values()
        for endpoint in domain
    }


def resolve(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return the target of a local reference, or the part itself."""
    while "$ref" in part:
        names = part["$ref"].removeprefix("#/").split("/")
        part = document
        for name in names:
            part = part[name]
    return part


def validator(document: dict[str, Any], schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """Return a validator for a schema of the document."""
    return jsonschema.Draft202012Validator(
        {**schema, "components": document["components"]},
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    )


# --- Complete ------------------------------------------------------------------------------------------


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_every_route_is_in_both_documents(
    shared_clinic: Clinic, document: dict[str, Any], index: dict[str, Any]
) -> None:
    registered = {(each.method, each.path) for each in registered_endpoints(shared_clinic.app)}

    assert set(operations(document)) == registered
    assert set(endpoints(index)) == registered


def test_everything_is_documented(document: dict[str, Any]) -> None:
    missing = [
        f"{method} {path}: {problem}"
        for (method, path), operation in operations(document).items()
        for problem in missing_descriptions(document, operation)
    ]

    assert not missing, "\n".join(missing)


def test_the_description_of_the_document_is_complete(document: dict[str, Any]) -> None:
    used = {tag for operation in operations(document).values() for tag in operation["tags"]}
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}

    assert set(tags) == used
    assert all(text.endswith(".") for text in tags.values())
    assert document["info"]["contact"]["name"]
    for (method, path), operation in operations(document).items():
        is_public = operation["x-roles"] == ["anyone"]
        assert operation["security"] == ([] if is_public else [{"bearer": []}, {"cookie": []}]), (
            method,
            path,
        )


def missing_descriptions(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    """Yield the missing descriptions and schemas of an operation."""
    if not operation.get("summary", "").endswith("."):
        yield "no summary"
    for parameter in operation["parameters"]:
        target = resolve(document, parameter)
        if not target.get("description"):
            yield f"parameter {target['name']} without description"
        if not target.get("schema"):
            yield f"parameter {target['name']} without schema"
        elif not has_example(target):
            yield f"parameter {target['name']} without example"
    for status, response in operation["responses"].items():
        if not response.get("description"):
            yield f"{status} without description"
        for media, content in response.get("content", {}).items():
            if not content.get("schema"):
                yield f"{status} {media} without schema"
    if not operation["x-roles"]:
        yield "no roles"


def has_example(parameter: dict[str, Any]) -> bool:
    """Return True if a parameter has an example, a list of values, or a value that only the caller knows."""
    schemas = parameter["schema"].get("anyOf", [parameter["schema"]])
    if any("examples" in schema or "enum" in schema for schema in schemas):
        return True
    return "example" in parameter or any(
        known in parameter.get("description", "") for known in VARIABLES.values()
    )


def test_missing_descriptions_are_detected(document: dict[str, Any]) -> None:
    operation: dict[str, Any] = {
        "parameters": [{"name": "q", "in": "query", "schema": {}}],
        "responses": {"200": {"description": "", "content": {"application/json": {}}}},
        "x-roles": [],
    }

    assert len(list(missing_descriptions(document, operation))) == 6
    assert not has_example({"name": "q", "schema": {"type": "string"}})


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(document).values()]

    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]+", name) for name in names)


def test_the_index_describes_every_endpoint(shared_clinic: Clinic, index: dict[str, Any]) -> None:
    described = endpoints(index)

    for registered in registered_endpoints(shared_clinic.app):
        endpoint = described[registered.method, registered.path]
        names = [parameter["name"] for parameter in endpoint["parameters"]]
        assert endpoint["summary"]
        assert endpoint["roles"] == registered.roles
        assert names == [parameter["name"] for parameter in parameters(registered)]
        assert endpoint["answer"]["status"] == registered.spec.status
        assert endpoint["curl"].startswith(f"curl -X {registered.method} http://localhost/")
        assert ("body" in endpoint) == (registered.spec.body is not None)


def test_the_index_contains_status_transitions_error_codes_and_limits(index: dict[str, Any]) -> None:
    assert index["status_graphs"] == STATUS_TRANSITIONS
    assert set(STATUS_TRANSITIONS) == {"appointment", "visit", "treatment", "prescription", "refund", "claim"}
    assert set(index["status_graphs"]["appointment"]["no_show"]) == {"completed", "scheduled"}
    assert {code: error["status"] for code, error in index["errors"].items()} == {
        code: status for code, (status, _title) in CODES.items()
    }
    assert index["limits"]["body_bytes"] == 256 * 1024
    assert index["limits"]["requests"] == "600 per minute"
    assert index["links"]["openapi"] == "/openapi.json"


def test_the_documents_name_the_url_of_the_caller(shared_clinic: Clinic) -> None:
    for host, expected in (
        ("clinic.example:8443", "http://clinic.example:8443"),
        ("[::1]:5000", "http://[::1]:5000"),
        ('evil"><script>', "http://localhost:5000"),
    ):
        headers = {"Host": host}
        index = shared_clinic.nobody.get("/", headers=headers).get_json()
        document = shared_clinic.nobody.get("/openapi.json", headers=headers).get_json()
        page = shared_clinic.nobody.get("/", headers=headers | {"Accept": "text/html"}).get_data(as_text=True)

        assert index["url"] == expected
        # linters refuse a server at localhost
        assert document["servers"][0]["url"] == expected.replace("localhost", "127.0.0.1")
        assert index["domains"]["patients"][0]["curl"].startswith(f"curl -X GET {expected}/patients ")
        assert f"curl -X GET {expected}/patients " in page
        assert "evil" not in page


# --- Consistent with the application -------------------------------------------------------------------


def test_every_example_of_a_body_is_valid(document: dict[str, Any]) -> None:
    wrong = {
        operation["operationId"]: [
            error.message for error in validator(document, schema).iter_errors(example)
        ]
        for operation in operations(document).values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        if content["schema"].get("format") != "binary"
        for schema, example in [(content["schema"], content["example"])]
    }

    assert len(wrong) > 30
    assert {name: errors for name, errors in wrong.items() if errors} == {}


def test_every_example_of_a_response_is_valid(document: dict[str, Any], index: dict[str, Any]) -> None:
    wrong = {
        f"{method} {path}": errors
        for (method, path), endpoint in endpoints(index).items()
        if (errors := example_errors(document, endpoint["answer"]))
    }

    assert wrong == {}


def example_errors(document: dict[str, Any], response: dict[str, Any]) -> list[str]:
    """Return the validation errors of the example of a response."""
    errors = validator(document, response["schema"]).iter_errors(response["example"])
    return [f"{error.json_path}: {error.message}" for error in errors]


def send(caller: Caller, line: str) -> Any:
    """Send the request of a curl line through the test client."""
    words = shlex.split(line.replace("$TOKEN", caller.token or ""))
    assert words[:2] == ["curl", "-X"], line
    method, url, *options = words[2:]
    headers: dict[str, str] = {}
    data: Any = None
    for option, value in zip(options[::2], options[1::2], strict=True):
        if option == "-H":
            name, _, text = value.partition(": ")
            headers[name] = text
        elif option == "-F":
            name, _, text = value.partition("=")
            form = data if isinstance(data, dict) else {}
            data = form | {name: (BytesIO(PATIENTS), "patients.csv") if name == "file" else text}
        else:
            assert option == "-d" or (option, value) == ("--data-binary", "@file.png"), line
            data = value if option == "-d" else small_png()
    if data is not None and not isinstance(data, dict):
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")  # as curl does
    path = re.sub(r"^http://localhost(:5000)?", "", url)
    return caller.clinic.nobody.send(method, path, headers=headers, data=data)


PATIENTS = b"Name,Phone\nAmina Yusuf,+254 712 345 678\n"
GATEWAY_SECRET = "gateway-" + "k" * 32


def token_of(clinic: Clinic, email: str) -> str:
    """Return an access token of a user whose password nobody knows."""
    with clinic.inside() as session:
        user = session.execute(select(User).where(User.email == email)).scalar_one()
        _row, pair = sessions.open_session(user, device="test", address="127.0.0.1")
        return pair.access_token


def tokens_of_links(clinic: Clinic) -> tuple[str, ...]:
    """Return the tokens of the links of the first appointment, its patient, and the first invoice."""
    with clinic.inside() as session:
        row = session.get_one(Appointment, 1)
        urls = (
            links.answer_url(row),
            links.unsubscribe_url(row.patient_id, MessageChannel.EMAIL),
            verification_url(Purpose.VERIFY_INVOICE, 1),
        )
    return tuple(str(url).rpartition("/")[2] for url in urls)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_curl_line_works_in_a_new_demo_clinic(new_database: NewDatabase, engine: str) -> None:
    clinic = Clinic(
        settings_for(new_database(engine), public_url="http://localhost", sms_callback_secret=GATEWAY_SECRET)
    )
    if engine == "sqlite":  # the admin is the first user, or the last one
        create_admin_and_demo(clinic, "admin", "demo")
    else:
        create_admin_and_demo(clinic, "demo", "admin")
    email = {"email": "admin@clinic.com", "password": PASSWORD}
    signed_in = clinic.nobody.post("/auth/login", email).get_json()
    other_session = clinic.nobody.post("/auth/login", email).get_json()
    caller = Caller(clinic, signed_in["access_token"])
    own_sessions = caller.get("/auth/sessions").get_json()
    factors = SecondFactors(caller)
    reset_token = caller.post("/users/2/password-reset").get_json()["token"]
    session_id = str(next(session["id"] for session in own_sessions if not session["is_current"]))
    doctor = Caller(clinic, token_of(clinic, "amina.yusuf@demo.example"))
    calendar = calendar_token(caller.make("/doctors/1/calendar-feeds"))
    job_id = str(add_dead_job(clinic))
    import_id, new_import_id = (str(upload(caller, PATIENTS)["id"]) for _ in range(2))
    checked = dry_run(caller, upload(caller, PATIENTS)["id"])
    answer_token, unsubscribe_token, document_token = tokens_of_links(clinic)
    export_id = str(add_export(clinic, caller.get("/auth/me").get_json()["id"]))
    values: dict[str, Callable[[], str]] = {
        "$APPOINTMENT_TOKEN": lambda: answer_token,
        "$APPLIED_IMPORT_ID": lambda: str(run(caller, b"Name,Phone\nZoe Mutua,+254 712 345 679\n")["id"]),
        "$CHECKED_IMPORT_ID": lambda: str(checked["id"]),
        "$DIGEST": lambda: checked["digest"],
        "$IMPORT_ID": lambda: import_id,
        "$NEW_IMPORT_ID": lambda: new_import_id,
        "$CALENDAR_TOKEN": lambda: calendar,
        "$CREDENTIAL": factors.credential,
        "$DOCUMENT_TOKEN": lambda: document_token,
        "$EXPORT_ID": lambda: export_id,
        "$JOB_ID": lambda: job_id,
        "$MFA_TOKEN": factors.mfa_token,
        "$PASSWORD": lambda: PASSWORD,
        "$REFRESH_TOKEN": lambda: other_session["refresh_token"],
        "$RESET_TOKEN": lambda: reset_token,
        "$SESSION_ID": lambda: session_id,
        "$SMS_CALLBACK_SECRET": lambda: GATEWAY_SECRET,
        "$TOTP_CODE": factors.totp_code,
        "$UNSUBSCRIBE_TOKEN": lambda: unsubscribe_token,
    }

    statuses, expected = {}, {}
    document = clinic.nobody.get("/").get_json()
    for key, endpoint in endpoints(document).items():
        line = endpoint["curl"]
        for variable in endpoint.get("variables", {}):
            assert variable in line
            line = line.replace(variable, values[variable]().replace('"', r"\""))
        response = send(caller if "admin" in endpoint["roles"] else doctor, line)
        body = response.get_json(silent=True) or {"message": "a page"}
        statuses[key] = (response.status_code, body["message"] if response.status_code >= 400 else "")
        expected[key] = (endpoint["answer"]["status"], "")
    clinic.close()

    assert statuses == expected
    assert len(statuses) > 100


class SecondFactors:
    """The values of the examples of second factors, for a caller whose password the examples change."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.secret = ""
        self.steps = iter((-1, 0, 1))  # a code is accepted once, and within one time step

    def totp_code(self) -> str:
        if not self.secret:
            uri = self.caller.post("/auth/mfa/totp").get_json()["otpauth_uri"]
            self.secret = pyotp.parse_uri(uri).secret
        return pyotp.TOTP(self.secret).at(datetime.now(UTC), counter_offset=next(self.steps))

    def mfa_token(self) -> str:
        body = {"email": "admin@clinic.com", "password": "a quiet harbour at dusk"}
        token: str = self.caller.clinic.nobody.post("/auth/login", body).get_json()["mfa_token"]
        return token

    def credential(self) -> str:
        options = self.caller.post("/auth/mfa/passkeys/options").get_json()["public_key"]
        return json.dumps(Authenticator("http://localhost").create(options))


def create_admin_and_demo(clinic: Clinic, *parts: str) -> None:
    """Create the first admin and load the demo clinic, in the given order."""
    for part in parts:
        if part == "demo":
            result = clinic.app.test_cli_runner().invoke(args=["demo", "load", "--patients", "1"])
            assert result.exit_code == 0, result.output
        else:
            with clinic.app.app_context():
                create_admin(name="Administrator", email="admin@clinic.com", password=PASSWORD)


def test_the_example_of_a_path_is_the_one_of_the_curl_line(
    document: dict[str, Any], index: dict[str, Any]
) -> None:
    described = endpoints(index)
    for (method, path), operation in operations(document).items():
        in_path = [each for each in operation["parameters"] if each.get("in") == "path"]
        ids = {each["name"]: each.get("example") for each in in_path}
        line = described[method, path]["curl"]
        if None not in ids.values():
            assert re.search(rf" http://localhost{re.escape(path.format(**ids))}( |\?|$)", line), line
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body is not None:
            assert body["example"] == described[method, path]["body"]["example"]


def test_the_curl_lines_of_the_readme_work(shared_clinic: Clinic) -> None:
    shared_clinic.admin.make(
        "/users", name="Admin", email="admin@clinic.com", password=PASSWORD, role="admin"
    )
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

    signed_in = send(shared_clinic.nobody, login % PASSWORD)
    caller = Caller(shared_clinic, signed_in.get_json()["access_token"])
    me = send(caller, 'curl -X GET http://localhost:5000/auth/me -H "Authorization: Bearer $TOKEN"')
    before = send(caller, 'curl -X GET http://localhost:5000/patients -H "Authorization: Bearer $TOKEN"')
    created = send(caller, create)
    result = send(caller, search)

    assert signed_in.status_code == 200
    assert me.get_json()["email"] == "admin@clinic.com"
    assert before.get_json() == []
    assert created.status_code == 201
    assert [row["id"] for row in result.get_json()["patients"]] == [created.get_json()["id"]]
    assert result.get_json()["pagination"]["total_count"] == 1


# --- Error codes ---------------------------------------------------------------------------------------


def raised(tree: ast.AST) -> Iterator[str]:
    """Yield the error codes that a module raises."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "ClinicError":
            yield from (part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant))


def declared(tree: ast.AST) -> Iterator[str]:
    """Yield the error codes that the endpoints of a module declare."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "errors" and isinstance(node.value, ast.Tuple):
            yield from (part.value for part in node.value.elts if isinstance(part, ast.Constant))


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield every string of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_error_codes_are_those_that_are_raised_or_declared() -> None:
    trees = {path: ast.parse(path.read_text()) for path in SOURCES}
    strings = {text for path, tree in trees.items() if path.name != "errors.py" for text in texts(tree)}
    in_constraints = {code for code, _field, _message in CONSTRAINTS.values()}
    in_errors = set(raised(trees[ROOT / "errors.py"]))

    for path, tree in trees.items():
        assert set(raised(tree)) | set(declared(tree)) <= set(CODES), path.name
    assert in_constraints <= set(CODES)
    assert set(CODES) - strings - in_constraints - in_errors == set()


# --- The page ------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The tags, links and attributes of a page."""

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


def test_a_browser_gets_a_page_that_loads_nothing(shared_clinic: Clinic) -> None:
    response = shared_clinic.nobody.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    html = response.get_data(as_text=True)
    page = Page()
    page.feed(html)

    style = re.search("<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert response.content_type.startswith("text/html")
    assert f"style-src 'sha256-{digest}'" in response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    script = re.search("<script>(.*?)</script>", html, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in response.headers["Content-Security-Policy"]
    assert not {"img", "link", "iframe", "form", "object", "base"} & set(page.tags)
    assert not {name for name in page.attributes if name.startswith("on") or name in ("style", "src")}
    assert "@import" not in style[1]
    assert "url(" not in style[1]
    assert all(link.startswith("#") or link in ("/openapi.json", "/docs") for link in page.links)
    operation_ids = {each.operation_id for each in registered_endpoints(shared_clinic.app)}
    assert operation_ids <= page.anchors
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.anchors
    assert page.tags.count("details") == len(registered_endpoints(shared_clinic.app))
    assert "`" not in html.replace(script[1], "")
    assert "<code>METRICS_TOKEN</code>" in html
    for text in ("Quick start", "male | female | other", "maximum length 200", "default 20", "USD"):
        assert text in html, text


def test_other_clients_get_json(shared_clinic: Clinic) -> None:
    for accept in ("*/*", "application/json", "application/json, text/html;q=0.5"):
        response = shared_clinic.nobody.get("/", headers={"Accept": accept})

        assert response.content_type == "application/json"
        assert "Accept" in response.vary


def test_every_text_of_the_page_is_escaped(index: dict[str, Any]) -> None:
    hostile = "<img src=x onerror=alert(1)>&\"'"
    changed = json.loads(json.dumps(index))
    changed["name"] = changed["conventions"]["time"] = changed["url"] = hostile
    changed["domains"] = {hostile: changed["domains"]["patients"]}
    changed["status_graphs"] = {hostile: {hostile: [hostile]}}
    changed["errors"] = {hostile: {"status": 400, "title": hostile}}
    changed["limits"] = {hostile: hostile}
    for endpoint in changed["domains"][hostile]:
        endpoint |= {"path": hostile, "summary": hostile, "description": hostile, "roles": [hostile]}
        endpoint |= {"curl": hostile, "errors": {hostile: [hostile]}}
        parameter = {"name": hostile, "in": hostile, "description": hostile}
        endpoint["parameters"] = [parameter | {"schema": {"type": hostile, "enum": [hostile]}}]
        endpoint["answer"] |= {"media": [hostile], "example": {hostile: hostile}}

    html = render(changed)

    page = Page()
    page.feed(html)
    assert "img" not in page.tags
    assert "onerror" not in page.attributes
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") > 50
