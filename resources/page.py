"""`GET /` for browsers: one readable page that loads nothing, from here or from other hosts."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from flask import Response
from markupsafe import Markup, escape

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
body{color:#1b2733;background:#fff}
h1{font-size:1.6rem}h2{margin-top:2.5rem;border-bottom:2px solid #d7e0e8;text-transform:capitalize}
details{border:1px solid #d7e0e8;border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}
summary{cursor:pointer}code,pre{font:14px/1.45 ui-monospace,monospace}
pre{background:#f3f6f9;padding:.7rem;overflow-x:auto;border-radius:6px}
.m{display:inline-block;min-width:4.5rem;font-weight:700}.r{color:#53687c;font-size:.9rem}
nav a{margin-right:.8rem}table{border-collapse:collapse}td,th{text-align:left;padding:.2rem .8rem .2rem 0}
@media(prefers-color-scheme:dark){body{background:#14191f;color:#dde5ec}pre{background:#1d252d}
details,h2{border-color:#2f3b46}a{color:#8fc1ff}.r{color:#9fb2c3}}
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CSP = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def render(told: dict[str, Any]) -> Response:
    """The guide as HTML; every text is escaped."""
    names = list(told["domains"])
    parts = [
        Markup('<!doctype html><html lang="en"><head><meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width,initial-scale=1">'),
        Markup("<title>{}</title><style>").format(told["name"])
        + Markup(STYLE)  # noqa: S704 - a constant of ours
        + Markup("</style></head><body>"),
        Markup("<h1>{}</h1>").format(told["name"]),
        Markup(
            '<p>The same as JSON: <code>curl {}</code>, or as <a href="/openapi.json">OpenAPI 3.1</a>.</p>'
        ).format("http://localhost:5000/"),
        Markup("<nav>"),
        Markup("").join(Markup('<a href="#{0}">{0}</a>').format(name) for name in names),
        Markup("</nav><h2>conventions</h2>"),
        _table(told["conventions"]),
    ]
    for name, endpoints in told["domains"].items():
        parts.append(Markup('<h2 id="{0}">{0}</h2>').format(name))
        parts += [_endpoint(one) for one in endpoints]
    parts.append(
        Markup("<h2>status graphs</h2><pre>{}</pre>").format(json.dumps(told["status_graphs"], indent=2))
    )
    parts.append(Markup("<h2>errors</h2>"))
    parts.append(_table({code: f"{one['status']} {one['title']}" for code, one in told["errors"].items()}))
    parts.append(Markup("<h2>limits</h2>") + _table(told["limits"]) + Markup("</body></html>"))
    response = Response(Markup("").join(parts), mimetype="text/html")
    response.headers["Content-Security-Policy"] = CSP
    return response


def _table(rows: dict[str, Any]) -> Markup:
    lines = (Markup("<tr><th>{}</th><td>{}</td></tr>").format(name, text) for name, text in rows.items())
    return Markup("<table>") + Markup("").join(lines) + Markup("</table>")


def _endpoint(one: dict[str, Any]) -> Markup:
    parts = [
        Markup(
            '<details><summary><span class="m">{}</span> <code>{}</code> {} '
            '<span class="r">{}</span></summary>'
        ).format(one["method"], one["path"], one["summary"], ", ".join(one["roles"])),
        escape(one.get("description", "")),
        Markup("<pre>{}</pre>").format(one["curl"]),
    ]
    if one["parameters"]:
        parts.append(_table(one["parameters"]))
    parts.append(
        Markup("<p>{} answers</p><pre>{}</pre>").format(
            one["answer"]["status"], json.dumps(one["answer"]["example"], indent=2)
        )
    )
    return Markup("").join(parts) + Markup("</details>")
