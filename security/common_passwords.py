"""Common passwords: the 30,000 most frequent leaked ones in the list of zxcvbn, and simple patterns."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from lazy_imports import LazyModule

if TYPE_CHECKING:
    from zxcvbn import frequency_lists
else:
    frequency_lists = LazyModule("zxcvbn.frequency_lists")
# The alphabet, the digits, and the rows and columns of keyboards. Passwords are also compared backwards.
SEQUENCES = (
    "abcdefghijklmnopqrstuvwxyz",
    "0123456789" * 3,
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
)
DIGITS_AND_MARKS = "0123456789!?.-_ "


def is_common(password: str) -> bool:
    """Return True for a common password. `password` is case-folded.

    Common are: a listed password, also repeated or with digits or marks around it; a part of a sequence; and
    a password with fewer than five different characters.
    """
    listed = _listed()
    return (
        password in listed
        or password.strip(DIGITS_AND_MARKS) in listed
        or _repeated_part(password) in listed
        or any(password in sequence or password in sequence[::-1] for sequence in SEQUENCES)
        or len(set(password)) < 5
    )


@cache
def _listed() -> frozenset[str]:
    return frozenset(frequency_lists.FREQUENCY_LISTS["passwords"])


def _repeated_part(text: str) -> str:
    """Return the shortest text whose repetition is `text`."""
    return text[: (text + text).find(text, 1)]
