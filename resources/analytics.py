"""Endpoints of reports, as JSON, as CSV and as charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from flask import Response

from api import report_csv
from api.cached_document import private_response
from api.endpoint import StepUp, endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.response_format import MEDIA_TYPES, REPORT_TYPES, requested_format
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
from services.charts import reports as charts
from services.reports import (
    dashboard,
    doctor_performance,
    patient_stats,
    revenue,
)
from services.reports.periods import Unit

REVENUE_COLUMNS = ("period", "start", "end", "billed", "collected", "refunded", "net", "revenue")
UNITS: dict[str, Unit] = {"daily": "day", "weekly": "week", "monthly": "month", "yearly": "year"}


def _csv_by_figure(name: str, members: Mapping[str, Any]) -> Response:
    """Return a report that is not a table as CSV with one line for each figure."""
    return report_csv.csv_response(name, ("figure", "value"), report_csv.flatten(members).items())


def _chart(content: bytes) -> Response:
    return private_response(content, MEDIA_TYPES["svg"])


class RevenueReport(ApiResource):
    """Route `/analytics/revenue`."""

    @endpoint(
        Permission.ANALYTICS_FINANCE,
        query=RevenueQuery,
        returns=RevenueOut,
        media_types=REPORT_TYPES,
        etag=True,
        report=True,
        step_up=StepUp.EXPORTS,
    )
    def get(self, query: RevenueQuery) -> RevenueOut | Response:
        """Report revenue by period, payment method and doctor, and the open amounts."""
        figures = revenue.report(
            start_date=query.start_date,
            end_date=query.end_date,
            group_by=UNITS.get(query.group_by) or cast(Unit, query.group_by),
            doctor_id=query.doctor_id,
        )
        format_name = requested_format(query.format, REPORT_TYPES)
        if format_name == "svg":
            return _chart(charts.revenue_chart(figures))
        report = RevenueOut.model_validate(figures)
        if format_name == "json":
            return report
        rows = [[row.model_dump(mode="json")[name] for name in REVENUE_COLUMNS] for row in report.data]
        return report_csv.csv_response("revenue", REVENUE_COLUMNS, rows)


class DoctorPerformance(ApiResource):
    """Route `/analytics/doctor-performance`."""

    @endpoint(
        Permission.ANALYTICS_PERFORMANCE,
        query=PerformanceQuery,
        returns=PerformanceOut,
        many=True,
        media_types=REPORT_TYPES,
        etag=True,
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
        format_name = requested_format(query.format, REPORT_TYPES)
        if format_name == "svg":
            return _chart(charts.doctors_chart(lines))
        report = [PerformanceOut.model_validate(line) for line in lines]
        if format_name == "json":
            return report
        rows = [report_csv.flatten(row.model_dump(mode="json")) for row in report]
        header = list(rows[0]) if rows else list(PerformanceOut.model_fields)
        return report_csv.csv_response("doctor-performance", header, [list(row.values()) for row in rows])


class PatientStats(ApiResource):
    """Route `/analytics/patient-stats`."""

    @endpoint(
        Permission.ANALYTICS_PATIENTS,
        query=DateRangeQuery,
        returns=PatientStatsOut,
        media_types=REPORT_TYPES,
        etag=True,
        report=True,
        step_up=StepUp.EXPORTS,
    )
    def get(self, query: DateRangeQuery) -> PatientStatsOut | Response:
        """Report the number of patients, their demographics, growth and frequent diagnoses."""
        stats = patient_stats.report(start_date=query.start_date, end_date=query.end_date)
        format_name = requested_format(query.format, REPORT_TYPES)
        if format_name == "svg":
            return _chart(charts.patients_chart(stats))
        report = PatientStatsOut.model_validate(stats)
        if format_name == "json":
            return report
        return _csv_by_figure("patient-stats", report.model_dump(mode="json"))


class Dashboard(ApiResource):
    """Route `/analytics/dashboard`."""

    @endpoint(
        Permission.DASHBOARD_READ,
        query=DateRangeQuery,
        returns=DashboardOut,
        media_types=REPORT_TYPES,
        etag=True,
        report=True,
        step_up=StepUp.EXPORTS,
    )
    def get(self, query: DateRangeQuery) -> DashboardOut | Response:
        """Report the key figures of today and of a period, as far as the role may read them."""
        numbers = dashboard.show(current_actor(), start_date=query.start_date, end_date=query.end_date)
        format_name = requested_format(query.format, REPORT_TYPES)
        if format_name == "svg":
            return _chart(charts.today_chart(numbers))
        report = DashboardOut.model_validate(numbers)
        if format_name == "json":
            return report
        return _csv_by_figure("dashboard", report.model_dump(mode="json"))
