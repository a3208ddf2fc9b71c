"""Reports: what they are asked for and what they answer. Rates are parts of one, null of nothing."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import AliasPath, BaseModel, ConfigDict, Field

from enums import PaymentMethod, Role
from schemas.base import Out
from schemas.fields import DayIn, DayOut, Id, MoneyOut


class SpanQuery(BaseModel):
    """The days of a report, both included; by default the last 30. `format=csv` answers a table."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    start_date: Annotated[
        DayIn | None, Field(description="The first day; by default 29 before the last.")
    ] = None
    end_date: Annotated[DayIn | None, Field(description="The last day; by default today.")] = None
    format: Annotated[
        Literal["json", "csv"] | None, Field(description="Which form; by default what Accept asks for.")
    ] = None


class RevenueQuery(SpanQuery):
    """Revenue in periods; of one doctor's bills where named."""

    group_by: Annotated[
        Literal["day", "week", "month", "year", "daily", "weekly", "monthly", "yearly"],
        Field(description="How long the periods are."),
    ] = "day"
    doctor_id: Annotated[Id | None, Field(description="The bills of this doctor only.")] = None


class PerformanceQuery(SpanQuery):
    """Performance of all doctors, or of one."""

    doctor_id: Annotated[Id | None, Field(description="This doctor only.")] = None


# --- Revenue -------------------------------------------------------------------------------------------


class MovedOut(Out):
    """Money that moved; `net` = `collected` - `refunded`."""

    collected: MoneyOut
    refunded: MoneyOut
    net: MoneyOut


class MoneySums(MovedOut):
    """What was billed (charges and taxes less reversals, before discount), and the money that moved."""

    billed: MoneyOut


class RevenueTotals(MoneySums):
    """The whole span; `outstanding` is what bills were owed at its end."""

    discounted: MoneyOut
    written_off: MoneyOut
    outstanding: MoneyOut


class RevenuePeriod(MoneySums):
    """One day, week, month or year, cut to the days asked for; `revenue` is `net`."""

    period: str
    start: date
    end: date
    revenue: MoneyOut


class MethodRevenue(MovedOut):
    """The money that moved by one method."""

    method: PaymentMethod


class DoctorRevenue(MoneySums):
    """One doctor's bills; without doctor: items billed without one, and money on patients' accounts."""

    doctor_id: int | None
    doctor_name: str | None


class RevenueOut(Out):
    """Revenue of a span; every figure is a sum of ledger rows.

    `ageing`: what bills were owed at its end by days since they were due: `current`, `1-30`, `31-60`,
    `61-90`, `90+`.
    """

    totals: RevenueTotals
    data: list[RevenuePeriod]
    by_method: list[MethodRevenue]
    by_doctor: list[DoctorRevenue]
    ageing: dict[str, MoneyOut]


# --- Performance ---------------------------------------------------------------------------------------


class StatusCounts(Out):
    """Appointments by what became of them."""

    total: int
    scheduled: int
    completed: int
    cancelled: int
    no_show: int


class PerformanceOut(Out):
    """How one doctor's work went; `total_revenue` is collected less refunded."""

    doctor_id: int = Field(validation_alias=AliasPath("doctor", "id"))
    doctor_name: str = Field(validation_alias=AliasPath("doctor", "name"))
    appointments: StatusCounts = Field(validation_alias=AliasPath("attendance", "counts"))
    completion_rate: float | None = Field(validation_alias=AliasPath("attendance", "completion_rate"))
    no_show_rate: float | None = Field(validation_alias=AliasPath("attendance", "no_show_rate"))
    visit_count: int
    patients_seen: int
    treatments: int
    billed: MoneyOut = Field(validation_alias=AliasPath("sums", "billed"))
    collected: MoneyOut = Field(validation_alias=AliasPath("sums", "collected"))
    total_revenue: MoneyOut = Field(validation_alias=AliasPath("sums", "net"))
    avg_visit_minutes: float | None
    utilisation: float | None


# --- Patients ------------------------------------------------------------------------------------------


class GrowthOut(Out):
    """One month."""

    month: str
    new_patients: int
    total_patients: int


class DiagnosisCountOut(Out):
    """How often a diagnosis was made."""

    icd10: str | None
    description: str
    count: int


class PatientStatsOut(Out):
    """Who the patients are; age groups `0-17`, `18-34`, `35-49`, `50-64`, `65+`, `unknown`."""

    total_patients: int
    active_patients: int
    new_patients: int
    returning_patients: int
    gender_distribution: dict[str, int]
    age_distribution: dict[str, int]
    growth_history: list[GrowthOut]
    top_diagnoses: list[DiagnosisCountOut]
    visits_per_patient: float | None


# --- Dashboard -----------------------------------------------------------------------------------------


def _without_part(value: object) -> bool:
    """Whether the caller's role has no part in it: it is then left out."""
    return value is None


class PeriodNumbers(Out):
    """What happened in the days asked for. `money` is absent for roles that see no bills."""

    start_date: date = Field(validation_alias=AliasPath("span", "start"))
    end_date: date = Field(validation_alias=AliasPath("span", "end"))
    appointments: StatusCounts = Field(validation_alias=AliasPath("attendance", "counts"))
    visits: int
    patients_seen: int
    new_patients: int
    money: MoneySums | None = Field(None, exclude_if=_without_part)


class DashboardOut(Out):
    """Today's numbers for the caller's role, and those of the days asked for under `period`."""

    date: DayOut = Field(validation_alias=AliasPath("today", "span", "start"))
    role: Role | None
    appointments: StatusCounts = Field(validation_alias=AliasPath("today", "attendance", "counts"))
    waiting: int = Field(validation_alias=AliasPath("today", "attendance", "waiting"))
    visits: int = Field(validation_alias=AliasPath("today", "visits"))
    patients_seen: int = Field(validation_alias=AliasPath("today", "patients_seen"))
    new_patients: int = Field(validation_alias=AliasPath("today", "new_patients"))
    money: MoneySums | None = Field(
        None, validation_alias=AliasPath("today", "money"), exclude_if=_without_part
    )
    outstanding: MoneyOut | None = Field(None, exclude_if=_without_part)
    refund_requests: int | None = Field(None, exclude_if=_without_part)
    unsigned_visits: int | None = Field(None, exclude_if=_without_part)
    low_stock_items: int
    period: PeriodNumbers
