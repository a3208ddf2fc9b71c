"""Endpoints of reports, as JSON and as CSV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from flask import Response

from api import csv_export
from api.endpoint import StepUp, endpoint
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

MEDIA_TYPES = ("application/json", csv_export.MEDIA_TYPE)
REVENUE_COLUMNS = ("period", "start", "end", "billed", "collected", "refunded", "net", "revenue")
UNITS: dict[str, Unit] = {"daily": "day", "weekly": "week", "monthly": "month", "yearly": "year"}


def _csv_by_figure(name: str, members: Mapping[str, Any]) -> Response:
    """Return a report that is not a table as CSV with one line for each figure."""
    return csv_export.csv_response(name, ("figure", "value"), csv_export.flatten(members).items())


class RevenueReport(ApiResource):
    """Route `/analytics/revenue`."""

    @endpoint(
        Permission.ANALYTICS_FINANCE,
        query=RevenueQuery,
        returns=RevenueOut,
        media_types=MEDIA_TYPES,
        report=True,
        step_up=StepUp.EXPORTS,
    )
    def get(self, query: RevenueQuery) -> RevenueOut | Response:
        """Report revenue by period, payment method and doctor, and the open amounts."""
        report = RevenueOut.model_validate(
            revenue.report(
                start_date=query.start_date,
                end_date=query.end_date,
                group_by=UNITS.get(query.group_by) or cast(Unit, query.group_by),
                doctor_id=query.doctor_id,
            )
        )
        if not csv_export.is_requested(query.format):
            return report
        rows = [[row.model_dump(mode="json")[name] for name in REVENUE_COLUMNS] for row in report.data]
        return csv_export.csv_response("revenue", REVENUE_COLUMNS, rows)


class DoctorPerformance(ApiResource):
    """Route `/analytics/doctor-performance`."""

    @endpoint(
        Permission.ANALYTICS_PERFORMANCE,
        query=PerformanceQuery,
        returns=PerformanceOut,
        many=True,
        media_types=MEDIA_TYPES,
        report=True,
        step_up=StepUp.EXPORTS,
    )
    def get(self, query: PerformanceQuery) -> list[PerformanceOut] | Response:
        """Report appointments, visits and revenue of doctors. Doctors: own only."""
        lines = doctor_performance.report(
            current_actor(),
            start_date=query.start_date,
            end_date=query.end_date,
            doctor_id=query.doctor_id,
        )
        report = [PerformanceOut.model_validate(line) for line in lines]
        if not csv_export.is_requested(query.format):
            return report
        rows = [csv_export.flatten(row.model_dump(mode="json")) for row in report]
        header = list(rows[0]) if rows else list(PerformanceOut.model_fields)
        return csv_export.csv_response("doctor-performance", header, [list(row.values()) for row in rows])


class PatientStats(ApiResource):
    """Route `/analytics/patient-stats`."""

    @endpoint(
        Permission.ANALYTICS_PATIENTS,
        query=DateRangeQuery,
        returns=PatientStatsOut,
        media_types=MEDIA_TYPES,
        report=True,
        step_up=StepUp.EXPORTS,
    )
    def get(self, query: DateRangeQuery) -> PatientStatsOut | Response:
        """Report the number of patients, their demographics, growth and frequent diagnoses."""
        stats = patient_stats.report(start_date=query.start_date, end_date=query.end_date)
        report = PatientStatsOut.model_validate(stats)
        if not csv_export.is_requested(query.format):
            return report
        return _csv_by_figure("patient-stats", report.model_dump(mode="json"))


class Dashboard(ApiResource):
    """Route `/analytics/dashboard`."""

    @endpoint(
        Permission.DASHBOARD_READ,
        query=DateRangeQuery,
        returns=DashboardOut,
        media_types=MEDIA_TYPES,
        report=True,
        step_up=StepUp.EXPORTS,
    )
    def get(self, query: DateRangeQuery) -> DashboardOut | Response:
        """Report the key figures of today and of a period, as far as the role may read them."""
        numbers = dashboard.show(current_actor(), start_date=query.start_date, end_date=query.end_date)
        report = DashboardOut.model_validate(numbers)
        if not csv_export.is_requested(query.format):
            return report
        return _csv_by_figure("dashboard", report.model_dump(mode="json"))
