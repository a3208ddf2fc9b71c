"""The interactive console of `GET /docs`: Swagger UI with one form for sign-in.

The page loads files of this server only. Its own style and script are in the page, and the policy permits
them by their hashes. `assets/README.md` names version and licence of Swagger UI.
"""

from __future__ import annotations

from pathlib import Path

from api.docs.html import TEMPLATES
from api.html_templates import source_hash

ASSETS = Path(__file__).parent / "assets"
SCRIPT, STYLE = "swagger-ui-bundle.js", "swagger-ui.css"
CSP = (
    f"default-src 'none'; script-src 'self' {source_hash(TEMPLATES, 'console.js')}; "
    f"style-src 'self' {source_hash(TEMPLATES, 'console.css')}; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def render() -> str:
    """Return the page of the console. Send it with the header `CSP`."""
    return TEMPLATES.get_template("console.html").render(script=SCRIPT, style=STYLE)
