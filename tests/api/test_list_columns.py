"""Every scalar member of every list sorts in both directions and filters, or is excluded with a reason."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import pytest
from pydantic import BaseModel

from api.docs.registry import RegisteredEndpoint, registered_endpoints
from api.serialization import Serializer
from services.listing.spec import Kind, ListColumn, ListSpec
from tests.support.clinic import Clinic, soon
from tests.support.furnished import Rows, furnish

# Parameters that select the rows which overlap a range, in the lists of a calendar.
RANGE = ("start", "end")
DECEASED = {"deceased_on": "2020-01-01"}


@pytest.fixture
def rows(clinic: Clinic) -> Rows:
    """Fill the clinic with rows whose computed members differ."""
    rows = furnish(clinic)
    add_patients_with_money(clinic)
    add_calendar(clinic)
    add_stock(clinic, rows)
    return rows


def done(response: Any) -> dict[str, Any]:
    assert response.status_code in (200, 201), response.get_data(as_text=True)
    body: dict[str, Any] = response.get_json()
    return body


def add_patients_with_money(clinic: Clinic) -> None:
    """Add a partly paid bill with a write-off, a void bill that an insurer paid, an open bill, and credit."""
    admin = clinic.admin
    born = ("1990", "1990-11", "1931-02-28")
    ada, bo, chen = (
        clinic.patient(name=f"O’Brien–{number}", phone=f"+1 555 444 000{number}", date_of_birth=day)["id"]
        for number, day in enumerate(born)
    )
    visit = clinic.visit(patient_id=ada)["id"]
    clinic.treatment(visit_id=visit, cost="70.50")
    bill = admin.make("/billings", visit_id=visit, amount_paid="20.50", payment_method="cash")["id"]
    done(admin.post(f"/billings/{bill}/write-off", {"amount": "5.00", "reason": "Hardship"}))
    done(clinic.doctor.post(f"/visits/{visit}/sign"))

    items = [{"description": "Cast", "quantity": 2, "unit_price": "40.00"}]
    members = {"discount": "10.00", "discount_reason": "Staff", "tax_rate": "7.5"}
    bill = admin.make("/billings", patient_id=bo, items=items, **members)["id"]
    claims = f"/billings/{bill}/claims"
    claim = admin.make(claims, insurer="Acme", policy_number="P-2", amount="30.00")
    step = f"{claims}/{claim['id']}"
    done(admin.patch(step, {"status": "submitted"}))
    done(admin.patch(step, {"status": "approved", "approved_amount": "30.00"}))
    done(admin.patch(step, {"status": "paid", "paid_amount": "30.00"}))
    done(admin.post(f"/billings/{bill}/void", {"reason": "Wrong patient"}))

    admin.make("/billings", patient_id=chen, items=[{"description": "Rest", "unit_price": "9"}])
    clinic.visit(patient_id=chen, amount_paid="33.00", payment_method="cash")
    done(admin.delete(f"/visits/{clinic.visit(patient_id=chen)['id']}?reason=Duplicate"))
    done(admin.patch(f"/patients/{clinic.patient(date_of_birth='1950-06-01')['id']}", DECEASED))


def add_calendar(clinic: Clinic) -> None:
    other = clinic.doctor_row(name="Åsa Ng’ang’a", specialty="Surgery")["id"]
    patient = clinic.patient(name="Zed Last", phone="+1 555 777 1234")["id"]
    for number, duration in enumerate((45, 15)):
        row = clinic.appointment(
            patient_id=patient, doctor_id=other, date=soon(days=20 + number), duration=duration
        )
        if number:
            done(clinic.admin.delete(f"/appointments/{row['id']}"))
        else:
            done(clinic.admin.patch(f"/appointments/{row['id']}", {"date": soon(days=30)}))


def add_stock(clinic: Clinic, rows: Rows) -> None:
    item = rows[("item_id",)][0][0]
    path = f"/inventory/{item}/movements"
    later = (datetime.now(UTC) + timedelta(days=90)).date().isoformat()
    lot = {"lot_number": "L-7", "expires_on": later, "unit_cost": "0.0125"}
    clinic.admin.make(path, type="restock", quantity=4, **lot)
    clinic.admin.make(path, type="waste", quantity=2, reason="Broken")
    clinic.admin.make(path, type="adjustment", quantity=-1, reason="Counted")
    clinic.item(name="Aspirin", quantity=3, unit_cost="0.0125", category="drugs", supplier="Béta–Pharma")


def lists(clinic: Clinic) -> Iterator[RegisteredEndpoint]:
    """Yield the endpoints of lists; the searches have the same columns."""
    for endpoint in registered_endpoints(clinic.app):
        if endpoint.spec.list_spec is not None and not endpoint.spec.search:
            yield endpoint


def path_of(endpoint: RegisteredEndpoint, rows: Rows) -> str:
    names = endpoint.path_ids
    return endpoint.path.format(**dict(zip(names, rows[names][0], strict=True))) if names else endpoint.path


def is_scalar(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return is_scalar(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return all(is_scalar(each) for each in typing.get_args(annotation))
    if origin is Literal:
        return True
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return origin is None and annotation not in (list, dict, Any) and not is_model


def scalars(endpoint: RegisteredEndpoint) -> list[str]:
    """Return the scalar members of the rows of a list, from the schema of the response."""
    assert isinstance(endpoint.spec.returns, Serializer)
    fields = endpoint.spec.returns.out.model_fields
    return [name for name, field in fields.items() if is_scalar(field.annotation)]


def read(clinic: Clinic, path: str, *parameters: tuple[str, Any]) -> list[dict[str, Any]]:
    response = clinic.admin.get(f"{path}?{urlencode([('per_page', 1000), *parameters])}")
    assert response.status_code == 200, (path, parameters, response.get_data(as_text=True))
    body: list[dict[str, Any]] = response.get_json()
    return body


def comparable(kind: Kind, value: Any) -> Any:
    if kind in (Kind.MONEY, Kind.UNIT_COST, Kind.DECIMAL):
        return Decimal(value)
    return datetime.fromisoformat(value) if kind is Kind.INSTANT else value


def ordered(rows: list[dict[str, Any]], name: str, kind: Kind, *, descending: bool) -> list[int]:
    """Return the ids in the right order: by value, rows without a value last, equal ones by id."""
    present = [row for row in rows if row[name] is not None]
    present.sort(key=lambda row: (comparable(kind, row[name]), row["id"]), reverse=descending)
    empty = sorted((row["id"] for row in rows if row[name] is None), reverse=descending)
    return [row["id"] for row in present] + empty


def as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def wrong_orders(
    clinic: Clinic, path: str, name: str, column: ListColumn, shown: list[dict[str, Any]]
) -> Iterator[str]:
    """Yield the directions in which a column sorts wrongly."""
    for direction in ("asc", "desc"):
        sorted_rows = read(clinic, path, ("sort_by", name), ("sort_order", direction))
        newer = [row["id"] for row in sorted_rows if row["id"] not in {row["id"] for row in shown}]
        assert path.endswith(("audit-logs", "access-log")) or not newer  # each request adds an audit entry
        ids = [row["id"] for row in sorted_rows if row["id"] not in newer]
        if ids != ordered(shown, name, column.kind, descending=direction == "desc"):
            yield f"{path}?sort_by={name}&sort_order={direction}: {[row[name] for row in sorted_rows]}"


def wrong_filters(
    clinic: Clinic, path: str, name: str, spec: ListSpec[Any], shown: list[dict[str, Any]]
) -> Iterator[str]:
    """Yield a problem if the filter by a shown value does not find the rows with this value only."""
    value = next((row[name] for row in shown if row[name] is not None), None)
    if value is None:
        return
    known = {row["id"] for row in shown}
    expected = {row["id"] for row in shown if row[name] == value}
    found = {row["id"] for row in read(clinic, path, (name, as_text(value)))} & known
    # a filter by text matches a part of the value
    is_partial = name in RANGE or (name in spec.filters and spec.filters[name].kind is Kind.TEXT)
    if not expected <= found or (found != expected and not is_partial):
        yield f"{path}?{name}={value}: {sorted(found)} in place of {sorted(expected)}"
    if name in spec.computed:
        others = {row["id"] for row in read(clinic, path, (f"{name}_ne", as_text(value)))} & known
        if others != known - expected:
            yield f"{path}?{name}_ne={value}: {sorted(others)} in place of {sorted(known - expected)}"


def test_no_list_sorts_or_filters_by_a_column_that_no_row_shows(clinic: Clinic) -> None:
    unseen = {
        (endpoint.spec.list_spec.name, name)
        for endpoint in lists(clinic)
        for name in endpoint.spec.list_spec.columns.keys() - set(scalars(endpoint))
    }

    assert unseen == set()


def test_every_scalar_member_of_every_list_sorts_and_filters(clinic: Clinic, rows: Rows) -> None:
    problems: list[str] = []
    seen: set[str] = set()
    for endpoint in lists(clinic):
        spec = endpoint.spec.list_spec
        if spec.name in seen:
            continue
        seen.add(spec.name)
        path = path_of(endpoint, rows)
        shown = read(clinic, path)
        assert shown, path
        for name in scalars(endpoint):
            if name in spec.excluded:
                assert name not in spec.columns
                continue
            column = spec.columns.get(name)
            if column is None:
                problems.append(f"{path}: {name} is not a column")
                continue
            problems += wrong_orders(clinic, path, name, column, shown)
            problems += wrong_filters(clinic, path, name, spec, shown)

    assert problems == [], "\n".join(problems)
