"""The base class of all resources. A method without a declaration fails the import."""

from __future__ import annotations

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
    """Flask-RESTful without its error handling, which answers 500 where Flask's handlers know better."""

    def handle_error(self, e: Exception) -> Any:
        raise e


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
        """Serve one request."""
        method = getattr(self, "get" if request.method == "HEAD" else request.method.lower())
        if any(isinstance(value, int) and value > MAX_INT for value in path.values()):
            raise ClinicError("not_found", "There is no such row: no id is that large.")
        context = current_context()
        context.path = path
        return request_cycle.serve(method, method.operation, context)
