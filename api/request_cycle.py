"""The cycle of a request, with its one transaction and its retries.

1. The body is read: 400, 413 and 415 need no database.
2. The transaction begins. Session, user and role of the caller are verified in it, then the permission.
3. The row of the path is loaded, the body validated, `If-Match` checked, and the method called.
4. The result is serialized, the audit entries are appended, and the transaction is committed.

This is the only place that commits. Any exception rolls the whole transaction back. A refusal that the audit
log must contain is committed in a transaction of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NoReturn, TypeVar

import structlog
from flask import Response, request
from sqlalchemy.exc import DataError, IntegrityError, OperationalError

from api import list_files, list_query, request_body, response_format, serialization
from api.authentication import identify, limit_files, require_token
from api.body_format import JSON
from api.body_members import IgnoredMembers, drop_read_only, refuse_hidden
from api.database_errors import Retry, translate, unavailable
from api.endpoint import EndpointSpec
from api.etags import check_if_match, etag
from api.list_files import ListReader
from api.merge_patch import real_changes
from api.pagination import list_headers, search_body
from api.request_context import SAFE_METHODS, RequestContext, current_actor, visitor
from api.serialization import EndpointResult, Serializer
from database import deadline
from database.failures import LOCK_NOT_AVAILABLE
from errors import ClinicError
from extensions import db, read_replica
from models import Base, IdempotencyKey
from schemas.base import In
from services import idempotency, remembered
from services.audit import audit_log
from services.billing import currency
from services.listing.spec import Page
from services.users import sessions
from services.users.blocked_attempts import BlockedAction, blocked_attempts

log = structlog.get_logger()
ATTEMPTS = 5
RETRY_WITHIN = 2.0  # seconds from the start of the first attempt
SIGN_INS = ("/auth/login", "/auth/login/mfa")
REPLAYED_HEADERS = ("Location", "ETag", "X-Ignored-Members")

Method = Callable[..., Any]
Result = TypeVar("Result")


def serve(method: Method, spec: EndpointSpec, context: RequestContext) -> Response:
    """Serve one request. Run it again from the start if the database asks for it."""
    _audit_blocked_attempts()
    try:
        require_token(context, spec)
        if spec.list_spec is not None and response_format.is_file(spec.media_types):
            return _serve_file(method, spec, context)
        context.body_format = spec.accepts
        members: dict[str, Any] = {}
        if spec.reads_members(request.method):
            members = request_body.body_members(accepts_null=spec.body is None)
        elif spec.accepts is not JSON:
            request_body.raw_body()  # the transaction must not wait for a slow body
        if _idempotency_header(spec) is not None:
            request_body.raw_body()
        if spec.prepare is not None:
            _transaction(lambda: None, spec, context)  # verifies the caller and the permission
            with deadline.paused():
                context.prepared = spec.prepare(context.path, members, context.upload)
        return _transaction(lambda: _perform(method, spec, context, members), spec, context)
    except ClinicError as refusal:
        _audit_refusal(context, refusal)
        raise


def _serve_file(method: Method, spec: EndpointSpec, context: RequestContext) -> Response:
    """Serve a list as a file: read it in short transactions, write the file without one, and audit it.

    Each transaction verifies the caller again, and has a time budget of its own. Nothing is sent before the
    last one has committed the audit entry.
    """

    def step(perform: Callable[[], Result]) -> Result:
        deadline.start()
        return _transaction(perform, spec, context)

    limit_files(context)
    file_format = response_format.requested_format(response_format.format_parameter(), spec.media_types)
    pairs = list(request.args.items(multi=True))
    reader = ListReader(method, spec, context.path, pairs)
    file = step(lambda: list_files.begin(reader, context))
    for keys in list_files.batches_of(file.keys):
        file.add(step(partial(list_files.read_batch, file, context, keys)))
    content = file.write(file_format, request.full_path)
    digest = list_files.digest_of(content)
    step(lambda: list_files.record(file, context, file_format, digest))
    return list_files.file_response(reader.list_spec.name, file_format, content)


def _transaction(perform: Callable[[], Result], spec: EndpointSpec, context: RequestContext) -> Result:
    """Perform a step of the request in one transaction. Run it again if the database asks for it."""
    started = time.monotonic()
    for attempt in range(ATTEMPTS):
        try:
            return _attempt(perform, spec, context, use_memory=attempt == 0)
        except Retry:
            if deadline.has_passed():
                break  # a new connection to a frozen server would wait again
            # otherwise the second attempt is always made: it is the first one with nothing remembered
            if attempt > 0 and time.monotonic() - started > RETRY_WITHIN:
                break
    raise unavailable()


def _attempt(
    perform: Callable[[], Result], spec: EndpointSpec, context: RequestContext, *, use_memory: bool
) -> Result:
    """Perform a step of the request in one transaction."""
    db.session.remove()
    remembered.begin(recalls=use_memory)
    context.row = None
    committing = False
    try:
        try:
            identify(context, spec)
            if context.actor is not None:
                currency.record()
            result = perform()
            if context.session_idle and context.actor is not None and context.actor.session_id is not None:
                sessions.touch(context.actor, context.actor.session_id)
            if not audit_log.append_pending(context.actor or visitor(), context.route):
                sessions.verify_remembered()
        except ClinicError:
            sessions.verify_remembered()
            raise
        committing = True
        db.session.commit()
        remembered.commit()
    except ClinicError as refusal:
        if refusal.entity is None and context.row is not None:
            row = context.row
            refusal.about(row.__entity__, row.id, audit_log.patient_of(row))
        if refusal.commits_changes:
            _commit_refusal(context)
        else:
            _rollback()
        raise
    except Exception as error:
        _raise_translated(error, committing=committing)
    return result


def _commit_refusal(context: RequestContext) -> None:
    """Commit what a refusal changed, such as the end of a session."""
    try:
        audit_log.append_pending(context.actor or visitor(), context.route)
        db.session.commit()
        remembered.commit()
    except Exception as error:
        _raise_translated(error, committing=True)


def _raise_translated(error: Exception, *, committing: bool) -> NoReturn:
    caller_is_remembered = remembered.assumptions().caller is not None
    _rollback()
    if caller_is_remembered and isinstance(error, (DataError, IntegrityError)):
        raise Retry from error  # the failed transaction cannot verify the caller, and no refusal goes without
    translated = translate(error, committing=committing)
    if translated is error:
        raise error
    raise translated from error


def _rollback() -> None:
    try:
        db.session.rollback()
    except Exception:
        db.session.remove()  # the connection is lost, and its transaction with it


def _perform(
    method: Method, spec: EndpointSpec, context: RequestContext, members: dict[str, Any]
) -> Response:
    key = None
    if (header := _idempotency_header(spec)) is not None and context.actor is not None:
        key = _begin_key(header)
        if key.status is not None:
            return _replay(spec, key)
    arguments = _arguments(spec, context, members)
    with read_replica() if spec.report else nullcontext():
        result = method(**arguments)
    db.session.flush()
    response = result if isinstance(result, Response) else _respond(spec, context, result)
    if context.ignored.values:
        _name_ignored_members(spec, context, response)
    if key is not None and 200 <= response.status_code < 300:
        _finish_key(spec, context, key, result, response)
    return response


def _name_ignored_members(spec: EndpointSpec, context: RequestContext, response: Response) -> None:
    # the response to a payment is the bill, which is not comparable with the payment
    created = response.get_json(silent=True) if spec.resource is None else None
    names = context.ignored.changed(created)
    if names:
        response.headers["X-Ignored-Members"] = names


# --- Idempotency ---------------------------------------------------------------------------------------


def _idempotency_header(spec: EndpointSpec) -> str | None:
    return request.headers.get("Idempotency-Key") if request.method == "POST" and spec.idempotent else None


def _begin_key(header: str) -> IdempotencyKey:
    hashes = idempotency.fingerprints(request.method, request.full_path, request_body.comparable_body())
    try:
        return idempotency.begin(current_actor().user_id or 0, header, hashes)
    except OperationalError as error:
        if getattr(error.orig, "pgcode", None) == LOCK_NOT_AVAILABLE:
            db.session.rollback()  # the refusal needs a transaction in which the caller can be verified
            raise ClinicError(
                "request_in_progress", "The first request with this key still runs.", retry_after=1
            ) from None
        raise


def _finish_key(
    spec: EndpointSpec, context: RequestContext, key: IdempotencyKey, result: Any, response: Response
) -> None:
    """Store the response for repeats, its reader, and the record that the audit entries of repeats name."""
    value = result.value if isinstance(result, EndpointResult) else result
    row = value if isinstance(value, Base) else context.row
    headers = {name: response.headers[name] for name in REPLAYED_HEADERS if name in response.headers}
    body = response.get_data(as_text=True)
    if spec.secret:
        body = json.dumps({"id": json.loads(body)["id"]})
    idempotency.finish(key, response.status_code, headers, body)
    key.record = {"reader": current_actor().reader}
    if row is not None:
        entity, entity_id = audit_log.record_of(row)
        key.record |= {"entity": entity, "id": entity_id, "patient_id": audit_log.patient_of(row)}


def _replay(spec: EndpointSpec, key: IdempotencyKey) -> Response:
    """Return the first response again.

    Raise 409 `already_done` if it contained a secret or can no longer be read, or if the rights of the caller
    have changed since.
    """
    record = key.record or {}
    about = [record.get(name) for name in ("entity", "id", "patient_id")]
    response = idempotency.stored_response(key)
    if response is None:
        message = "This was already done. Its response is no longer stored, so read the record with GET."
        raise ClinicError("already_done", message, id=record.get("id")).about(*about)
    headers, body = response
    if spec.secret:
        message = "This was already done, and its secret is shown only once. Send a new Idempotency-Key."
        raise ClinicError("already_done", message, **json.loads(body)).about(*about)
    if not current_actor().may_read_as(record.get("reader")):
        message = "This was already done. Your rights have changed since, so read the record with GET."
        raise ClinicError("already_done", message, id=record.get("id")).about(*about)
    ids, patient_ids = ([record[name]] if record.get(name) else [] for name in ("id", "patient_id"))
    audit_log.record_read("read", record.get("entity"), ids, patient_ids)
    headers["Idempotency-Replayed"] = "true"
    return serialization.json_response(body.encode(), key.status or 200, headers)


# --- Arguments -----------------------------------------------------------------------------------------


def _arguments(spec: EndpointSpec, context: RequestContext, members: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the method: the loaded row or the ids of the path, the body and the query."""
    pairs = list(request.args.items(multi=True)) if request.query_string else []
    arguments: dict[str, Any] = {}
    if spec.list_spec is not None:
        arguments["query"] = list_query.read_list(spec.list_spec, pairs)
    else:
        if not spec.is_page and not spec.ignores_input:
            list_query.refuse_unknown(pairs, set(spec.query.model_fields) if spec.query else set())
        if spec.query is not None:
            arguments["query"] = request_body.validate_query(spec.query, dict(pairs))
    unsafe = request.method not in SAFE_METHODS
    if spec.load is None:
        arguments |= context.path
    else:
        arguments["row"] = context.row = spec.load(current_actor(), **context.path, lock=unsafe)
    if spec.prepare is not None:
        arguments["prepared"] = context.prepared
    if spec.accepts.has_file:
        arguments["upload"] = request_body.uploaded_file()
    if not spec.accepts.has_members:
        arguments["content"] = request_body.body_content()
    if spec.body is not None:
        members = _written_members(spec, context, members)
        arguments["data"] = request_body.validate(spec.body, members)
    elif members:
        request_body.validate(In, members)  # an action without members
    if unsafe and context.row is not None:
        # last: a precondition decides only about a request that would otherwise succeed (RFC 9110, 13.2.1)
        document_tag = spec.document_tag(context.row) if spec.document_tag is not None else None
        check_if_match(context.row, request.headers.get("If-Match"), document_tag)
    return arguments


def _written_members(spec: EndpointSpec, context: RequestContext, members: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a creation or an update without the read-only ones and the equal ones."""
    model, resource, row = spec.body, spec.body_resource, context.row
    context.ignored = IgnoredMembers()
    if model is None or resource is None or not spec.writes_resource(request.method):
        return members
    is_update = request.method in ("PATCH", "PUT")
    if context.actor is not None:
        own = not is_update or context.actor.owns(getattr(row, "doctor_id", None))
        refuse_hidden(model, resource, members, context.actor, own=own)
    if is_update and isinstance(spec.returns, Serializer):
        stored = serialization.dump_dict(spec.returns, current_actor(), row)
        context.ignored.stored = stored
        return real_changes(model, resource, members, stored, context.ignored)
    return drop_read_only(model, resource, members, context.ignored)


# --- Response ------------------------------------------------------------------------------------------


def _respond(spec: EndpointSpec, context: RequestContext, result: Any) -> Response:
    answer = result if isinstance(result, EndpointResult) else EndpointResult(result)
    value, headers, returns = answer.value, dict(answer.headers), spec.returns
    status = answer.status or spec.status
    if isinstance(value, Page) and isinstance(returns, Serializer) and spec.list_spec is not None:
        rows = serialization.dump(returns, context.actor, value.rows)
        _record_read(returns, value.rows, "search" if spec.search else "list")
        headers |= list_headers(value, spec.list_spec.name)
        content = search_body(value, spec.list_spec.name, rows) if spec.search else rows
    elif isinstance(returns, Serializer):
        content = serialization.dump(returns, context.actor, value)
        _record_read(returns, value if isinstance(value, list) else [value], "read")
        if status == 201 and isinstance(value, Base):
            headers.setdefault("Location", f"{request.path.rstrip('/')}/{value.id}")  # type: ignore[attr-defined]
    else:
        content = serialization.dump_plain(returns, value)
    if hasattr(value, "version"):
        headers["ETag"] = etag(value)
    response = serialization.json_response(content, status, headers)
    if answer.change_cookies is not None:
        answer.change_cookies(response)
    return response


def _record_read(serializer: Serializer, rows: list[Any], action: str) -> None:
    """Add one audit entry for a read of patient records. A change has an entry of its own."""
    if serializer.entity is None:
        return
    if request.method not in SAFE_METHODS and (
        audit_log.pending_entries().entries or not all(isinstance(row, Base) for row in rows)
    ):
        return
    patient_ids = {patient_id for row in rows if (patient_id := audit_log.patient_of(row)) is not None}
    single = "list" if action == "read" and len(rows) != 1 else action
    audit_log.record_read(single, serializer.entity, [row.id for row in rows], patient_ids)


# --- Refusals ------------------------------------------------------------------------------------------


def _is_audited(refusal: ClinicError) -> bool:
    """Return True for a refusal that may be an attack or a mistake of a person, not of a program."""
    if refusal.commits_changes:
        return False  # committed with its own entry
    if refusal.status == 401:
        # "unauthorized": without a token. At /metrics a wrong token is a fault of a program's settings.
        return refusal.code != "unauthorized" and str(request.url_rule) != "/metrics"
    return refusal.status in (403, 409, 412) or (refusal.status == 404 and refusal.entity is not None)


def _audit_refusal(context: RequestContext, refusal: ClinicError) -> None:
    if refusal.blocked_action is not None:
        entry = blocked_attempts.add(BlockedAction(refusal.blocked_action, refusal.entity_id))
        if entry is not None:
            _commit_entries(lambda: audit_log.append(context.actor or visitor(), context.route, [entry]))
        return
    if not _is_audited(refusal):
        return
    action = "login" if str(request.url_rule) in SIGN_INS else "refused"
    _commit_entries(
        lambda: audit_log.append_refusal(
            context.actor or visitor(), context.route, refusal, action, context.path
        )
    )


def _audit_blocked_attempts() -> None:
    """Append the blocked sign-ins of the last minute, which have no entry yet."""
    entries = blocked_attempts.take_due()
    if entries:
        _commit_entries(lambda: audit_log.append(None, "blocked attempts of a minute", entries))


def _commit_entries(append: Callable[[], None]) -> None:
    """Append audit entries in a transaction of their own."""
    for attempt in range(ATTEMPTS):
        try:
            audit_log.discard_pending()
            remembered.begin(recalls=False)
            append()
            db.session.commit()
            remembered.commit()
        except Exception as error:
            _rollback()
            translated = translate(error, committing=True)
            if translated is error:
                raise  # a fault of ours: a 500 with its traceback
            if attempt + 1 < ATTEMPTS and isinstance(translated, Retry):
                continue
            # no traceback: the database is away, and every refusal would log one
            log.error("refusal_not_audited", failure=type(error).__name__)  # noqa: TRY400
            raise unavailable() from error
        else:
            return
