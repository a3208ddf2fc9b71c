"""Query plans of all lists and searches: no scan of a large table, with statistics for a million patients."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event, text

from api.docs.registry import RegisteredEndpoint, registered_endpoints
from extensions import db
from models import Base
from services.listing.spec import Kind, ListSpec
from tests.commands.test_demo import run
from tests.conftest import NewDatabase, settings_for
from tests.support.clinic import Clinic
from tests.support.furnished import Rows, furnish

GENERATED, SIZE = 400, 1_000_000  # patients in the database, and in the statistics of PostgreSQL
MANY = SIZE // 1_000  # with this many matching rows, a scan finds the first page early
# Tables whose size does not depend on the number of patients. A full scan of them is fastest.
SMALL = {
    "audit_heads",
    "calendar_feeds",
    "doctors",
    "document_counters",
    "emergency_accesses",
    "exports",  # of the last days
    "import_files",
    "imports",
    "inventory_items",
    "inventory_lots",
    "jobs",  # finished ones are removed after some days
    "price_list_items",
    "schedule_windows",
    "time_off",
    "users",
}
# Membership in the result of another query: PostgreSQL estimates half of all rows, but there may be none.
MEMBERSHIP = re.compile(r"(?<!NOT )\(ANY ")
# Slow queries that are accepted: text search in the whole audit log, `patient_count` of doctors, part of an
# insurer's name, the language of patients, and the author of messages. An index for them would make each
# registration or message slower. An insurer, a language and an author have many rows.
ACCEPTED_SCANS = {
    ("/audit-logs", "q"),
    ("/doctors", ""),
    ("/doctors/search", ""),
    ("/messages", "created_by_id"),
    ("/patients", "insurance_provider"),
    ("/patients", "language"),
    ("/patients/search", "insurance_provider"),
    ("/patients/search", "language"),
}
EXPLAIN = {
    "session_preload_libraries": "'auto_explain'",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_format": "'json'",
    "auto_explain.log_level": "'notice'",
}
# The number of distinct ids grows with the table, and no value is a frequent one.
DISTINCT_VALUES = """
UPDATE pg_statistic
   SET stadistinct = CASE WHEN stadistinct > 0 THEN -stadistinct / reltuples ELSE stadistinct END,
       stakind1 = CASE WHEN stakind1 = 1 THEN 0 ELSE stakind1 END
  FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
 WHERE starelid = pg_class.oid AND staattnum = attnum AND abs(stadistinct) NOT BETWEEN 1 AND 30
   AND relnamespace = 'public'::regnamespace AND attname LIKE '%id' AND reltuples > 0
"""
# After years, only a small part of the bills is open.
SETTLED = """
UPDATE pg_statistic SET stanullfrac = 0.005
  FROM pg_attribute
 WHERE starelid = attrelid AND staattnum = attnum AND attname = 'settled_at'
"""
SIZES = f"""
UPDATE pg_class SET reltuples = reltuples * {SIZE // GENERATED}
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i') AND reltuples > 0
   AND relname NOT IN ({", ".join(f"'{table}'" for table in sorted(SMALL))})
"""


class Notices:
    """The notices of a server. Not a list: SQLAlchemy would clear it."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def append(self, notice: str) -> None:
        """Store a notice. psycopg2 calls this."""
        self.messages.append(notice)


class LargeClinic:
    """A clinic with the statistics of a million patients, and the plans of its queries."""

    def __init__(self, clinic: Clinic, rows: Rows) -> None:
        self.clinic, self.rows, self.notices = clinic, rows, Notices()
        with clinic.inside() as session:
            for table in Base.metadata.tables:
                session.execute(text(f"ANALYZE {table}"))
            for statement in (DISTINCT_VALUES, SETTLED, SIZES):
                session.execute(text(statement))
            database = session.scalar(text("SELECT current_database()"))
            for name, value in EXPLAIN.items():
                session.execute(text(f'ALTER DATABASE "{database}" SET {name} = {value}'))
        with clinic.app.app_context():
            db.engine.dispose()  # new connections log their plans
            event.listen(db.engine, "connect", self._listen)

    def _listen(self, connection: Any, _record: Any) -> None:
        connection.notices = self.notices

    def plans(self, path: str) -> list[dict[str, Any]]:
        """Return the plans of all queries of one GET request."""
        self.notices.messages.clear()
        answer = self.clinic.admin.get(path)
        assert answer.status_code == 200, (path, answer.get_data(as_text=True))
        return [json.loads(plan[plan.index("{") :]) for plan in self.notices.messages if "plan:" in plan]


@pytest.fixture(scope="module")
def large_clinic(new_database: NewDatabase) -> Iterator[LargeClinic]:
    """Yield a clinic with the statistics of a million patients."""
    clinic = Clinic(settings_for(new_database("postgresql")))
    run(clinic, "demo", "grow", "--patients", str(GENERATED))
    rows = furnish(clinic)
    (visit,), (prescription,) = rows[("visit_id",)][0], rows[("prescription_id",)][0]
    clinic.doctor.post(f"/visits/{visit}/sign")
    clinic.doctor.make(f"/visits/{visit}/addenda", text="The left knee, not the right.")
    dispensed = {"items": [{"medication": "Metformin", "quantity": 1}]}
    clinic.technician.post(f"/prescriptions/{prescription}/dispense", dispensed)
    (bill, _payment) = rows[("billing_id", "payment_id")][0]
    clinic.admin.make(f"/billings/{bill}/refunds", amount="1.00", reason="Billed twice")  # a credit note
    yield LargeClinic(clinic, rows)
    clinic.close()


def full_scans(node: dict[str, Any], *, stops_early: bool = False) -> Iterator[str]:
    """Yield the full scans of large tables in a plan node and its children.

    With `stops_early` the parent does not read all rows. Then a scan is accepted if many rows match: it finds
    the page early.
    """
    kind, condition, name = node["Node Type"], node.get("Filter", ""), node.get("Relation Name", "")
    if name not in SMALL and not name.startswith("pg_"):
        whole = kind == "Seq Scan" or (kind.startswith("Index") and "Index Cond" not in node and condition)
        soon = stops_early and node["Plan Rows"] >= MANY and not MEMBERSHIP.search(condition)
        if whole and not soon and not counts_all(condition):
            yield f"{kind} of {name}: {condition}"
    below = kind == "Limit" or (stops_early and kind in ("Nested Loop", "Hash Join", "Result", "Merge Join"))
    for part in node.get("Plans", ()):
        first = part.get("Parent Relationship") in ("Outer", "Subquery")
        yield from full_scans(part, stops_early=below and first)


def counts_all(condition: str) -> bool:
    """Return True for a count by id only: the total of a list, which is counted once."""
    return (
        re.fullmatch(r"[()]*id > '?\d+'?(::bigint)?[()]*( AND \(id <= '?\d+'?(::bigint)?\)\))?", condition)
        is not None
    )


SAMPLES_BY_NAME = {"language": "sw"}  # a filter that accepts only some texts
SAMPLES = {
    Kind.ID: "3",
    Kind.INTEGER: "40",
    Kind.BOOLEAN: "true",
    Kind.TEXT: "5550",
    Kind.DAY: "2026-06-01",
    Kind.INSTANT: "2026-06-01",
    Kind.MONEY: "100.00",
    Kind.UNIT_COST: "0.0125",
    Kind.DECIMAL: "1.00",
}


def queries(listing: ListSpec[Any]) -> Iterator[str]:
    """Yield query strings of a list: pages, order by date, related rows, filters and searches."""
    yield from ("", "page=40", "after=3", "per_page=1000")
    main = {getattr(column.expression, "key", None): name for name, column in listing.columns.items()}
    if listing.main_date is not None:
        yield "start_date=2026-06-01&end_date=2026-06-02"
        yield f"sort_by={main[listing.main_date]}&sort_order=desc"
    if listing.overlaps is not None:
        yield "start=2026-06-01&end=2026-06-02"
    if listing.text is not None:
        yield from ("q=halber", "q=555 767", "q=mari halbos")
    for name, column in listing.columns.items():
        if column.kind is Kind.ID and name != "id":
            yield f"{name}=3"
    for name, condition in listing.filters.items():
        sample = SAMPLES_BY_NAME.get(name) or (condition.values or [SAMPLES.get(condition.kind)])[0]
        yield f"{name}={sample}"


def lists(clinic: Clinic) -> list[RegisteredEndpoint]:
    """Return all lists and searches."""
    return [entry for entry in registered_endpoints(clinic.app) if entry.spec.list_spec is not None]


def test_no_list_and_no_search_scans_a_large_table(large_clinic: LargeClinic) -> None:
    scans: dict[str, list[str]] = {}

    for entry in lists(large_clinic.clinic):
        ids = large_clinic.rows[entry.path_ids][0] if entry.path_ids else ()
        path = entry.path.format(**dict(zip(entry.path_ids, ids, strict=True)))
        for query in queries(entry.spec.list_spec):
            if {(entry.path, query.partition("=")[0]), (entry.path, "")} & ACCEPTED_SCANS:
                continue
            for plan in large_clinic.plans(f"{path}?{query}"):
                if bad := list(full_scans(plan["Plan"])):
                    scans[f"{path}?{query}"] = [*bad, plan["Query Text"]]

    assert scans == {}
