"""The size of an SMS: encodings, parts, and characters with an equivalent in GSM-7."""

from __future__ import annotations

import pytest

from services.messages.segments import count_segments, encoding_of, for_sms


@pytest.mark.parametrize(
    ("text", "encoding", "segments"),
    [
        ("", "gsm-7", 1),
        ("a" * 160, "gsm-7", 1),
        ("a" * 161, "gsm-7", 2),
        ("a" * 306, "gsm-7", 2),
        ("a" * 307, "gsm-7", 3),
        ("€" * 80, "gsm-7", 1),
        ("€" * 81, "gsm-7", 2),
        # an escape and its character stay in one part: 152 septets, then 153
        ("a" * 152 + "€" + "a" * 152, "gsm-7", 3),
        ("a" * 151 + "€" + "a" * 153, "gsm-7", 2),
        ("é" * 160, "gsm-7", 1),
        ("á" * 70, "ucs-2", 1),
        ("á" * 71, "ucs-2", 2),
        ("م" * 134, "ucs-2", 2),
        ("م" * 135, "ucs-2", 3),
        ("😀" * 35, "ucs-2", 1),
        ("😀" * 36, "ucs-2", 2),
        # 33 surrogate pairs fill 66 of 67 units: the next pair starts a part
        ("😀" * 67, "ucs-2", 3),
    ],
)
def test_segments_are_counted_by_encoding(text: str, encoding: str, segments: int) -> None:
    assert (encoding_of(text), count_segments(text)) == (encoding, segments)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("sábado, 7 de março", "sabado, 7 de marco"),
        ("août à l’hôpital – 9:00\u202fAM", "aout à l'hopital - 9:00 AM"),
        ("¿Mañana? Ñandú", "¿Mañana? Ñandu"),
        ("Œuvre “Ł”", 'OEuvre "L"'),
        ("É è ù ì ò ñ ü € [x]", "É è ù ì ò ñ ü € [x]"),
        ("موعدك à 9:00", "موعدك à 9:00"),
        ("Café Zoë 中", "Café Zoë 中"),
        ("Đặng", "Dang"),
    ],
)
def test_characters_are_replaced_only_if_the_text_then_fits_gsm_7(text: str, sent: str) -> None:
    assert for_sms(text) == sent
