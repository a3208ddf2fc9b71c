"""The cycle of a request: identify, check, load, call, respond, audit and commit, with retries.

This is the only place that commits. Any exception rolls the whole transaction back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NoReturn

import structlog
from flask import Response, request
from sqlalchemy.exc import OperationalError

from api import list_query, request_body, serialization
from api.authentication import identify
from api.database_errors import (
    LOCK_NOT_AVAILABLE,
    Retry,
    Stale,
    read_failure,
    unavailable,
)
from api.etags import check_if_match, etag
from api.merge_patch import real_changes
from api.pagination import list_headers, search_body
from api.request_context import SAFE, RequestContext, audited_actor, current_actor
from api.serialization import Answer, Serializer
from database.engine import commit_with_next
from errors import ClinicError
from extensions import db, reporting
from models import Base
from services import idempotency
from services.audit import audit_log
from services.listing.paging import Page
from services.users import sessions

log = structlog.get_logger()
ATTEMPTS = 5
RETRY_WITHIN = 2.0  # seconds after which a request is not begun again


def serve(method: Callable[..., Any], call: RequestContext) -> Response:
    """Serve one request, again from the start where the database asks for it."""
    started = time.monotonic()
    try:
        for attempt in range(ATTEMPTS):
            try:
                return _attempt_once(method, call, trusting=attempt == 0)
            except Stale:
                continue  # the next attempt takes nothing for granted
            except Retry:
                if time.monotonic() - started > RETRY_WITHIN:
                    break
        raise unavailable()
    except ClinicError as refusal:
        _audit_refusal(call, refusal)
        raise


def _attempt_once(method: Callable[..., Any], call: RequestContext, *, trusting: bool) -> Response:
    """Serve the request in one transaction.

    The first attempt is `trusting` where PostgreSQL is: what earlier requests have left in memory is assumed,
    and the database told to refuse if it is not so any more. Every other one begins with nothing remembered.
    """
    db.session.remove()
    session = db.session()
    session.info["trusting"] = trusting and session.get_bind().dialect.name == "postgresql"
    committing = False
    try:
        try:
            identify(call)
            response = _perform(method, call)
        except ClinicError:
            sessions.confirm()  # nobody is refused for who they were
            raise
        sessions.confirm()
        committing = True
        session.commit()
        return response
    except ClinicError as refusal:
        if refusal.entity is None and call.row is not None:
            refusal.about(call.row.__entity__, call.row.id, audit_log.patient_of(call.row))
        if refusal.keeps_work:
            _commit_refusal(call)
        else:
            _rollback()
        raise
    except Exception as failure:
        _raise_told(failure, committing)


def _commit_refusal(call: RequestContext) -> None:
    """The refusal itself changed something that must stay, or the request runs again."""
    try:
        audit_log.append_pending(audited_actor(call), call.route)
        db.session.commit()
    except Exception as failure:
        _raise_told(failure, committing=True)


def _raise_told(failure: Exception, committing: bool) -> NoReturn:
    _rollback()
    told = read_failure(failure, committing=committing)
    if told is failure:
        raise failure
    raise told from failure


def _rollback() -> None:
    try:
        db.session.rollback()
    except Exception:
        db.session.remove()  # the connection is gone, and the transaction with it


def _perform(method: Callable[..., Any], call: RequestContext) -> Response:
    asked, operation = call.request, call.operation
    key = asked.headers.get("Idempotency-Key") if asked.method == "POST" and operation.idempotent else None
    if key is not None and call.actor is not None:
        replay = _begin_key(call, key)
        if replay is not None:
            return replay
    arguments = _arguments(call)
    with reporting() if operation.report else nullcontext():
        result = method(**arguments)
    db.session.flush()
    response = result if isinstance(result, Response) else _respond(call, result)
    if call.key is not None and 200 <= response.status_code < 300:
        headers = {name: response.headers[name] for name in ("Location", "ETag") if name in response.headers}
        idempotency.finish(call.key, response.status_code, headers, response.get_data(as_text=True))
    if call.idle and call.actor is not None and call.actor.session_id is not None:
        sessions.touch(call.actor.session_id)
    audit_log.append_pending(audited_actor(call), call.route)
    return response


def _foretell(call: RequestContext) -> None:
    """Tell the audit of a read before it happens, where one message can be all of the transaction."""
    session = db.session()
    known = session.info["trusting"] and "assumed" in session.info
    call.foretold = call.operation.foretells and known and not call.idle
    if call.foretold:
        audit_log.foretell_read(audited_actor(call), call.route, **call.path)
        commit_with_next(session.connection())


def _begin_key(call: RequestContext, key: str) -> Response | None:
    user_id = current_actor().user_id or 0
    wanted = idempotency.fingerprint(call.request.method, call.request.full_path, request_body.raw_body())
    try:
        row = idempotency.begin(user_id, key, wanted)
    except OperationalError as failure:
        if getattr(failure.orig, "pgcode", None) == LOCK_NOT_AVAILABLE:
            raise ClinicError(
                "request_in_progress", "The first request with this key still runs.", retry_after=1
            ) from None
        raise
    if row.status is None:
        call.key = row
        return None
    headers = {**(row.headers or {}), "Idempotency-Replayed": "true"}
    return serialization.json_response((row.body or "").encode(), row.status, headers)


def _arguments(call: RequestContext) -> dict[str, Any]:
    """What the method is called with: the loaded row or the path's ids, the body, the query."""
    asked, operation = call.request, call.operation
    pairs = list(asked.args.items(multi=True)) if asked.query_string else []
    found: dict[str, Any] = {}
    if operation.lists is not None:
        found["listed"] = list_query.read_list(operation.lists, pairs)
    else:
        known = set(operation.params.model_fields) if operation.params else set()
        list_query.refuse_unknown(pairs, known)
        if operation.params is not None:
            found["params"] = request_body.validate_query(operation.params, dict(pairs))
    unsafe = asked.method not in SAFE
    if operation.loads is None:
        found |= call.path
    else:
        _foretell(call)  # nothing but the row can be refused from here on
        found["row"] = call.row = operation.loads(current_actor(), **call.path, lock=unsafe)
    if operation.body is not None:
        members = request_body.json_object()
        if asked.method in ("PATCH", "PUT") and isinstance(operation.returns, Serializer):
            members = real_changes(operation, members, call.row)
        found["data"] = request_body.validate(operation.body, members)
    if unsafe and hasattr(call.row, "version"):
        # last: RFC 9110 13.2.1 lets a precondition decide only what would otherwise have worked
        check_if_match(call.row, asked.headers.get("If-Match"))
    return found


def _respond(call: RequestContext, result: Any) -> Response:
    answer = result if isinstance(result, Answer) else Answer(result)
    operation, value, headers = call.operation, answer.value, dict(answer.headers)
    status = answer.status or operation.status
    returns = operation.returns
    if isinstance(value, Page) and isinstance(returns, Serializer) and operation.lists is not None:
        rows = serialization.dump(returns, call.actor, value.rows)
        _note_rows(returns, value.rows, "search" if operation.search else "list")
        headers |= list_headers(value, operation.lists.name)
        content = search_body(value, operation.lists.name, rows) if operation.search else rows
    elif isinstance(returns, Serializer):
        content = serialization.dump(returns, call.actor, value)
        if not call.foretold:
            _note_rows(returns, value if isinstance(value, list) else [value], "read")
        if hasattr(value, "version"):
            headers["ETag"] = etag(value)
        if status == 201 and isinstance(value, Base):
            headers.setdefault("Location", f"{call.request.path.rstrip('/')}/{value.id}")  # type: ignore[attr-defined]
    else:
        content = serialization.dump_plain(returns, value)
    response = serialization.json_response(content, status, headers)
    if answer.decorate is not None:
        answer.decorate(response)
    return response


def _note_rows(view: Serializer, rows: list[Any], action: str) -> None:
    """A read of patients' records leaves one entry; a change already has its own."""
    if view.entity is None:
        return
    if request.method not in SAFE and (
        audit_log.pending_entries().deeds or not all(isinstance(row, Base) for row in rows)
    ):
        return
    patients = {found for row in rows if (found := audit_log.patient_of(row)) is not None}
    single = "list" if action == "read" and len(rows) != 1 else action
    audit_log.record_read(single, view.entity, [row.id for row in rows], patients)


def _audit_refusal(call: RequestContext, refusal: ClinicError) -> None:
    """Refusals that tell of somebody trying leave an entry, in a transaction of their own."""
    signing_in = str(call.request.url_rule) == "/auth/login"
    told = (
        (refusal.status == 401 and refusal.code != "unauthorized")  # which says that there is no token
        or refusal.status in (403, 409, 412)
        or (refusal.status == 404 and refusal.entity is not None)
    )
    if not told or refusal.keeps_work:
        return
    action = "login" if signing_in else "refused"
    db.session.info["trusting"] = False
    for attempt in range(ATTEMPTS):
        try:
            audit_log.forget()
            audit_log.append_refusal(audited_actor(call), call.route, refusal, action, call.path)
            db.session.commit()
            return
        except Exception as failure:
            _rollback()
            if attempt + 1 < ATTEMPTS and isinstance(read_failure(failure, committing=True), Retry):
                continue
            log.error("refusal_not_audited", failure=type(failure).__name__)
            raise unavailable() from failure
