"""The Jinja templates of HTML pages, and the hashes by which a policy permits what is inside a page."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def environment_of(folder: Path) -> Environment:
    """Return the environment of the templates in a folder."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def source_hash(templates: Environment, name: str) -> str:
    """Return the hash by which a policy permits the style or script of a template inside a page."""
    digest = hashlib.sha256(templates.get_template(name).render().encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
