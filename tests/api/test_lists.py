"""Lists: a bare array, pagination in headers, filters, and the parameter names of data grids."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest

from extensions import db
from services.billing import bills
from services.listing import totals
from services.patients import patient_search
from tests.support.clinic import Clinic
from tests.support.furnished import furnish

NAMES = ("Ada", "Björn", "Chen", "Dara", "Émile")


@pytest.fixture
def filled(clinic: Clinic) -> Clinic:
    for number, name in enumerate(NAMES):
        gender = "female" if number % 2 else "male"
        clinic.patient(name=f"{name} Quill", gender=gender, date_of_birth=f"198{number}-01-01")
    return clinic


def names(response: Any) -> list[str]:
    assert response.status_code == 200, response.get_data(as_text=True)
    return [row["name"].split()[0] for row in response.get_json()]


def test_a_list_is_a_bare_array_with_paging_in_headers(filled: Clinic) -> None:
    response = filled.admin.get("/patients?per_page=2&page=2")

    assert names(response) == ["Chen", "Dara"]
    assert response.headers["X-Total-Count"] == "5"
    assert response.headers["Content-Range"] == "patients 2-3/5"
    links = dict(reversed(part.split("; ")) for part in response.headers["Link"].split(", "))
    assert set(links) == {'rel="first"', 'rel="prev"', 'rel="next"', 'rel="last"'}
    assert links['rel="next"'] == "<http://localhost/patients?per_page=2&page=3>"


@pytest.mark.parametrize(
    "query",
    [
        "sort_by=date_of_birth&sort_order=desc&per_page=2",
        "_sort=date_of_birth&_order=DESC&_start=0&_end=2",
        "sort=" + quote('["date_of_birth","DESC"]') + "&range=" + quote("[0,1]"),
    ],
)
def test_the_parameter_names_of_data_grids_mean_the_same(filled: Clinic, query: str) -> None:
    assert names(filled.admin.get(f"/patients?{query}")) == ["Émile", "Dara"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("gender=female", ["Björn", "Dara"]),
        ("gender_ne=female", ["Ada", "Chen", "Émile"]),
        ("date_of_birth_gte=1983-01-01", ["Dara", "Émile"]),
        ("date_of_birth_lte=1980-01-01", ["Ada"]),
        ("name_like=bjorn", ["Björn"]),
        ("q=emile", ["Émile"]),
        ("id=1&id=3", ["Ada", "Chen"]),
        ("filter=" + quote('{"id": [1, 2], "gender": "male"}'), ["Ada"]),
        ("filter=" + quote('{"is_active": true, "q": "dar"}'), ["Dara"]),
        ("after=3", ["Dara", "Émile"]),
        ("page=99", []),
        ("name=ada&name=CHEN", ["Ada", "Chen"]),
        ("name=ada&name=nobody", ["Ada"]),
        ("name_like=ada&name_like=chen", ["Ada", "Chen"]),
        ("gender_ne=female&gender_ne=male", []),
        ("gender=female&gender=male&q=quill", list(NAMES)),
        ("filter=" + quote('{"name": ["dara", "émile"]}'), ["Dara", "Émile"]),
        ("filter=" + quote('{"id": []}'), []),
        ("filter=" + quote('{"name": []}'), []),
        ("filter=" + quote('{"gender_ne": []}'), list(NAMES)),
        ("filter=" + quote('{"gender": [], "q": "quill"}'), []),
        ("date_of_birth=1981&date_of_birth=1984-01", ["Björn", "Émile"]),
        ("date_of_birth=1982-01-01", ["Chen"]),
        ("sort_by=age", ["Émile", "Dara", "Chen", "Björn", "Ada"]),
        ("created_at_lte=2000-01-01", []),
        ("q=100%25", []),
    ],
)
def test_a_filter_selects_the_matching_rows(filled: Clinic, query: str, expected: list[str]) -> None:
    assert names(filled.admin.get(f"/patients?{query}")) == expected


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("colour=red", "colour"),
        ("sort_by=password_hash", "sort_by"),
        ("sort_by=name_fold", "sort_by"),
        ("page=0", "page"),
        ("per_page=1001", "per_page"),
        ("per_page=x", "per_page"),
        ("gender=blue", "gender"),
        ("is_active=maybe", "is_active"),
        ("date_of_birth_gte=yesterday", "date_of_birth_gte"),
        ("gender_like=ma", "gender_like"),
        ("is_active_gte=true", "is_active_gte"),
        ('filter={"is_active_lte": false}', "is_active_lte"),
        ("id=99999999999999999999999999", "id"),
        ("filter=[", "filter"),
        ("range=" + quote("[0,5000]"), "range"),
        ("start_date=2026-02-01&end_date=2026-01-01", "end_date"),
        ("q=%00", "query"),
        ("min_age=1&min_age=2", "min_age"),
        ("start_date=2026-01-01&start_date=2026-01-02", "start_date"),
        ("created_at_gte=2026-01-01&created_at_gte=2026-01-02", "created_at_gte"),
        ("filter=" + quote('{"seen_since": ["2026-01-01", "2026-01-02"]}'), "seen_since"),
        ("balance_gt=1&balance_gt=2", "balance_gt"),
        ("q=ada&q=chen", "q"),
        ("page=1&page=2", "page"),
        ("sort_by=name&_sort=age", "sort_by"),
        ("date_of_birth=1990-13", "date_of_birth"),
        ("date_of_birth=1990-01-01-01", "date_of_birth"),
        ("date_of_birth=19900101", "date_of_birth"),
        ("date_of_birth=1990-W01-1", "date_of_birth"),
        ("date_of_birth=1990-01-01T25:00", "date_of_birth"),
        ("filter=" + quote('{"file_number": null}'), "file_number"),
        ("filter=" + quote('{"name": {"like": "ada"}}'), "name"),
        ("filter=" + quote('{"q": []}'), "q"),
        ("filter=" + quote('{"age_gte": []}'), "age_gte"),
    ],
)
def test_an_unknown_or_wrong_parameter_is_refused_by_name(clinic: Clinic, query: str, field: str) -> None:
    response = clinic.admin.get(f"/patients?{query}")

    assert response.status_code == 422, response.get_data(as_text=True)
    assert field in response.get_json()["errors"]


@pytest.mark.parametrize("query", ["id=--5", "page=--5", "min_age=--5", "id=" + "9" * 5000, "after=٣"])
def test_a_wrong_number_is_refused_in_plain_words(clinic: Clinic, query: str) -> None:
    response = clinic.admin.get(f"/patients?{query}")

    assert response.get_json()["errors"] == {query.split("=")[0]: "must be a whole number"}


def test_links_continue_at_rows_that_begin_inside_a_page(filled: Clinic) -> None:
    seen = names(response := filled.admin.get("/patients?_start=1&_end=3"))
    links = dict(reversed(part.split("; ")) for part in response.headers["Link"].split(", "))
    seen += names(after := filled.admin.get(links['rel="next"'].strip("<>")))
    before = names(filled.admin.get(links['rel="prev"'].strip("<>")))

    assert before + seen == list(NAMES)
    assert 'rel="next"' not in after.headers["Link"]
    assert names(filled.admin.get(links['rel="last"'].strip("<>"))) == seen[2:]

    beyond = filled.admin.get("/patients?_start=7&_end=9").headers["Link"]
    links = dict(reversed(part.split("; ")) for part in beyond.split(", "))
    for relation in ('rel="prev"', 'rel="last"'):
        assert names(filled.admin.get(links[relation].strip("<>"))) == ["Dara", "Émile"]


def test_a_repeated_parameter_of_a_report_is_refused(clinic: Clinic) -> None:
    """One of the values would be ignored without a sign."""
    for query in (
        "/messages/templates?kind=booked&kind=moved",
        "/analytics/revenue?start_date=2027-01-01&start_date=2027-02-01",
        f"/doctors/{clinic.doctor_row()['id']}/availability?date=2027-01-01&date=2027-01-02",
    ):
        response = clinic.admin.get(query)
        assert response.status_code == 422, query
        assert list(response.get_json()["errors"].values()) == ["is given twice; give it once"]


def test_an_unknown_parameter_gets_the_list_of_accepted_parameters(clinic: Clinic) -> None:
    message = clinic.admin.get("/patients?colour=red").get_json()["message"]

    assert "gender" in message
    assert "sort_by" in message


@pytest.mark.parametrize(
    ("query", "name", "suggestion"),
    [
        ("patient_nam=x", "patient_nam", "did you mean patient_name?"),
        ("doctr_id=1", "doctr_id", "did you mean doctor_id?"),
        ("sort_by=patientname", "sort_by", "did you mean patient_name?"),
        ("colour=red", "colour", "accepted: "),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(clinic: Clinic, query: str, name: str, suggestion: str) -> None:
    problem = clinic.admin.get(f"/visits?{query}").get_json()["errors"][name]

    assert suggestion in problem


def test_a_member_that_cannot_sort_gets_the_reason(clinic: Clinic) -> None:
    for query in ("sort_by=next_available", "next_available_gte=2026-01-01"):
        errors = clinic.admin.get(f"/doctors?{query}").get_json()["errors"]
        assert ["the database does not compute free slots" in each for each in errors.values()] == [True]


def test_a_slow_column_needs_a_filter_in_a_long_list(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    column = bills.LIST.columns["balance"]
    monkeypatch.setitem(bills.LIST.columns, "balance", replace(column, max_rows=1))
    first, _second = clinic.bill(), clinic.bill()

    for query in ("sort_by=balance", "balance_gte=1"):
        response = clinic.admin.get(f"/billings?{query}")
        assert response.status_code == 422, query
        assert "add a filter" in response.get_json()["errors"]["balance"]
        short = clinic.admin.get(f"/billings?{query}&patient_id={first['patient_id']}").get_json()
        assert [row["id"] for row in short] == [first["id"]], query
    assert len(clinic.admin.get("/billings").get_json()) == 2


def test_lists_of_events_begin_with_the_newest_row(clinic: Clinic) -> None:
    rows = furnish(clinic)
    item = rows[("item_id",)][0][0]
    newest = ("appointments", "visits", "treatments", "prescriptions", "billings", "audit-logs")
    for path in (*newest, f"inventory/{item}/movements"):
        ids = [row["id"] for row in clinic.admin.get(f"/{path}").get_json()]
        assert ids == sorted(ids, reverse=True), path
        after = [row["id"] for row in clinic.admin.get(f"/{path}?after=0").get_json()]
        assert after == sorted(after), path
        assert after, path
    for path in ("patients", "doctors", "users", "inventory"):
        ids = [row["id"] for row in clinic.admin.get(f"/{path}").get_json()]
        assert ids == sorted(ids), path


def test_a_date_of_an_instant_means_the_whole_day(clinic: Clinic) -> None:
    patient = clinic.patient()
    today = patient["created_at"][:10]

    def found(query: str) -> int:
        return len(clinic.admin.get(f"/patients?{query}").get_json())

    assert found(f"created_at={today}") == found(f"created_at={today}&created_at=2000-01-01") == 1
    assert found(f"created_at_lte={today}") == found(f"created_at_gte={today}") == 1
    assert found(f"created_at_ne={today}") == 0
    assert found("created_at=" + patient["created_at"]) == 1  # with a plus that is not percent-encoded


def test_a_computed_column_is_refused_like_its_hidden_field(clinic: Clinic) -> None:
    for path in ("/visits?sort_by=balance", "/visits?amount_paid_gte=1", "/patients?sort_by=account_balance"):
        assert clinic.technician.get(path).status_code == 403, path
        assert clinic.admin.get(path).status_code == 200, path
    own = f"doctor_id={clinic.doctor.doctor_id}"
    assert clinic.doctor.get("/visits?sort_by=balance").status_code == 403
    assert clinic.doctor.get(f"/visits?sort_by=balance&{own}").status_code == 200


NAME_VARIANTS = ("o'connor", "O’CONNOR", "oʼconnor", "o`connor", "oconnor", "smith-jones", "Smith–Jones")


@pytest.mark.parametrize("text", NAME_VARIANTS)
def test_all_searches_on_names_ignore_apostrophes_and_dashes(clinic: Clinic, text: str) -> None:
    name = "Zoë O’Con\u200bnor Smith‑Jones"
    patient = clinic.patient(name=name, phone="+1 555 767 1111")["id"]
    doctor = clinic.doctor_row(name=name)["id"]
    item = clinic.item(name=name)["id"]
    appointment = clinic.appointment(patient_id=patient, doctor_id=doctor)["id"]
    visit = clinic.visit(patient_id=patient, doctor_id=doctor)["id"]
    bill = clinic.bill(patient_id=patient)["id"]
    treatment = clinic.treatment(visit_id=visit, name=name)["id"]
    medications = [{"name": name, "quantity": 1}]
    prescription = clinic.doctor.make(
        "/prescriptions", visit_id=clinic.visit()["id"], medications=medications
    )
    for path, names, row in (
        ("treatments", ("q", "name_like", "patient_name"), treatment),
        ("prescriptions", ("q", "medication"), prescription["id"]),
        ("patients", ("q", "name", "name_like"), patient),
        ("doctors", ("q", "name", "name_like"), doctor),
        ("inventory", ("q", "name_like"), item),
        ("appointments", ("q", "patient_name", "doctor_name", "patient_name_like", "title"), appointment),
        ("visits", ("q", "patient_name", "doctor_name_like"), visit),
        ("billings", ("q", "patient_name"), bill),
    ):
        for parameter in names:
            response = clinic.admin.get(f"/{path}?{parameter}={quote(text)}")
            assert [each["id"] for each in response.get_json()] == [row], (path, parameter)


def test_a_whole_name_is_compared_by_its_search_key(clinic: Clinic) -> None:
    name, key = "Zoë O’Con\u200bnor Smith‑Jones", "zoe o'connor smith-jones"
    patient, doctor = clinic.patient(name=name)["id"], clinic.doctor_row(name=name)["id"]
    visit = clinic.visit(patient_id=patient, doctor_id=doctor)["id"]
    clinic.patient(name="Zoë")
    clinic.doctor_row(name="Zoë")
    rows = {
        "patients": ("name_ne", patient),
        "doctors": ("name_ne", doctor),
        "inventory": ("name", clinic.item(name=name)["id"]),
        "treatments": ("name", clinic.treatment(visit_id=visit, name=name)["id"]),
        "price-list": ("name", clinic.admin.make("/price-list", code="Z", name=name, unit_price="1")["id"]),
        "visits": ("patient_name_ne", visit),
        "appointments": ("doctor_name_ne", clinic.appointment(patient_id=patient, doctor_id=doctor)["id"]),
    }
    member = {"email": "zoe@clinic.example", "password": "a quiet harbour at dawn", "role": "technician"}
    rows["users"] = ("name", clinic.admin.make("/users", name=name, **member)["id"])

    for path, (parameter, row) in rows.items():
        answer = clinic.admin.get(f"/{path}?{parameter}={quote(key)}")
        ids = {each["id"] for each in answer.get_json()}
        assert row not in ids if parameter.endswith("_ne") else ids == {row}, (path, parameter)


def test_pages_do_not_overlap_if_sorted_values_are_equal(filled: Clinic) -> None:
    read = [
        name
        for page in (1, 2, 3)
        for name in names(filled.admin.get(f"/patients?sort_by=gender&per_page=2&page={page}"))
    ]

    assert sorted(read) == sorted(NAMES)


def test_pages_by_after_contain_every_row_once(filled: Clinic) -> None:
    read: list[str] = []
    path: str | None = "/patients?after=0&per_page=2"
    while path:
        response = filled.admin.get(path)
        read += names(response)
        link = response.headers.get("Link", "")
        path = link[1 : link.index(">")] if link else None

    assert read == list(NAMES)


def test_a_search_returns_rows_pagination_and_search_params(filled: Clinic) -> None:
    body = filled.admin.get("/patients/search?q=quill&gender=male&per_page=2").get_json()

    assert [row["name"] for row in body["patients"]] == ["Ada Quill", "Chen Quill"]
    assert body["pagination"] == {"page": 1, "per_page": 2, "total_count": 3, "total_pages": 2}
    assert body["search_params"] == {"q": "quill", "gender": "male"}
    repeated = filled.admin.get("/patients/search?gender=male&gender=female").get_json()
    assert repeated["search_params"] == {"gender": ["male", "female"]}


def test_a_capped_total_is_marked(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.listing.totals.COUNT_CAP", 2)
    for _ in range(4):
        clinic.patient(gender="other")

    filtered = clinic.admin.get("/patients?gender=other")
    whole = clinic.admin.get("/patients")

    assert (filtered.headers["X-Total-Count"], filtered.headers["X-Total-Count-Capped"]) == ("2", "true")
    assert whole.headers["X-Total-Count"] == "4"
    assert "X-Total-Count-Capped" not in whole.headers


def test_a_filter_by_a_hidden_field_is_refused(clinic: Clinic) -> None:
    response = clinic.technician.get("/patients/search?balance_gt=0")

    assert response.status_code == 403
    assert "account_balance" not in json.dumps(clinic.technician.get("/patients").get_json())


def test_text_filters_ignore_case_in_any_script(clinic: Clinic) -> None:
    clinic.patient(name="Ada Quill", insurance_provider="Österreichische Kasse")

    assert names(clinic.admin.get("/patients?insurance_provider_like=ÖSTERREICH")) == ["Ada"]


def test_a_total_counts_a_row_that_is_inserted_before_and_committed_after_it(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "RECOUNT", 2)
    monkeypatch.setattr(totals, "SKEW", timedelta(0))
    monkeypatch.setattr(totals, "SETTLING", timedelta(0))
    with clinic.inside():
        engine = db.engine
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "INSERT INTO patients (file_number, name, name_fold, needs_review, is_active, version, "
            "created_at, updated_at) VALUES ('LATE', 'Ada', 'ada', false, true, 1, "
            "CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)"
        )
        if engine.dialect.name == "sqlite":
            connection.commit()  # SQLite allows one writer at a time
        for _ in range(4):
            clinic.patient()
        during = [clinic.admin.get("/patients").headers["X-Total-Count"] for _ in range(2)]
        connection.commit()
    after = [clinic.admin.get("/patients?per_page=2").headers["X-Total-Count"] for _ in range(2)]
    for _ in range(3):
        clinic.patient()

    assert during == (["4", "4"] if engine.dialect.name == "postgresql" else ["5", "5"])
    assert after == ["5", "5"]
    assert clinic.admin.get("/patients?after=2").headers["X-Total-Count"] == "8"
    with clinic.inside():
        assert totals.settled_rows(patient_search.LIST).number > 0  # rows that are not counted again


def test_a_text_filter_ignores_the_case_of_letters_of_every_script(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(specialty="x", specialties=["Chirurgie Générale", 'the "É"'])["id"]
    patient = clinic.patient(insurance_provider="Mutuelle de l'ÉTAGE (Ж.1)")["id"]
    booked = clinic.appointment(patient_id=patient, doctor_id=doctor, reason="Début d'été: Зуб 100%")["id"]
    found = {
        "/patients?insurance_provider_like=étage%20(ж.1)": [patient],
        "/patients/search?insurance_provider=L'Étage": [patient],
        "/patients?insurance_provider_like=étage%20(ж.2)": [],
        "/patients?insurance_provider_like=étage%20(ж?1)": [],
        "/appointments/search?reason=ÉTÉ:%20зуБ%20100%25": [booked],
        "/appointments?q=ДУБ": [],
        "/doctors?q=GÉNÉRALE": [doctor],
        '/doctors?q="é': [doctor],
        "/doctors?q=É\\": [],
        f"/appointments?reason_like={'é*[ß' * 50}": [],
    }

    for path, ids in found.items():
        body = clinic.admin.get(path).get_json()
        rows = body if isinstance(body, list) else body[path[1:].split("/")[0]]
        assert [row["id"] for row in rows] == ids, path
