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
from services.charts.svg import ACCENT, INK, PAPER, QUIET, SECOND, Drawing, lines_of
from services.documents.language import DocumentLanguage, english
from services.reports.dashboard import Dashboard
from services.reports.doctor_performance import Performance
from services.reports.patient_stats import UNKNOWN, PatientStats
from services.reports.revenue import Revenue

WIDTH = 600
MARGIN = 16
AXIS = 44  # width of the numbers beside columns
COLUMNS_HEIGHT = 200
ROW = 30  # height of a horizontal bar with its space
LINE = 22  # height of a line of text
TILES = 3  # in a row
TILE_HEIGHT = 84
GAP = 12
# The fills differ in brightness, so that the parts are distinct without colour.
STATUS_FILLS = {
    AppointmentStatus.SCHEDULED: PAPER,
    AppointmentStatus.COMPLETED: ACCENT,
    AppointmentStatus.CANCELLED: SECOND,
    AppointmentStatus.NO_SHOW: QUIET,
}


def _money(amount: Decimal) -> str:
    return f"{amount:,.{settings().currency_places}f}"


def _with_currency(amount: Decimal, language: DocumentLanguage) -> str:
    return f"{language.amount(amount)} {settings().currency}"


def _drawing(
    title: str, description: str, height: int, *, subtitle: str | None = None
) -> tuple[Drawing, int]:
    """Return a drawing with its heading, and the end of the heading. `height` is the height below it.

    The subtitle is the description, if there is no other one.
    """
    lines = lines_of(subtitle or description, WIDTH - 2 * MARGIN)
    end = 42 + LINE * len(lines)
    drawing = Drawing(WIDTH, end + height, title=title, description=description)
    drawing.text(MARGIN, 34, title, size=20, bold=True)
    for number, line in enumerate(lines, 1):
        drawing.text(MARGIN, 38 + LINE * number, line, fill=QUIET)
    return drawing, end


def _columns_frame(top: int) -> Frame:
    """Return the frame of columns under a heading, with space for the names of the series above it."""
    return Frame(MARGIN + AXIS, top + 48, WIDTH - MARGIN, top + 48 + COLUMNS_HEIGHT)


def _counts(name: str, numbers: Sequence[int], language: DocumentLanguage) -> Series:
    return Series(name, numbers, [language.number(number) for number in numbers])


def _amounts(name: str, amounts: Sequence[Decimal], language: DocumentLanguage) -> Series:
    return Series(name, amounts, [language.amount(amount) for amount in amounts])


def revenue_chart(report: Revenue, language: DocumentLanguage | None = None) -> bytes:
    """Return billed money and net revenue of each period as SVG, by default in English."""
    language = language or english()
    data, totals = report.data, report.totals
    text = language.text(
        "chart_revenue_text",
        start=str(data[0]["start"]),
        end=str(data[-1]["end"]),
        billed=_with_currency(totals["billed"], language),
        net=_with_currency(totals["net"], language),
    )
    title = language.text("chart_revenue")
    drawing, top = _drawing(title, text, COLUMNS_HEIGHT + 88)
    series = [
        _amounts(language.text("billed"), [row["billed"] for row in data], language),
        _amounts(language.text("net"), [row["net"] for row in data], language),
    ]
    draw_columns(drawing, _columns_frame(top), [row["period"] for row in data], series)
    return drawing.content()


def doctors_chart(report: Sequence[Performance], language: DocumentLanguage | None = None) -> bytes:
    """Return appointments, visits, revenue and utilisation of doctors side by side as SVG."""
    language = language or english()
    best = max(report, key=lambda line: line.sums.net, default=None)
    text = language.text("chart_no_doctors")
    if best is not None:
        text = language.text(
            "chart_doctors_text",
            count=language.number(len(report)),
            doctor=best.doctor.name,
            amount=_with_currency(best.sums.net, language),
        )
    title = language.text("chart_doctors")
    rows = ROW * len(report)
    drawing, top = _drawing(title, text, 2 * (rows + 48) + MARGIN)
    rates = [line.utilisation for line in report]
    shares = Series(
        language.text("utilisation"),
        [rate or 0.0 for rate in rates],
        [language.share(rate) for rate in rates],
    )
    revenue = f"{language.text('revenue')}, {settings().currency}"
    panels = (
        _counts(language.text("appointments"), [line.attendance.total for line in report], language),
        _counts(language.text("visits"), [line.visit_count for line in report], language),
        _amounts(revenue, [line.sums.net for line in report], language),
        shares,
    )
    names, labels = [line.doctor.name for line in report], 180
    width = (WIDTH - 2 * MARGIN - labels) / 2
    for number, series in enumerate(panels):
        is_right, y = number % 2, top + 48 + (number // 2) * (rows + 48)
        left = MARGIN + is_right * (labels + width)  # the left panel has the names of the doctors
        frame = Frame(left, y, left + width + (0 if is_right else labels), y + rows)
        draw_bars(drawing, frame, names, series, label_width=0 if is_right else labels)
    return drawing.content()


def patients_chart(report: PatientStats, language: DocumentLanguage | None = None) -> bytes:
    """Return the growth of the number of patients and the age structure as SVG."""
    language = language or english()
    growth, ages = report.growth_history, report.age_distribution
    text = language.text(
        "chart_patients_text",
        total=language.number(report.total_patients),
        active=language.number(report.active_patients),
        new=language.number(report.new_patients),
    )
    title = language.text("chart_patients")
    rows = ROW * len(ages)
    drawing, top = _drawing(title, text, COLUMNS_HEIGHT + 88 + 48 + rows + MARGIN)
    frame = _columns_frame(top)
    series = [
        _counts(language.text("all_patients"), [month.total_patients for month in growth], language),
        _counts(language.text("new_patients"), [month.new_patients for month in growth], language),
    ]
    months = [month.month for month in growth]
    draw_columns(drawing, frame, months, series, whole=True)
    heading = language.text("age_in_years")
    total = sum(ages.values())
    shares = [
        f"{language.number(number)} ({language.share(number / total if total else None)})"
        for number in ages.values()
    ]
    labels = [language.text("unknown_age") if group == UNKNOWN else group for group in ages]
    top = int(frame.bottom) + 88
    frame = Frame(MARGIN, top, WIDTH - MARGIN, top + rows)
    draw_bars(drawing, frame, labels, Series(heading, list(ages.values()), shares), label_width=100)
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
    height = 100 + -(-len(tiles) // TILES) * (TILE_HEIGHT + GAP)
    drawing, end = _drawing(title, text, height, subtitle="Appointments by status")
    _draw_statuses(drawing, Frame(MARGIN, end + 16, WIDTH - MARGIN, end + 40), today.attendance.counts)
    width = (WIDTH - 2 * MARGIN - (TILES - 1) * GAP) / TILES
    for number, (name, value) in enumerate(tiles):
        left = MARGIN + (number % TILES) * (width + GAP)
        top = end + 92 + (number // TILES) * (TILE_HEIGHT + GAP)
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
        x = frame.left + number * frame.width / len(STATUS_FILLS)
        drawing.rectangle(x, frame.bottom + 16, 12, 12, fill=fill, stroke=INK)
        drawing.text(x + 18, frame.bottom + 28, f"{count:,} {status.value.replace('_', '-')}", fill=QUIET)
