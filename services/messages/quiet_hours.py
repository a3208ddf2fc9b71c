"""The quiet hours of the clinic: a message that is due in them waits until they end."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo


def end_of_quiet(instant: datetime, start: time | None, end: time | None, zone: ZoneInfo) -> datetime:
    """Return the end of the quiet hours that contain the instant, or the instant itself.

    The hours are local times of the zone, and may begin before midnight. Without them nothing waits. A local
    time in the spring gap moves by the gap. Of a local time that exists twice, the first instant after the
    given one counts.
    """
    if start is None or end is None or start == end:
        return instant
    local = instant.astimezone(zone)
    clock_time = local.time().replace(tzinfo=None)
    over_midnight = start > end
    has_begun, has_ended = clock_time >= start, clock_time >= end
    is_quiet = (has_begun or not has_ended) if over_midnight else (has_begun and not has_ended)
    if not is_quiet:
        return instant
    day = local.date() + timedelta(days=1 if over_midnight and has_begun else 0)
    ends = [datetime.combine(day, end, tzinfo=zone).replace(fold=fold).astimezone(UTC) for fold in (0, 1)]
    return next((moment for moment in sorted(ends) if moment > instant), ends[-1])
