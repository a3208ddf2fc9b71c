"""Passwords that everybody tries first: the 30,000 most frequent of leaked ones, as zxcvbn lists them."""

from __future__ import annotations

from zxcvbn.frequency_lists import FREQUENCY_LISTS

COMMON = frozenset(FREQUENCY_LISTS["passwords"])
# What fingers type along: the alphabet, the digits, the rows and columns of keyboards.
RUNS = (
    "abcdefghijklmnopqrstuvwxyz",
    "0123456789" * 3,
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
)


def is_common(password: str) -> bool:
    """Whether a case-folded password is a listed one, one with digits or marks around it, one said over and
    over, a run along the keyboard, or made of fewer than five different characters."""
    core = password.strip("0123456789!?.-_ ")
    return (
        password in COMMON
        or core in COMMON
        or _unit(password) in COMMON
        or any(password in run or password in run[::-1] for run in RUNS)
        or len(set(password)) < 5
    )


def _unit(text: str) -> str:
    """The shortest text that, said over and over, makes this one."""
    return text[: (text + text).find(text, 1)]
