"""The settings of messages: one row, which a migration inserts."""

from __future__ import annotations

from datetime import time
from typing import TypedDict, Unpack

from errors import ClinicError
from models import MessageSettings
from security.permissions import Actor
from services.rows import assign, changed_members, get_or_404

ROW_ID = 1


class MessageSettingsChanges(TypedDict, total=False):
    """Members of a change of the settings; absent ones stay as they are."""

    kinds: list[str]
    channels: list[str]
    reminder_hours: list[int]
    quiet_start: time | None
    quiet_end: time | None
    expiry_hours: int


def message_settings() -> MessageSettings:
    """Return the settings of messages."""
    return get_or_404(MessageSettings, ROW_ID)


def get(_actor: Actor, *, lock: bool = False) -> MessageSettings:
    """Return the settings, with `lock` locked until the end of the transaction."""
    return get_or_404(MessageSettings, ROW_ID, lock=lock)


def update(row: MessageSettings, **changes: Unpack[MessageSettingsChanges]) -> MessageSettings:
    """Change the given members.

    Raises 422 for quiet hours without a start or an end, or with the same start and end. Without both there
    are no quiet hours.
    """
    values = changed_members(row, changes)
    start, end = (values.get(name, getattr(row, name)) for name in ("quiet_start", "quiet_end"))
    if (start is None) != (end is None) or (start is not None and start == end):
        problem = "give a start and another time as the end of the quiet hours, or null for both"
        raise ClinicError(
            "validation_failed",
            f"quiet_start and quiet_end: {problem}.",
            errors=dict.fromkeys(("quiet_start", "quiet_end"), problem),
        )
    assign(row, values)
    return row
