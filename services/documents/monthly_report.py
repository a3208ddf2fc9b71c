"""The report of a month: key figures, revenue, doctors and patients, with their charts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from html import unescape

from config import settings
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.billing.ledger import ZERO
from services.charts import reports as charts
from services.documents.blocks import Block, chart, fact_grid, table
from services.documents.language import DocumentLanguage
from services.documents.pages import DocumentOptions, stationery
from services.reports import dashboard, doctor_performance, patient_stats, revenue
from services.reports.dashboard import KeyFigures
from services.reports.doctor_performance import Performance
from services.reports.patient_stats import PatientStats
from services.reports.periods import Span
from services.reports.revenue import Revenue

MONTHS = 12  # of the growth of the number of patients


def last_month() -> date:
    """Return the first day of the last complete month."""
    return (clock.today().replace(day=1) - timedelta(days=1)).replace(day=1)


def monthly_report(actor: Actor, month: date, options: DocumentOptions) -> bytes:
    """Return the report of the month that starts on a day as PDF."""
    last_day = _months_later(month, 1) - timedelta(days=1)
    paper = stationery(actor, options)
    language = paper.language
    money = revenue.report(start_date=month, end_date=last_day)
    doctors = doctor_performance.report(actor, start_date=month, end_date=last_day)
    year = patient_stats.report(start_date=_months_later(month, 1 - MONTHS), end_date=last_day)
    of_month = patient_stats.report(start_date=month, end_date=last_day)
    document = paper.typeset(
        f"{language.text('monthly_report')} {language.month(month)}",
        [
            *_key_figures(dashboard.key_figures(actor, Span(month, last_day)), money, of_month, language),
            *chart(language.text("revenue"), *_drawn(charts.revenue_chart(money, language))),
            *_methods(money, language),
            *_ageing(money, language),
            *chart(language.text("doctors"), *_drawn(charts.doctors_chart(doctors, language))),
            *_doctors(doctors, language),
            *chart(language.text("patients"), *_drawn(charts.patients_chart(year, language))),
            *_diagnoses(of_month, language),
        ],
        facts_of=(
            (language.text("first_day"), language.day(month)),
            (language.text("last_day"), language.day(last_day)),
            (language.text("currency"), settings().currency),
        ),
    )
    audit_log.record_read("read", "report", [], [])
    return document


def _months_later(month: date, number: int) -> date:
    """Return the first day of the month that is a number of months later."""
    index = month.year * 12 + month.month - 1 + number
    return date(index // 12, index % 12 + 1, 1)


def _drawn(svg: bytes) -> tuple[bytes, str]:
    """Return a chart with its own description."""
    description = re.search(r"<desc[^>]*>(.*?)</desc>", svg.decode(), re.DOTALL)
    return svg, unescape(description[1]) if description else ""


def _key_figures(
    figures: KeyFigures, money: Revenue, patients: PatientStats, language: DocumentLanguage
) -> list[Block]:
    attendance, totals = figures.attendance, money.totals
    amounts = ("billed", "collected", "refunded", "net", "discounted", "written_off", "outstanding")
    return fact_grid(
        language.text("key_figures"),
        (
            (language.text("appointments"), language.number(attendance.total)),
            (language.text("completion_rate"), language.share(attendance.completion_rate)),
            (language.text("visits"), language.number(figures.visits)),
            (language.text("no_show_rate"), language.share(attendance.no_show_rate)),
            (language.text("patients_seen"), language.number(figures.patients_seen)),
            (language.text("new_patients"), language.number(figures.new_patients)),
            (language.text("patients"), language.number(patients.total_patients)),
            *((language.text(name), language.money(totals[name])) for name in amounts),
        ),
    )


def _methods(money: Revenue, language: DocumentLanguage) -> list[Block]:
    amounts = ("collected", "refunded", "net")
    rows = [
        (
            language.text(f"method_{line['method'].value}"),
            *(language.amount(line[name]) for name in amounts),
        )
        for line in money.by_method
    ]
    return table(
        [language.text(name) for name in ("method", *amounts)], rows, heading=language.text("payments")
    )


def _ageing(money: Revenue, language: DocumentLanguage) -> list[Block]:
    """Return the unpaid amounts by the number of days past due."""
    rows = [
        (language.text("not_due") if name == "current" else name, language.amount(amount))
        for name, amount in money.ageing.items()
    ]
    header = [language.text(name) for name in ("days_past_due", "amount")]
    return table(header, rows, heading=language.text("outstanding"))


def _doctors(doctors: Sequence[Performance], language: DocumentLanguage) -> list[Block]:
    rows = [
        (
            line.doctor.name,
            language.number(line.attendance.total),
            language.number(line.visit_count),
            language.share(line.utilisation),
            language.amount(line.sums.net or ZERO),
        )
        for line in doctors
    ]
    header = [language.text(name) for name in ("doctor", "appointments", "visits", "utilisation", "net")]
    return table(header, rows)


def _diagnoses(patients: PatientStats, language: DocumentLanguage) -> list[Block]:
    rows = [
        (line.description, line.icd10 or "", language.number(line.count)) for line in patients.top_diagnoses
    ]
    header = [language.text(name) for name in ("diagnosis", "code", "quantity")]
    return table(header, rows, heading=language.text("frequent_diagnoses"))
