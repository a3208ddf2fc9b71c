"""Requests and responses of reports. Rates are from 0 to 1, and null if the denominator is zero."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import AliasPath, BaseModel, ConfigDict, Field

from enums import PaymentMethod, Role
from schemas.base import Out
from schemas.fields import DayIn, DayOut, Id, MoneyOut


class DateRangeQuery(BaseModel):
    """The days of a report: the last 30 days by default. Formats: `csv` for a table, `svg` for a chart."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    start_date: Annotated[
        DayIn | None, Field(description="The first day. Default: 29 days before the last day.")
    ] = None
    end_date: Annotated[DayIn | None, Field(description="The last day, included. Default: today.")] = None
    format: Annotated[
        Literal["json", "csv", "svg"] | None, Field(description="The format. Default: by the header Accept.")
    ] = None


class RevenueQuery(DateRangeQuery):
    """Revenue by period, of all doctors or of one."""

    group_by: Annotated[
        Literal["day", "week", "month", "year", "daily", "weekly", "monthly", "yearly"],
        Field(description="The length of the periods."),
    ] = "day"
    doctor_id: Annotated[Id | None, Field(description="Only the bills of this doctor.")] = None


class PerformanceQuery(DateRangeQuery):
    """The performance of all doctors or of one."""

    doctor_id: Annotated[Id | None, Field(description="Only this doctor.")] = None


# --- Revenue -------------------------------------------------------------------------------------------


class CollectedSums(Out):
    """Collected and refunded money. `net` = `collected` - `refunded`."""

    collected: MoneyOut
    refunded: MoneyOut
    net: MoneyOut


class RevenueSums(CollectedSums):
    """Billed and collected money. `billed` = charges + taxes - reversals, before discount."""

    billed: MoneyOut


class RevenueTotals(RevenueSums):
    """The totals of all days. `outstanding` is the unpaid amount of all bills at the end of the last day."""

    discounted: MoneyOut
    written_off: MoneyOut
    outstanding: MoneyOut


class RevenuePeriod(RevenueSums):
    """The part of a day, week, month or year that is in the requested days. `revenue` is `net`."""

    period: str
    start: date
    end: date
    revenue: MoneyOut


class MethodRevenue(CollectedSums):
    """Collected and refunded money of one payment method."""

    method: PaymentMethod


class DoctorRevenue(RevenueSums):
    """The bills of a doctor. Null: items without a doctor, and money on accounts of patients."""

    doctor_id: int | None
    doctor_name: str | None


class RevenueOut(Out):
    """The revenue report. Every amount is a sum of ledger entries.

    `ageing` is the unpaid amount at the end of the last day, by days since the due date: `current`, `1-30`,
    `31-60`, `61-90`, `90+`.
    """

    totals: RevenueTotals
    data: list[RevenuePeriod]
    by_method: list[MethodRevenue]
    by_doctor: list[DoctorRevenue]
    ageing: dict[str, MoneyOut]


# --- Performance ---------------------------------------------------------------------------------------


class StatusCounts(Out):
    """The number of appointments by status."""

    total: int
    scheduled: int
    completed: int
    cancelled: int
    no_show: int


class PerformanceOut(Out):
    """The performance of a doctor. `total_revenue` = collected - refunded."""

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
    """The number of patients in a month."""

    month: str
    new_patients: int
    total_patients: int


class DiagnosisCountOut(Out):
    """The number of times that a diagnosis was made."""

    icd10: str | None
    description: str
    count: int


class PatientStatsOut(Out):
    """Patient statistics. Age groups: `0-17`, `18-34`, `35-49`, `50-64`, `65+`, `unknown`."""

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


def _is_none(value: object) -> bool:
    """Return True for a value that the role of the caller may not see."""
    return value is None


class DashboardPeriod(Out):
    """The numbers of the requested days. `money` is absent for roles that may not see bills."""

    start_date: date = Field(validation_alias=AliasPath("span", "start"))
    end_date: date = Field(validation_alias=AliasPath("span", "end"))
    appointments: StatusCounts = Field(validation_alias=AliasPath("attendance", "counts"))
    visits: int
    patients_seen: int
    new_patients: int
    money: RevenueSums | None = Field(None, exclude_if=_is_none)


class DashboardOut(Out):
    """The numbers of today for the role of the caller. `period` has those of the requested days."""

    date: DayOut = Field(validation_alias=AliasPath("today", "span", "start"))
    role: Role | None
    appointments: StatusCounts = Field(validation_alias=AliasPath("today", "attendance", "counts"))
    waiting: int = Field(validation_alias=AliasPath("today", "attendance", "waiting"))
    visits: int = Field(validation_alias=AliasPath("today", "visits"))
    patients_seen: int = Field(validation_alias=AliasPath("today", "patients_seen"))
    new_patients: int = Field(validation_alias=AliasPath("today", "new_patients"))
    money: RevenueSums | None = Field(None, validation_alias=AliasPath("today", "money"), exclude_if=_is_none)
    outstanding: MoneyOut | None = Field(None, exclude_if=_is_none)
    refund_requests: int | None = Field(None, exclude_if=_is_none)
    unsigned_visits: int | None = Field(None, exclude_if=_is_none)
    low_stock_items: int
    period: DashboardPeriod
