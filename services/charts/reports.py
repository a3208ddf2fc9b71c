"""The charts of the four reports.

Each function takes the report that the caller may read. The description of a chart contains its main figures
as text, for readers who do not see the chart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from config import settings
from enums import AppointmentStatus
from services.charts.panels import Frame, Series, draw_bars, draw_columns, draw_tile
from services.charts.svg import ACCENT, INK, PAPER, QUIET, SECOND, Drawing, shortened
from services.reports.dashboard import Dashboard
from services.reports.doctor_performance import Performance
from services.reports.patient_stats import PatientStats
from services.reports.revenue import Revenue

WIDTH = 960
MARGIN = 32
ROW = 28  # height of a horizontal bar with its space
TILES = 4  # in a row
TILE_HEIGHT = 84
GAP = 16
# The fills differ in brightness, so that the parts are distinct without colour.
STATUS_FILLS = {
    AppointmentStatus.SCHEDULED: PAPER,
    AppointmentStatus.COMPLETED: ACCENT,
    AppointmentStatus.CANCELLED: SECOND,
    AppointmentStatus.NO_SHOW: QUIET,
}


def _money(amount: Decimal) -> str:
    return f"{amount:,.{settings().currency_places}f}"


def _with_currency(amount: Decimal) -> str:
    return f"{_money(amount)} {settings().currency}"


def _rate(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.0%}"


def _draw_heading(drawing: Drawing, title: str, subtitle: str) -> None:
    drawing.text(MARGIN, 42, title, size=20, bold=True)
    drawing.text(MARGIN, 66, shortened(subtitle, WIDTH - 2 * MARGIN), fill=QUIET)


def _counts(name: str, numbers: Sequence[int]) -> Series:
    return Series(name, numbers, [f"{number:,}" for number in numbers])


def _amounts(name: str, amounts: Sequence[Decimal]) -> Series:
    return Series(name, amounts, [_money(amount) for amount in amounts])


def revenue_chart(report: Revenue) -> bytes:
    """Return billed money and net revenue of each period as SVG."""
    data, totals = report.data, report.totals
    text = (
        f"{data[0]['start']} to {data[-1]['end']} · billed {_with_currency(totals['billed'])}, "
        f"net revenue {_with_currency(totals['net'])}"
    )
    drawing = Drawing(WIDTH, 460, title="Revenue by period", description=text)
    _draw_heading(drawing, "Revenue by period", text)
    series = [
        _amounts("Billed", [row["billed"] for row in data]),
        _amounts("Net revenue", [row["net"] for row in data]),
    ]
    frame = Frame(MARGIN + 44, 128, WIDTH - MARGIN, 412)
    draw_columns(drawing, frame, [row["period"] for row in data], series)
    return drawing.content()


def doctors_chart(report: Sequence[Performance]) -> bytes:
    """Return appointments, visits, revenue and utilisation of doctors side by side as SVG."""
    best = max(report, key=lambda line: line.sums.net, default=None)
    text = "No doctors."
    if best is not None:
        number = f"{len(report)} doctor{'s' if len(report) > 1 else ''}"
        text = f"{number} · highest revenue: {best.doctor.name}, {_with_currency(best.sums.net)}"
    drawing = Drawing(WIDTH, 144 + ROW * len(report), title="Doctors side by side", description=text)
    _draw_heading(drawing, "Doctors side by side", text)
    rates = [line.utilisation for line in report]
    columns = (
        (370, _counts("Appointments", [line.attendance.total for line in report])),
        (170, _counts("Visits", [line.visit_count for line in report])),
        (200, _amounts(f"Revenue, {settings().currency}", [line.sums.net for line in report])),
        (156, Series("Utilisation", [rate or 0.0 for rate in rates], [_rate(rate) for rate in rates])),
    )
    names = [line.doctor.name for line in report]
    left, labels = float(MARGIN), 200
    for width, series in columns:
        drawing.text(left + labels, 106, series.name, fill=QUIET)
        frame = Frame(left, 116, left + width, 116 + ROW * len(report))
        draw_bars(drawing, frame, names, series, label_width=labels)
        left, labels = left + width, 0  # the first column has the names of the doctors
    return drawing.content()


def patients_chart(report: PatientStats) -> bytes:
    """Return the growth of the number of patients and the age structure as SVG."""
    growth, ages = report.growth_history, report.age_distribution
    text = (
        f"{report.total_patients:,} patients, {report.active_patients:,} of them active, "
        f"{report.new_patients:,} new in these days"
    )
    drawing = Drawing(WIDTH, 460, title="Patients: growth and age", description=text)
    _draw_heading(drawing, "Patients: growth and age", text)
    series = [
        _counts("All patients", [month.total_patients for month in growth]),
        _counts("New patients", [month.new_patients for month in growth]),
    ]
    months = [month.month for month in growth]
    draw_columns(drawing, Frame(MARGIN + 44, 128, 570, 412), months, series, whole=True)
    drawing.text(690, 100, "Age in years", fill=QUIET)
    total = sum(ages.values())
    shares = [f"{number:,} ({_rate(number / total if total else None)})" for number in ages.values()]
    frame = Frame(610, 120, WIDTH - MARGIN, 412)
    draw_bars(drawing, frame, list(ages), Series("Age", list(ages.values()), shares), label_width=80)
    return drawing.content()


def today_chart(report: Dashboard) -> bytes:
    """Return the figures of today as SVG: appointments by status as a bar, the others as tiles."""
    today, code = report.today, settings().currency
    figures: list[tuple[str, int | Decimal | None]] = [
        ("Appointments", today.attendance.total),
        ("Waiting", today.attendance.waiting),
        ("Visits", today.visits),
        ("Patients seen", today.patients_seen),
        ("New patients", today.new_patients),
        ("Unsigned visits", report.unsigned_visits),
        ("Refund requests", report.refund_requests),
        ("Low stock items", report.low_stock_items),
        (f"Billed, {code}", today.money.billed if today.money else None),
        (f"Net revenue, {code}", today.money.net if today.money else None),
        (f"Outstanding, {code}", report.outstanding),
    ]
    tiles = [
        (name, _money(figure) if isinstance(figure, Decimal) else f"{figure:,}")
        for name, figure in figures
        if figure is not None  # the role may not see it
    ]
    text = ", ".join(f"{name}: {value}" for name, value in tiles)
    title = f"Today, {today.span.start}"
    height = 184 + -(-len(tiles) // TILES) * (TILE_HEIGHT + GAP)
    drawing = Drawing(WIDTH, height, title=title, description=text)
    _draw_heading(drawing, title, "Appointments by status")
    _draw_statuses(drawing, Frame(MARGIN, 84, WIDTH - MARGIN, 108), today.attendance.counts)
    width = (WIDTH - 2 * MARGIN - (TILES - 1) * GAP) / TILES
    for number, (name, value) in enumerate(tiles):
        left = MARGIN + (number % TILES) * (width + GAP)
        top = 168 + (number // TILES) * (TILE_HEIGHT + GAP)
        draw_tile(drawing, Frame(left, top, left + width, top + TILE_HEIGHT), name, value)
    return drawing.content()


def _draw_statuses(drawing: Drawing, frame: Frame, counts: Mapping[str, int]) -> None:
    """Draw the appointments of the day as one bar. Its parts are the statuses, named under it."""
    if not counts["total"]:
        drawing.text(frame.left, frame.top + 20, "No appointments today.", fill=QUIET)
        return
    left = frame.left
    for number, (status, fill) in enumerate(STATUS_FILLS.items()):
        count = counts[status]
        width = frame.width * count / counts["total"]
        if count:
            drawing.rectangle(left, frame.top, width, frame.bottom - frame.top, fill=fill, stroke=INK)
        left += width
        x = frame.left + number * 150
        drawing.rectangle(x, frame.bottom + 16, 12, 12, fill=fill, stroke=INK)
        drawing.text(x + 18, frame.bottom + 27, f"{count:,} {status.value.replace('_', '-')}", fill=QUIET)
