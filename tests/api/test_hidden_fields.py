"""Fields that doctors may read in their own rows only: the money of visits and treatments."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.clinic import Caller, Clinic

MONEY = {"amount_paid", "balance", "billing_id"}


class TwoDoctors:
    """A visit of each of two doctors, billed and paid. Each visit has a treatment of the other doctor too."""

    def __init__(self, clinic: Clinic) -> None:
        self.clinic, self.me, other = clinic, clinic.sign_in("doctor"), clinic.doctor
        self.patient = clinic.patient()["id"]
        self.visits = {}
        for caller, colleague in ((self.me, other), (other, self.me)):
            visit = clinic.visit(patient_id=self.patient, doctor_id=caller.doctor_id, amount_paid="20.00")[
                "id"
            ]
            clinic.treatment(visit_id=visit)
            clinic.treatment(visit_id=visit, doctor_id=colleague.doctor_id)
            clinic.admin.make("/billings", visit_id=visit)
            self.visits[caller.doctor_id] = visit

    @property
    def of_other(self) -> int:
        return self.visits[self.clinic.doctor.doctor_id]

    def get(self, path: str) -> Any:
        return self.me.get(path).get_json()

    def is_right(self, row: dict[str, Any], fields: set[str]) -> bool:
        """Return True if the row has the fields of money exactly if it belongs to the doctor."""
        return row.keys() & MONEY == (fields if row["doctor_id"] == self.me.doctor_id else set())


@pytest.fixture
def two_doctors(clinic: Clinic) -> TwoDoctors:
    return TwoDoctors(clinic)


VISIT, TREATMENT = {"amount_paid", "balance"}, {"billing_id"}


def test_a_doctor_reads_the_money_of_own_visits_and_treatments_only(two_doctors: TwoDoctors) -> None:
    get, is_right = two_doctors.get, two_doctors.is_right
    visits = get("/visits") + [get(f"/visits/{visit}") for visit in two_doctors.visits.values()]
    treatments = get("/treatments")
    treatments += [get(f"/treatments/{treatment['id']}") for treatment in treatments]
    nested = [treatment for visit in visits for treatment in visit["treatments"]]

    assert len(visits) == 4
    assert len(treatments) == len(nested) == 8
    assert all(is_right(visit, VISIT) for visit in visits)
    assert all(is_right(treatment, TREATMENT) for treatment in treatments + nested)
    for rows in (visits, treatments, nested):
        assert {row["doctor_id"] == two_doctors.me.doctor_id for row in rows} == {True, False}


def test_the_money_of_other_doctors_is_in_no_timeline_and_no_answer_to_a_change(
    two_doctors: TwoDoctors,
) -> None:
    me, visit = two_doctors.me, two_doctors.of_other
    details = [event["details"] for event in two_doctors.get(f"/patients/{two_doctors.patient}/timeline")]
    own_treatment = next(
        row for row in two_doctors.get(f"/visits/{visit}")["treatments"] if row["doctor_id"] == me.doctor_id
    )
    refusal = me.patch(f"/visits/{visit}", {"summary": "x", "balance": "1.00"})
    sent_back = me.patch(f"/treatments/{own_treatment['id']}", own_treatment)

    assert sum("amount_paid" in event for event in details) == 1  # of my visit
    assert refusal.status_code == 403
    assert not MONEY & refusal.get_json().keys()
    assert sent_back.status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        *(
            "billing_id={bill}",
            "billing_id_ne=0",
            "billing_id_gte=1",
            "sort_by=billing_id",
            "_sort=billing_id",
        ),
        *('filter={{"billing_id":{bill}}}', 'sort=["billing_id","ASC"]', "billing_id={bill}&billing_id=7"),
        *("sort_by=billing_id&doctor_id={other}", "sort_by=billing_id&doctor_id={me}&doctor_id={other}"),
        "sort_by=billing_id&doctor_id_ne={other}",
    ],
)
def test_a_doctor_filters_by_money_in_own_rows_only(two_doctors: TwoDoctors, query: str) -> None:
    names = {"bill": 1, "me": two_doctors.me.doctor_id, "other": two_doctors.clinic.doctor.doctor_id}
    everywhere = two_doctors.me.get("/treatments?" + query.format(**names))

    assert (everywhere.status_code, everywhere.get_json()["error"]) == (403, "forbidden")
    if "doctor_id" not in query:
        own = two_doctors.me.get(f"/treatments?doctor_id={names['me']}&" + query.format(**names))
        assert own.status_code == 200
    for caller in (two_doctors.clinic.admin, two_doctors.clinic.receptionist):
        assert caller.get("/treatments?" + query.format(**names)).status_code == 200


def test_a_user_without_doctor_row_reads_no_money_of_visits(clinic: Clinic) -> None:
    TwoDoctors(clinic)
    user = {"name": "New Doctor", "email": "new@clinic.example", "password": "a quiet harbour at dawn"}
    clinic.admin.make("/users", **user, role="doctor")
    login = clinic.nobody.post("/auth/login", {name: user[name] for name in ("email", "password")})
    caller = Caller(clinic, login.get_json()["access_token"])

    rows = caller.get("/visits").get_json() + caller.get("/treatments").get_json()

    assert len(rows) == 6
    assert not any(MONEY & row.keys() for row in rows)
    assert caller.get("/treatments?sort_by=billing_id").status_code == 403


def test_other_roles_read_the_money_that_their_role_may_read(two_doctors: TwoDoctors) -> None:
    clinic, path = two_doctors.clinic, f"/visits/{two_doctors.of_other}"

    for caller, visit_fields, treatment_fields in (
        (clinic.admin, VISIT, TREATMENT),
        (clinic.receptionist, VISIT, TREATMENT),
        (clinic.technician, set(), set()),
        (clinic.doctor, VISIT, None),
    ):
        visit = caller.get(path).get_json()
        assert visit.keys() & MONEY == visit_fields
        for treatment in visit["treatments"]:
            own = TREATMENT if treatment["doctor_id"] == clinic.doctor.doctor_id else set()
            assert treatment.keys() & MONEY == (own if treatment_fields is None else treatment_fields)


def test_the_refusal_of_a_change_names_the_bill_only_to_roles_that_may_read_it(clinic: Clinic) -> None:
    visit = clinic.visit()["id"]
    treatment = clinic.treatment(visit_id=visit)["id"]
    clinic.admin.make("/billings", visit_id=visit)
    path = f"/treatments/{treatment}"

    refusals = [
        caller.patch(path, {"notes": "later"}).get_json() for caller in (clinic.technician, clinic.doctor)
    ]

    assert [refusal["error"] for refusal in refusals] == ["read_only", "read_only"]
    assert ["bill" in refusal["message"] for refusal in refusals] == [False, True]
