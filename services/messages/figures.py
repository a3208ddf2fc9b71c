"""Key figures of messages, for the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import func, select

from enums import MessageState
from extensions import db
from models import Message
from services import clock

PERIOD = timedelta(hours=24)


def read() -> Mapping[tuple[str, str, str], int]:
    """Return the number of messages of the last 24 hours by state, channel and kind. Locks nothing.

    The time of a message is the one at which it was due. The index on state and time finds these messages.
    """
    now = clock.now()
    columns = (Message.state, Message.channel, Message.kind)
    statement = (
        select(*columns, func.count())
        .where(Message.state.in_(MessageState), Message.send_at > now - PERIOD, Message.send_at <= now)
        .group_by(*columns)
    )
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        rows = connection.execute(statement).all()
    return {(state.value, channel.value, kind.value): count for state, channel, kind, count in rows}
