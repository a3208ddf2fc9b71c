"""Invalid values by class, for bodies, queries, paths and headers. No value may cause a 5xx.

`JSON` holds JSON text, because `json.dumps` cannot write some values. `TEXTS` holds plain text.
"""

from __future__ import annotations

import json

SQL = ("' OR '1'='1", "1; DROP TABLE patients; --", "') UNION SELECT password_hash FROM users --", "\\'; --")
MARKUP = (
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "javascript:alert(1)",
    "<svg/onload=alert(1)",
    "<!--",
)
FORMULAS = ('=HYPERLINK("http://x.example","y")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "|calc")
TEMPLATES = ("{{7*7}}", "${jndi:ldap://x.example/a}", "%s%n%x", "{0.__class__}", "$(id)", "`id`")
PATHS = ("../../../../etc/passwd", "file:///etc/passwd", "C:\\boot.ini", "a\r\nSet-Cookie: a=b", "\r\n\r\n")
BIDI = ("\u202egnp.exe", "\u2066a\u2069", "\u200b", "\ufeff", "a\u0300" * 500, "\U0001f9d1\u200d\u2695\ufe0f")
DIGITS = ("١٢٣", "１２３", "௧", "²", "Ⅷ", "１２：００", "２０２６-０３-０１")
DAYS = (
    *("0000-00-00", "0001-01-01", "1899-12-31", "9999-12-31", "10000-01-01", "2026-02-30", "2026-13-01"),
    *("-0001-01-01", "2026-W10-1", "2026-060", "now", "1", "20260301"),
)
INSTANTS = (
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59Z"),
    *("2026-03-01T24:00:00Z", "2026-06-30T23:59:60Z", "2026-03-01T09:00:00+99:99", "2026-03-01T09"),
    *("2026-03-01T09:00:00.123456789123Z", "1e400", "1970-01-01T00:00:00Z", "2026-03-01 09:00"),
)
GAP_AND_FOLD = ("2027-03-28T02:30:00", "2027-10-31T02:30:00", "2027-03-28T02:30:00+07:00")  # Europe/Berlin
NUMBERS = (
    "1e400",
    "-1e400",
    "1e30",
    "1e-400",
    "0.001",
    "1.5",
    "-0",
    "-1",
    "0",
    "9999999999.99",
    "10000000000",
)
HUGE = ("9" * 25, "-" + "9" * 25, "9" * 4000, "9223372036854775807", "9223372036854775808", "2147483648")
PRECISE = (
    "0.1000000000000000055511151231257827",
    "1.00",
    "01",
    "1_000",
    "0x10",
    "1e2",
    ".5",
    "5.",
    "+5",
    "NaN",
)


def _quoted(*texts: str) -> tuple[str, ...]:
    return tuple(json.dumps(text, ensure_ascii=False) for text in texts)


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


# class -> JSON texts
JSON: dict[str, tuple[str, ...]] = {
    "wrong type": ("true", "12345", '"text"', "[]", "{}", "[[]]", '{"a": 1}', "[null]", '[1, "a"]', "0"),
    "nothing": ("null", '""', '" "', '"\\u00a0"', '"\\t"'),
    "over-long": _quoted("a" * 300, "ß" * 20_000, "a " * 60_000),
    "NUL": ('"a\\u0000b"', '{"a\\u0000": 1}'),
    "lone surrogate": ('"\\ud800"', '"\\udfff a"', '["\\ud83d"]', '{"\\udc00": 1}'),
    "huge numbers": (*HUGE, *_quoted(*HUGE)),
    "odd numbers": (*NUMBERS, *_quoted(*NUMBERS, *PRECISE)),
    "not a number": ("NaN", "Infinity", "-Infinity", *_quoted("NaN", "Infinity", "sNaN")),
    "deep": (_nested(31), _nested(60), _nested(50_000), '{"a":' * 40 + "1" + "}" * 40),
    "wide": (
        "[" + ", ".join("{}" for _ in range(3000)) + "]",
        "[" + ", ".join(map(str, range(20_000))) + "]",
        "{" + ", ".join(f'"m{number}": 1' for number in range(5000)) + "}",
    ),
    "duplicate members": ('{"a": 1, "a": 2}', '[{"name": "a", "name": "b"}]', '{"id": 1, "\\u0069d": 2}'),
    "not JSON": ("'a'", "undefined", "01", "+1", "[1,]", '{"a": 1,}', "0x1", '"a\nb"', "// a", '"\\x41"'),
    "ends of time": _quoted(*DAYS),
    "ends of instants": _quoted(*INSTANTS),
    "DST gap and fold": _quoted(*GAP_AND_FOLD),
    "digits of other scripts": _quoted(*DIGITS),
    "bidi and invisible": _quoted(*BIDI),
    "markup": _quoted(*MARKUP),
    "SQL": _quoted(*SQL),
    "formulas": _quoted(*FORMULAS),
    "templates": _quoted(*TEMPLATES),
    "paths": _quoted(*PATHS),
}
# Every member refuses these with 4xx.
NEVER = ("NUL", "lone surrogate", "duplicate members", "not JSON")

# class -> texts for query parameters, path parts and headers
TEXTS: dict[str, tuple[str, ...]] = {
    "wrong type": ("true", "12345", "text", "[]", "{}", "null", "", " ", ",", "1,2"),
    "over-long": ("a" * 300, "9" * 5000, "ß" * 900),
    "NUL": ("\0", "a\0b"),
    "lone surrogate": ("\udc80", "a\udcff"),
    "numbers": (*HUGE, *NUMBERS, *PRECISE, "Infinity"),
    "deep": (_nested(60), _nested(1500), '{"a":' * 40 + "1" + "}" * 40, '["id", {"a": []}]', "[[1,2],[3]]"),
    "JSON": (
        *('{"id": {"$gt": 0}}', '{"id": [1, [2]]}', '{"q": null}', '{"a": 1, "a": 2}', "[NaN, 1]"),
        *(
            "[1e400, 2]",
            '["password_hash", "ASC"]',
            '{"filter": {"filter": 1}}',
            '["id"]',
            "[-1, 0]",
            "[5, 1]",
        ),
    ),
    "ends of time": (*DAYS, *INSTANTS, *GAP_AND_FOLD),
    "digits of other scripts": DIGITS,
    "bidi and invisible": BIDI,
    "markup": MARKUP,
    "SQL": (*SQL, "id; --", "id ASC, (SELECT 1)", "pg_sleep(10)", "name) --", "%", "_", "\\", "%%%_"),
    "formulas": FORMULAS,
    "templates": TEMPLATES,
    "paths": PATHS,
}
# Unknown names for body members and query parameters.
NAMES = (
    *("' OR 1=1 --", "id; DROP TABLE users", "__proto__", "constructor", "__class__", "a\0b", "\u202ea", ""),
    *(
        "patient.name",
        "user__password_hash",
        "password_hash_like",
        "id[]",
        "id[$ne]",
        "_id",
        "$where",
        "a" * 500,
    ),
    *("sort_by_like", "filter_like", "_like", "_", "é", "q_gte", "name_fold", "version_ne", "<b>", "{{7*7}}"),
)
HEADERS = {
    "If-Match": ('"1"', "*", 'W/"1"', '"', '"' * 500, "1", '"9' + "9" * 400 + '"', '"1", "2"', "\xff"),
    "Idempotency-Key": ("", " ", "a" * 255, "a" * 256, "ключ".encode().decode("latin-1"), "\x7f", "' OR 1=1"),
    "X-Request-ID": ("", "a" * 2000, "<script>", "1; --", "\xff" * 20),
    "Content-Type": (
        "",
        "text/plain",
        "application/json; charset=utf-16",
        "application/json; a",
        "a/b+json",
        ";",
    ),
    "Accept": ("text/csv", "*/*;q=x", "application/xml", ";", "a" * 3000, "text/html;q=nan"),
    "Accept-Encoding": ("identity;q=0", "gzip;q=inf"),
    "Authorization": ("", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b c", "bearer " + "a" * 5000, "\xff"),
    "Cookie": ("access_token_cookie=", "a=b; =; ;", "access_token_cookie=" + "." * 3000, "\xff"),
    "Origin": ("null", "http://[::1", "https://clinic.example.evil", "a" * 3000),
    "Range": ("bytes=0-", "patients=5-1", "rows=a-b", "items=0-99999999999999999999"),
    "X-Forwarded-For": ("", ",,,", "1.2.3.4, " * 300, "::1", "<script>"),
    "Content-Encoding": ("gzip", "br", "identity"),
    "X-HTTP-Method-Override": ("DELETE", "PATCH"),
}
