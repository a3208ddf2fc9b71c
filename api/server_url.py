"""The URL of this server, as the caller wrote it."""

from __future__ import annotations

import re

from flask import request

from api.docs.examples import base_url

# The scheme and host of a request. Another `Host` header does not get into documents.
_PLAIN_URL = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def server_url() -> str:
    """Return the URL of this server as the caller wrote it, without a slash at the end."""
    url = request.host_url.rstrip("/")
    return url if _PLAIN_URL.fullmatch(url) else base_url()
