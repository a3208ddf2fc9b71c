"""No list and no search reads a big table whole: PostgreSQL's own plans, as of a million patients."""

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

GROWN, SIZE = 400, 1_000_000  # patients there are, and that PostgreSQL is told of
MANY = SIZE // 1_000  # rows of which the first page is found soon, wherever it begins to read
# Tables that stay small however many patients come; reading them whole is the quickest way.
SMALL = {
    "audit_heads",
    "doctors",
    "inventory_items",
    "inventory_lots",
    "invoice_counters",
    "schedule_windows",
    "time_off",
    "users",
}
# Belonging to what another query finds: PostgreSQL takes half of all rows to, though it may be none.
MEMBERSHIP = re.compile(r"(?<!NOT )\(ANY ")
# What nobody waits for: words in the whole audit, and how many different patients a doctor has ever seen.
UNHURRIED = {("/audit-logs", "q"), ("/doctors", ""), ("/doctors/search", "")}
EXPLAIN = {
    "session_preload_libraries": "'auto_explain'",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_format": "'json'",
    "auto_explain.log_level": "'notice'",
}
# What a row belongs to is one of many: a share of the table, and no value is a frequent one.
SHARES = """
UPDATE pg_statistic
   SET stadistinct = CASE WHEN stadistinct > 0 THEN -stadistinct / reltuples ELSE stadistinct END,
       stakind1 = CASE WHEN stakind1 = 1 THEN 0 ELSE stakind1 END
  FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
 WHERE starelid = pg_class.oid AND staattnum = attnum AND abs(stadistinct) NOT BETWEEN 1 AND 30
   AND relnamespace = 'public'::regnamespace AND attname LIKE '%id' AND reltuples > 0
"""
# In a clinic that is years old few bills are open.
SETTLED = """
UPDATE pg_statistic SET stanullfrac = 0.005
  FROM pg_attribute
 WHERE starelid = attrelid AND staattnum = attnum AND attname = 'settled_at'
"""
SIZES = f"""
UPDATE pg_class SET reltuples = reltuples * {SIZE // GROWN}
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i') AND reltuples > 0
   AND relname NOT IN ({", ".join(f"'{table}'" for table in sorted(SMALL))})
"""


class Notices:
    """What a server has to say; no list, which SQLAlchemy would empty."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def append(self, notice: str) -> None:
        """Called by psycopg2."""
        self.heard.append(notice)


class City:
    """A clinic that PostgreSQL takes for one of a million patients, and the plans of what is asked of it."""

    def __init__(self, clinic: Clinic, rows: Rows) -> None:
        self.clinic, self.rows, self.notices = clinic, rows, Notices()
        with clinic.inside() as session:
            for table in Base.metadata.tables:
                session.execute(text(f"ANALYZE {table}"))
            for statement in (SHARES, SETTLED, SIZES):
                session.execute(text(statement))
            database = session.scalar(text("SELECT current_database()"))
            for name, value in EXPLAIN.items():
                session.execute(text(f'ALTER DATABASE "{database}" SET {name} = {value}'))
        with clinic.app.app_context():
            db.engine.dispose()  # connections made from here on tell their plans
            event.listen(db.engine, "connect", self._listen)

    def _listen(self, connection: Any, _record: Any) -> None:
        connection.notices = self.notices

    def plans(self, path: str) -> list[dict[str, Any]]:
        """The plans of all that one GET asks of the database."""
        self.notices.heard.clear()
        answer = self.clinic.admin.get(path)
        assert answer.status_code == 200, (path, answer.get_data(as_text=True))
        return [json.loads(one[one.index("{") :]) for one in self.notices.heard if "plan:" in one]


@pytest.fixture(scope="module")
def city(new_database: NewDatabase) -> Iterator[City]:
    """The clinic whose plans are read."""
    clinic = Clinic(settings_for(new_database("postgresql")))
    run(clinic, "demo", "grow", "--patients", str(GROWN))
    rows = furnish(clinic)
    (visit,), (prescription,) = rows[("visit_id",)][0], rows[("prescription_id",)][0]
    clinic.doctor.post(f"/visits/{visit}/sign")
    clinic.doctor.make(f"/visits/{visit}/addenda", text="The left knee, not the right.")
    dispensed = {"items": [{"medication": "Metformin", "quantity": 1}]}
    clinic.technician.post(f"/prescriptions/{prescription}/dispense", dispensed)
    yield City(clinic, rows)
    clinic.close()


def offences(node: dict[str, Any], *, stops_early: bool = False) -> Iterator[str]:
    """What reads a big table from end to end, in a plan or below.

    A page is full soon where a walk meets many rows that belong on it; `stops_early` says that nothing above
    asks for all of them.
    """
    kind, read, name = node["Node Type"], node.get("Filter", ""), node.get("Relation Name", "")
    if name not in SMALL and not name.startswith("pg_"):
        whole = kind == "Seq Scan" or (kind.startswith("Index") and "Index Cond" not in node and read)
        soon = stops_early and node["Plan Rows"] >= MANY and not MEMBERSHIP.search(read)
        if whole and not soon and not counts_all(read):
            yield f"{kind} of {name}: {read}"
    below = kind == "Limit" or (stops_early and kind in ("Nested Loop", "Hash Join", "Result", "Merge Join"))
    for part in node.get("Plans", ()):
        first = part.get("Parent Relationship") in ("Outer", "Subquery")
        yield from offences(part, stops_early=below and first)


def counts_all(read: str) -> bool:
    """Whether rows are counted by their ids alone: the total of a whole list, which is counted once."""
    return (
        re.fullmatch(r"[()]*id > '?\d+'?(::bigint)?[()]*( AND \(id <= '?\d+'?(::bigint)?\)\))?", read)
        is not None
    )


SAMPLES = {
    Kind.ID: "3",
    Kind.INTEGER: "40",
    Kind.BOOLEAN: "true",
    Kind.TEXT: "5550",
    Kind.DAY: "2026-06-01",
    Kind.INSTANT: "2026-06-01",
    Kind.MONEY: "100.00",
    Kind.DECIMAL: "1.00",
}


def queries(listing: ListSpec[Any]) -> Iterator[str]:
    """What a list is asked for: its pages, its order by date, what belongs to another row, its searches."""
    yield from ("", "page=40", "after=3", "per_page=1000")
    main = {attribute.key: name for name, (_kind, attribute, _values) in listing.columns.items()}
    if listing.main_date is not None:
        yield "start_date=2026-06-01&end_date=2026-06-02"
        yield f"sort_by={main[listing.main_date]}&sort_order=desc"
    if listing.text is not None:
        yield from ("q=halber", "q=555 767", "q=mari halbos")
    for name, (kind, _attribute, _values) in listing.columns.items():
        if kind is Kind.ID and name != "id":
            yield f"{name}=3"
    for name, wanted in listing.filters.items():
        yield f"{name}={wanted.values[0] if wanted.values else SAMPLES[wanted.kind]}"


def lists(clinic: Clinic) -> list[RegisteredEndpoint]:
    """Every list and search there is."""
    return [entry for entry in registered_endpoints(clinic.app) if entry.spec.list_spec is not None]


def test_no_list_and_no_search_reads_a_big_table_from_end_to_end(city: City) -> None:
    found: dict[str, list[str]] = {}

    for entry in lists(city.clinic):
        ids = city.rows[entry.path_ids][0] if entry.path_ids else ()
        path = entry.path.format(**dict(zip(entry.path_ids, ids, strict=True)))
        for query in queries(entry.spec.list_spec):
            if {(entry.path, query.partition("=")[0]), (entry.path, "")} & UNHURRIED:
                continue
            for plan in city.plans(f"{path}?{query}"):
                if bad := list(offences(plan["Plan"])):
                    found[f"{path}?{query}"] = [*bad, plan["Query Text"]]

    assert found == {}
