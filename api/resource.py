"""The base class of all resources. A method without a declaration fails the import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response, request
from flask_restful import Api, Resource

from api import request_cycle
from api.request_context import current_context
from column_types import MAX_INT
from errors import ClinicError
from security.permissions import TABLE

METHODS = ("get", "post", "put", "patch", "delete")


class PlainApi(Api):
    """Flask-RESTful without its error handling: Flask's error handlers render every exception."""

    def error_router(self, original_handler: Callable[[Exception], Any], e: Exception) -> Any:
        """Call Flask's handler. Flask-RESTful would match the path again, which fails for a double slash."""
        return original_handler(e)


class ApiResource(Resource):
    """A resource whose methods are all declared with `endpoint`.

    A subclass with an undeclared method, or with a permission that the permission table does not contain,
    raises TypeError when it is defined.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        patch = getattr(cls, "patch", None)
        if patch is not None and not hasattr(cls, "put"):
            cls.put = patch  # data grids send whole rows with PUT: apply them as a merge patch
        super().__init_subclass__(**kwargs)
        for name in METHODS:
            method = getattr(cls, name, None)
            if method is not None and not hasattr(method, "spec"):
                raise TypeError(f"{cls.__name__}.{name} declares no permission: use @endpoint(...)")
            if method is not None and method.spec.permission not in TABLE:
                raise TypeError(f"{cls.__name__}.{name}: its permission is not in the table")

    def dispatch_request(self, *_args: Any, **path: Any) -> Response:
        """Serve one request. Raise 404 for an id that no column can hold."""
        method = getattr(self, "get" if request.method == "HEAD" else request.method.lower())
        if any(isinstance(value, int) and value > MAX_INT for value in path.values()):
            raise ClinicError("not_found", "There is no such row: no id is that large.")
        context = current_context()
        context.path = path
        return request_cycle.serve(method, method.spec, context)
