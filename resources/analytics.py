"""Reports over HTTP, as JSON and as CSV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from flask import Response

from api import csv_export
from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from schemas.analytics import (
    DashboardOut,
    DateRangeQuery,
    PatientStatsOut,
    PerformanceOut,
    PerformanceQuery,
    RevenueOut,
    RevenueQuery,
)
from security.permissions import Permission
from services.reports import (
    dashboard,
    doctor_performance,
    patient_stats,
    revenue,
)
from services.reports.periods import Unit

MEDIA = ("application/json", csv_export.MEDIA)
COLUMNS = ("period", "start", "end", "billed", "collected", "refunded", "net", "revenue")
UNITS: dict[str, Unit] = {"daily": "day", "weekly": "week", "monthly": "month", "yearly": "year"}


def _figures(name: str, members: Mapping[str, Any]) -> Response:
    """A report that is no table, as one figure a line."""
    return csv_export.answer(name, ("figure", "value"), csv_export.flat(members).items())


class RevenueReport(ApiResource):
    """/analytics/revenue"""

    @endpoint(Permission.ANALYTICS_FINANCE, params=RevenueQuery, returns=RevenueOut, media=MEDIA, report=True)
    def get(self, params: RevenueQuery) -> RevenueOut | Response:
        """Revenue by day, week, month or year, by method and doctor, and what is still owed."""
        found = RevenueOut.model_validate(
            revenue.report(
                start_date=params.start_date,
                end_date=params.end_date,
                group_by=UNITS.get(params.group_by) or cast(Unit, params.group_by),
                doctor_id=params.doctor_id,
            )
        )
        if not csv_export.wanted(params.format):
            return found
        rows = [[row.model_dump(mode="json")[name] for name in COLUMNS] for row in found.data]
        return csv_export.answer("revenue", COLUMNS, rows)


class DoctorPerformance(ApiResource):
    """/analytics/doctor-performance"""

    @endpoint(
        Permission.ANALYTICS_PERFORMANCE,
        params=PerformanceQuery,
        returns=PerformanceOut,
        many=True,
        media=MEDIA,
        report=True,
    )
    def get(self, params: PerformanceQuery) -> list[PerformanceOut] | Response:
        """How doctors' work went; a doctor sees the own line only."""
        lines = doctor_performance.report(
            current_actor(),
            start_date=params.start_date,
            end_date=params.end_date,
            doctor_id=params.doctor_id,
        )
        found = [PerformanceOut.model_validate(line) for line in lines]
        if not csv_export.wanted(params.format):
            return found
        rows = [csv_export.flat(row.model_dump(mode="json")) for row in found]
        header = list(rows[0]) if rows else list(PerformanceOut.model_fields)
        return csv_export.answer("doctor-performance", header, [list(row.values()) for row in rows])


class PatientStats(ApiResource):
    """/analytics/patient-stats"""

    @endpoint(
        Permission.ANALYTICS_PATIENTS,
        params=DateRangeQuery,
        returns=PatientStatsOut,
        media=MEDIA,
        report=True,
    )
    def get(self, params: DateRangeQuery) -> PatientStatsOut | Response:
        """Who the patients are, how their number grows, and what they come for."""
        stats = patient_stats.report(start_date=params.start_date, end_date=params.end_date)
        found = PatientStatsOut.model_validate(stats)
        if not csv_export.wanted(params.format):
            return found
        return _figures("patient-stats", found.model_dump(mode="json"))


class Dashboard(ApiResource):
    """/analytics/dashboard"""

    @endpoint(
        Permission.DASHBOARD_READ, params=DateRangeQuery, returns=DashboardOut, media=MEDIA, report=True
    )
    def get(self, params: DateRangeQuery) -> DashboardOut | Response:
        """Today's numbers, as far as your role may know them, and those of the days asked for."""
        numbers = dashboard.show(current_actor(), start_date=params.start_date, end_date=params.end_date)
        found = DashboardOut.model_validate(numbers)
        if not csv_export.wanted(params.format):
            return found
        return _figures("dashboard", found.model_dump(mode="json"))
