"""`GET /` for browsers: one readable page that loads nothing, from here or from other hosts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}
body{color:#1b2733;background:#fff}
h1{font-size:1.7rem;margin-bottom:0}h2{margin-top:2.5rem;border-bottom:2px solid #d7e0e8}
h3{font-size:1rem;margin:.9rem 0 .3rem}
details{border:1px solid #d7e0e8;border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}
summary{cursor:pointer}code,pre{font:14px/1.45 ui-monospace,monospace}
pre{background:#f3f6f9;padding:.7rem;border-radius:6px;margin:.4rem 0;white-space:pre-wrap}
pre{overflow-wrap:anywhere}
.m{display:inline-block;min-width:4.5rem;font-weight:700}.r{color:#53687c;font-size:.9rem}
nav{margin:1rem 0;display:flex;flex-wrap:wrap;gap:.3rem .9rem}
table{border-collapse:collapse}th,td{text-align:left;vertical-align:top;padding:.15rem 1rem .15rem 0}
th{font-weight:600;white-space:nowrap}td{overflow-wrap:anywhere}
@media(prefers-color-scheme:dark){body{background:#14191f;color:#dde5ec}pre{background:#1d252d}
details,h2{border-color:#2f3b46}a{color:#8fc1ff}.r{color:#9fb2c3}}
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CSP = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEAD = Markup(
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1"><title>{}</title>'
)
STYLED = Markup("<style>" + STYLE + "</style></head><body>")  # noqa: S704 - a constant of ours
ARROW = " → "


def render(told: Mapping[str, Any]) -> str:
    """The guide as HTML; every text is escaped. To be sent with `CSP`."""
    domains = told["domains"]
    sections = {
        **{name: _join(_endpoint(one, told) for one in endpoints) for name, endpoints in domains.items()},
        "status graphs": _join(_graph(name, graph) for name, graph in told["status_graphs"].items()),
        "errors": _table({code: f"{one['status']} {one['title']}" for code, one in told["errors"].items()}),
        "limits": _table({name: str(limit) for name, limit in told["limits"].items()}),
    }
    parts = [
        HEAD.format(told["name"]),
        STYLED,
        Markup("<h1>{}</h1>").format(told["name"]),
        Markup("<p>The same as JSON: <code>curl {}/</code>. For programs: ").format(told["url"]),
        Markup('<a href="{}">OpenAPI 3.1</a>.</p><nav>').format(told["links"]["openapi"]),
        _join(Markup('<a href="#{}">{}</a>').format(_anchor(name), name) for name in sections),
        Markup("</nav>"),
        _table(told["conventions"]),
    ]
    parts += [
        Markup('<h2 id="{}">{}</h2>{}').format(_anchor(name), name, content)
        for name, content in sections.items()
    ]
    return _join(parts) + Markup("</body></html>")


def _join(parts: Any) -> Markup:
    return Markup("").join(parts)


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _table(rows: Mapping[str, str]) -> Markup:
    lines = (
        Markup("<tr><th>{}</th><td>{}</td></tr>").format(name, _text(text)) for name, text in rows.items()
    )
    return Markup("<table>{}</table>").format(_join(lines))


def _text(text: str) -> Markup:
    """A text of the guide, whose code stands between backticks."""
    parts = text.split("`")
    return _join(
        Markup("<code>{}</code>").format(part) if at % 2 else escape(part) for at, part in enumerate(parts)
    )


def _json(value: Any) -> Markup:
    return Markup("<pre>{}</pre>").format(json.dumps(value, indent=2, ensure_ascii=False))


def _graph(name: str, graph: Mapping[str, list[str]]) -> Markup:
    steps = {status: ARROW + ", ".join(after) if after else "final" for status, after in graph.items()}
    return Markup("<h3>{}</h3>{}").format(name, _table(steps))


def _endpoint(one: Mapping[str, Any], told: Mapping[str, Any]) -> Markup:
    parts = [
        Markup(
            '<details><summary><span class="m">{}</span> <code>{}</code> {} '
            '<span class="r">{}</span></summary>'
        ).format(one["method"], one["path"], _text(one["summary"]), ", ".join(one["roles"])),
        Markup("<p>{}</p>").format(_text(one["description"])) if "description" in one else Markup(""),
        Markup("<pre>{}</pre>").format(one["curl"]),
    ]
    if one["parameters"]:
        rows = {f"{each['name']} ({each['in']})": each["description"] for each in one["parameters"]}
        parts.append(Markup("<h3>Parameters</h3>{}").format(_table(rows)))
    if "body" in one:
        schema = told["components"]["schemas"][one["body"]["schema"]["$ref"].rsplit("/", 1)[1]]
        parts.append(Markup("<h3>Body</h3>{}").format(_table(_members(schema))))
    answer = one["answer"]
    parts.append(
        Markup("<h3>Answers {} {}</h3>{}").format(
            answer["status"], ", ".join(answer["media"]), _json(answer["example"])
        )
    )
    refusals = {str(status): ", ".join(codes) for status, codes in one["errors"].items()}
    return _join(parts) + Markup("<h3>Refusals</h3>{}</details>").format(_table(refusals))


def _members(schema: Mapping[str, Any]) -> dict[str, str]:
    """The members of a body in a word or two each."""
    required = schema.get("required", [])
    return {
        name: _kind(member) + (", required" if name in required else "")
        for name, member in schema.get("properties", {}).items()
    }


def _kind(member: Mapping[str, Any]) -> str:
    if "$ref" in member:
        return str(member["$ref"].rsplit("/", 1)[1])
    if "enum" in member:
        return " | ".join(str(value) for value in member["enum"])
    if "anyOf" in member:
        return " or ".join(dict.fromkeys(_kind(one) for one in member["anyOf"]))
    if member.get("type") == "array":
        return f"list of {_kind(member['items'])}" if "items" in member else "list"
    return str(member.get("format") or member.get("type", "anything"))
