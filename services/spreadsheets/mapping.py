"""Match the columns of a file with the members of a kind of import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.spreadsheets.columns import ImportColumn

# A file may have the parts of a name in columns of their own. They are joined in this order.
NAME_PARTS = ("first_name", "middle_name", "last_name")


def propose_mapping(header: Sequence[str], columns: Sequence[ImportColumn]) -> dict[str, str]:
    """Return column of the file -> member, for the columns that match exactly one member."""
    names = {column.name for column in columns}
    return {title: title.strip().lower() for title in header if title.strip().lower() in names}


def check_mapping(mapping: Mapping[str, str], header: Sequence[str], columns: Sequence[ImportColumn]) -> None:
    """Raise 422 `validation_failed` for unknown columns and members, repeated and missing members.

    Each key of `errors` is `mapping`, or `mapping.` and the column of the file.
    """
