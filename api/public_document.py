"""Public documents: compressed on request, and cached by their entity tag."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property

from flask import Response, request

# Caches may store the document. They ask each time whether it has changed: an upgrade is seen at once.
CACHE_CONTROL = "public, no-cache"


@dataclass(frozen=True)
class PublicDocument:
    """A document that is the same for all callers. `vary` names the headers that selected it."""

    content: bytes
    mimetype: str
    vary: tuple[str, ...] = ()
    csp: str | None = None

    @cached_property
    def _tag(self) -> str:
        return hashlib.sha256(self.content).hexdigest()[:32]

    @cached_property
    def _compressed(self) -> bytes:
        return gzip.compress(self.content, mtime=0)

    def response(self) -> Response:
        """Return the response to the current request: 304 if the client has the document already."""
        # RFC 9110, section 8.8.3.3: each encoding has an entity tag of its own
        compressed = request.accept_encodings.quality("gzip") > 0
        response = Response(self._compressed if compressed else self.content, mimetype=self.mimetype)
        if compressed:
            response.content_encoding = "gzip"
        response.set_etag(f"{self._tag}-gzip" if compressed else self._tag)
        response.vary.update(("Accept-Encoding", *self.vary))
        response.headers["Cache-Control"] = CACHE_CONTROL
        if self.csp is not None:
            response.headers["Content-Security-Policy"] = self.csp
        response.make_conditional(request)
        return response
