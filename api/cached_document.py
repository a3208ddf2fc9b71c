"""Documents that clients may store: public ones, and private ones of the caller."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from flask import Response, request

# A cache may store the document. It asks each time if the document has changed: an upgrade is seen at once.
PUBLIC = "public, no-cache"
# Only the client of the caller may store it: the document holds data of patients.
PRIVATE = "private, no-cache"


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
        response.headers["Cache-Control"] = PUBLIC
        if self.csp is not None:
            response.headers["Content-Security-Policy"] = self.csp
        response.make_conditional(request)
        return response


def tag_of(digest: str) -> str:
    """Return the entity tag of a document with this digest."""
    return f'"{digest[:32]}"'


def private_response(
    content: bytes,
    mimetype: str,
    *,
    digest: str | None = None,
    file_name: str | None = None,
    last_modified: datetime | None = None,
) -> Response:
    """Return a document of the caller: 304 if the client has it already.

    The entity tag is a digest of the content. The same rows must therefore give the same bytes. `digest` is
    that of the rows, if the caller adds an expensive content to a response that is no 304. `file_name` is the
    name under which a browser saves the document.
    """
    response = Response(content, mimetype=mimetype)
    response.headers["ETag"] = tag_of(digest or hashlib.sha256(content).hexdigest())
    response.headers["Cache-Control"] = PRIVATE
    response.last_modified = last_modified
    if file_name is not None:
        response.headers["Content-Disposition"] = f'attachment; filename="{file_name}"'
    response.make_conditional(request)
    return response
