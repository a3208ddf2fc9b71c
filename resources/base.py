"""The framework of the house: one declaration per endpoint, one way of a request, one place that commits.

`endpoint` declares; `ApiResource.dispatch_request` enforces. A request is: identify (outside any
transaction), permission, row, body, rule, answer, audit, commit. Any exception rolls all of it back.
"""

from __future__ import annotations

import hmac
import inspect
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import structlog
from flask import Request, Response, g, request
from flask_restful import Api, Resource
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError

from config import settings
from database import commit_with_next
from errors import ClinicError
from extensions import db, reporting
from models import MAX_INT, Base
from resources import answers, body, query
from resources.answers import Answer, View
from resources.failures import LOCK_NOT_AVAILABLE, Retry, Stale, read_failure, unavailable
from schemas.base import Out
from security import tokens
from security.permissions import TABLE, Actor, Permission
from security.tokens import Claims
from services import audit, idempotency, sessions
from services.listing import Listing, Page

log = structlog.get_logger()
Method = TypeVar("Method", bound=Callable[..., Any])
Proxied = TypeVar("Proxied")

METHODS = ("get", "post", "put", "patch", "delete")
SAFE = ("GET", "HEAD", "OPTIONS")
ATTEMPTS = 5
RETRY_WITHIN = 2.0  # seconds after which a request is not begun again


@dataclass(frozen=True)
class Operation:
    """What one method of one route declares; read by the dispatcher, the documents and the tests.

    `loads` fetches the row that the path names, `loads(actor, **path, lock=bool)`; `body` is the schema of
    what comes in, a merge patch where the method is PATCH; `params` the schema of a query string, `lists`
    the listing that reads it instead; `returns` how the answer is shown, `many` that it is an array;
    `rehearsed` what `?dry_run=true` answers in its place, with 200.
    `search` wraps the list in an envelope. A `report` is read from the replica, where there is one. `errors`
    adds codes that only this operation answers, for the documents. `foretells` says that the path names a
    patient, whom it reads by one statement: the audit's entry is known before, and goes with it.
    """

    permission: Permission
    body: type[BaseModel] | None = None
    params: type[BaseModel] | None = None
    lists: Listing[Any] | None = None
    search: bool = False
    report: bool = False
    many: bool = False
    loads: Callable[..., Any] | None = None
    returns: View | type[Out] | None = None
    rehearsed: type[Out] | None = None
    status: int = 200
    media: tuple[str, ...] = ("application/json",)
    errors: tuple[str, ...] = ()
    foretells: bool = False
    idempotent: bool = True  # a POST that honours Idempotency-Key
    summary: str = ""
    description: str = ""


def endpoint(permission: Permission, **declared: Any) -> Callable[[Method], Method]:
    """Declare a method of an `ApiResource`. Its docstring is the operation's summary."""

    def decorate(method: Method) -> Method:
        text = inspect.getdoc(method)
        if not text:
            raise TypeError(f"{method.__qualname__} needs a docstring: it is the endpoint's summary")
        summary, _, description = text.partition("\n")
        operation = Operation(permission, summary=summary, description=description.strip(), **declared)
        method.operation = operation  # type: ignore[attr-defined]
        return method

    return decorate


class PlainApi(Api):
    """Flask-RESTful without its error handling, which answers 500 where Flask's handlers know better."""

    def handle_error(self, e: Exception) -> Any:
        raise e


@dataclass
class Call:
    """One request on its way: who asks for what."""

    request: Request
    operation: Operation
    path: dict[str, Any]
    route: str
    actor: Actor | None = None
    idle: bool = False  # the session's last use is older than a minute
    key: Any = None
    row: Any = None
    foretold: bool = False  # the entry of this read goes with the row, in one message that is the transaction


class ApiResource(Resource):
    """A resource of the clinic. Every method is declared by `endpoint`, or the class cannot be made."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        patch = getattr(cls, "patch", None)
        if patch is not None and not hasattr(cls, "put"):
            cls.put = patch  # grids replace whole rows: the same merge
        super().__init_subclass__(**kwargs)
        for name in METHODS:
            method = getattr(cls, name, None)
            if method is not None and not hasattr(method, "operation"):
                raise TypeError(f"{cls.__name__}.{name} declares no permission: use @endpoint(...)")
            if method is not None and method.operation.permission not in TABLE:
                raise TypeError(f"{cls.__name__}.{name}: its permission is not in the table")

    def dispatch_request(self, *_args: Any, **path: Any) -> Response:
        """Serve one request, again from the start where the database asks for it."""
        asked = behind(request)
        method = getattr(self, "get" if asked.method == "HEAD" else asked.method.lower())
        if any(isinstance(value, int) and value > MAX_INT for value in path.values()):
            raise ClinicError("not_found", "There is no such row: no id is that large.")
        call = Call(asked, method.operation, path, f"{asked.method} {asked.url_rule}")
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


def _attempt_once(method: Callable[..., Any], call: Call, *, trusting: bool) -> Response:
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
            _identify(call)
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
            refusal.about(call.row.__entity__, call.row.id, audit.patient_of(call.row))
        if refusal.keeps_work:
            _commit_refusal(call)
        else:
            _rollback()
        raise
    except Exception as failure:
        _raise_told(failure, committing)


def _commit_refusal(call: Call) -> None:
    """The refusal itself changed something that must stay, or the request runs again."""
    try:
        audit.settle(_doer(call), call.route)
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


def behind(proxy: Proxied) -> Proxied:
    """What `request` and `g` stand for, which they look up anew each time, to be asked several times."""
    found: Proxied = proxy._get_current_object()  # type: ignore[attr-defined]
    return found


# --- Who -----------------------------------------------------------------------------------------------


def bearer_token() -> str | None:
    """The token of the Authorization header; None without the header, empty where it holds something else."""
    header = request.headers.get("Authorization", "")
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else "" if header else None


def presented_token() -> tuple[str | None, bool]:
    """The access token of the request and whether it came as a cookie; the header wins."""
    bearer = bearer_token()
    if bearer is not None:
        return bearer, False  # even where it is no token: not silently the cookie
    cookie = request.cookies.get("access_token_cookie")
    return cookie, cookie is not None


def read_claims() -> Claims | None:
    """The claims of the presented token, read once per request; None without one. Raises 401."""
    kept = behind(g)
    if "claims" not in kept:
        token, by_cookie = presented_token()
        try:
            kept.claims = None if token is None else tokens.read(token, tokens.ACCESS)
            kept.by_cookie = by_cookie
        except ClinicError as refusal:
            kept.claims = refusal
    if isinstance(kept.claims, ClinicError):
        raise kept.claims
    found: Claims | None = kept.claims
    return found


def check_origin() -> None:
    """403 for an unsafe request that a cookie signs but no allowed origin sends (CSRF)."""
    if request.method in SAFE:
        return
    origin = (request.headers.get("Origin") or "").rstrip("/")
    if origin not in settings().allowed_origins and origin != request.host_url.rstrip("/"):
        raise ClinicError("origin_not_allowed", "A request with cookies must come from an allowed origin.")


def _is_scraper(call: Call) -> bool:
    """Prometheus cannot sign in: `METRICS_TOKEN` is its bearer token, for the figures alone."""
    if call.operation.permission is not Permission.METRICS_READ:
        return False
    wanted, (token, _cookie) = settings().metrics_token, presented_token()
    return bool(wanted and token and hmac.compare_digest(token.encode(), wanted.encode()))


def _identify(call: Call) -> None:
    kept = behind(g)
    call.actor = kept.actor = None
    if _is_scraper(call):
        return
    public = call.operation.permission is Permission.PUBLIC
    try:
        claims = read_claims()
        if claims is None and not public:
            raise ClinicError("unauthorized", "Sign in first: send Authorization: Bearer <access_token>.")
        if claims is not None:
            revoked = kept.revoked if "revoked" in kept else sessions.is_revoked(claims.session_id)
            call.actor, call.idle = sessions.identify(
                claims, visitor(), revoked=revoked, reading=call.request.method in SAFE
            )
            if kept.by_cookie and not public:
                check_origin()
    except ClinicError as refusal:
        if not public:
            raise
        kept.token_problem = refusal  # a public route decides for itself
    kept.actor = call.actor
    if call.actor is not None:
        call.actor.require(call.operation.permission)


def current_actor() -> Actor:
    """The signed-in user of this request."""
    actor: Actor | None = g.actor
    if actor is None:
        raise ClinicError("unauthorized", "Sign in first.")
    return actor


def optional_actor() -> Actor | None:
    """On a public route: the signed-in user, or None without token. A bad token is refused, not ignored."""
    problem: ClinicError | None = g.get("token_problem")
    if problem is not None:
        raise problem
    actor: Actor | None = g.actor
    if actor is not None and g.by_cookie:
        check_origin()
    return actor


def act_as(actor: Actor) -> None:
    """Somebody proved on a public route who they are: the audit names them."""
    g.actor = actor


def visitor() -> Actor:
    """Nobody that we know, at the address the request came from."""
    return Actor(None, "", None, address=request.remote_addr, request_id=g.request_id)


def _doer(call: Call) -> Actor:
    """Whom the audit names."""
    return g.actor or call.actor or visitor()


# --- What ----------------------------------------------------------------------------------------------


def _perform(method: Callable[..., Any], call: Call) -> Response:
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
    audit.settle(_doer(call), call.route)
    return response


def _foretell(call: Call) -> None:
    """Tell the audit of a read before it happens, where one message can be all of the transaction."""
    session = db.session()
    known = session.info["trusting"] and "assumed" in session.info
    call.foretold = call.operation.foretells and known and not call.idle
    if call.foretold:
        audit.foretell_read(_doer(call), call.route, **call.path)
        commit_with_next(session.connection())


def _begin_key(call: Call, key: str) -> Response | None:
    user_id = current_actor().user_id or 0
    wanted = idempotency.fingerprint(call.request.method, call.request.full_path, body.raw_body())
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
    return answers.json_response((row.body or "").encode(), row.status, headers)


def _arguments(call: Call) -> dict[str, Any]:
    """What the method is called with: the loaded row or the path's ids, the body, the query."""
    asked, operation = call.request, call.operation
    pairs = list(asked.args.items(multi=True)) if asked.query_string else []
    found: dict[str, Any] = {}
    if operation.lists is not None:
        found["listed"] = query.read_list(operation.lists, pairs)
    else:
        known = set(operation.params.model_fields) if operation.params else set()
        query.refuse_unknown(pairs, known)
        if operation.params is not None:
            found["params"] = body.validate_query(operation.params, dict(pairs))
    unsafe = asked.method not in SAFE
    if operation.loads is None:
        found |= call.path
    else:
        _foretell(call)  # nothing but the row can be refused from here on
        found["row"] = call.row = operation.loads(current_actor(), **call.path, lock=unsafe)
    if operation.body is not None:
        members = body.json_object()
        if asked.method in ("PATCH", "PUT") and isinstance(operation.returns, View):
            members = _real_changes(operation, members, call.row)
        found["data"] = body.validate(operation.body, members)
    if unsafe and hasattr(call.row, "version"):
        # last: RFC 9110 13.2.1 lets a precondition decide only what would otherwise have worked
        answers.check_if_match(call.row, asked.headers.get("If-Match"))
    return found


def _real_changes(operation: Operation, members: dict[str, Any], row: Any) -> dict[str, Any]:
    """A merge patch without what is read-only and without what the row already says.

    Grids send whole rows back: those members count as absent, for rules and permissions too.
    """
    if row is None or operation.body is None or not isinstance(operation.returns, View):
        return members
    writable = operation.body.model_fields
    stored = answers.shown(operation.returns, current_actor(), row)
    return {
        name: value
        for name, value in members.items()
        if (name in writable and not (name in stored and _same(value, stored[name])))
        or (name not in writable and name not in operation.returns.out.model_fields)
    }


def _same(sent: Any, stored: Any) -> bool:
    """Equal as JSON: to Python True is 1, and a member of the wrong type must not pass for an equal one."""
    if isinstance(sent, dict) and isinstance(stored, dict):
        return sent.keys() == stored.keys() and all(_same(sent[name], stored[name]) for name in sent)
    if isinstance(sent, list) and isinstance(stored, list):
        return len(sent) == len(stored) and all(map(_same, sent, stored))
    return isinstance(sent, bool) == isinstance(stored, bool) and bool(sent == stored)


# --- Answer --------------------------------------------------------------------------------------------


def _respond(call: Call, result: Any) -> Response:
    answer = result if isinstance(result, Answer) else Answer(result)
    operation, value, headers = call.operation, answer.value, dict(answer.headers)
    status = answer.status or operation.status
    returns = operation.returns
    if isinstance(value, Page) and isinstance(returns, View) and operation.lists is not None:
        rows = answers.dump(returns, call.actor, value.rows)
        _note_rows(returns, value.rows, "search" if operation.search else "list")
        headers |= answers.list_headers(value, operation.lists.name)
        content = answers.search_body(value, operation.lists.name, rows) if operation.search else rows
    elif isinstance(returns, View):
        content = answers.dump(returns, call.actor, value)
        if not call.foretold:
            _note_rows(returns, value if isinstance(value, list) else [value], "read")
        if hasattr(value, "version"):
            headers["ETag"] = answers.etag(value)
        if status == 201 and isinstance(value, Base):
            headers.setdefault("Location", f"{call.request.path.rstrip('/')}/{value.id}")  # type: ignore[attr-defined]
    else:
        content = answers.dump_plain(returns, value)
    response = answers.json_response(content, status, headers)
    if answer.decorate is not None:
        answer.decorate(response)
    return response


def _note_rows(view: View, rows: list[Any], action: str) -> None:
    """A read of patients' records leaves one entry; a change already has its own."""
    if view.entity is None:
        return
    if request.method not in SAFE and (audit.trail().deeds or not all(isinstance(row, Base) for row in rows)):
        return
    patients = {found for row in rows if (found := audit.patient_of(row)) is not None}
    single = "list" if action == "read" and len(rows) != 1 else action
    audit.note_read(single, view.entity, [row.id for row in rows], patients)


def _audit_refusal(call: Call, refusal: ClinicError) -> None:
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
            audit.forget()
            audit.refuse(_doer(call), call.route, refusal, action, call.path)
            db.session.commit()
            return
        except Exception as failure:
            _rollback()
            if attempt + 1 < ATTEMPTS and isinstance(read_failure(failure, committing=True), Retry):
                continue
            log.error("refusal_not_audited", failure=type(failure).__name__)
            raise unavailable() from failure
