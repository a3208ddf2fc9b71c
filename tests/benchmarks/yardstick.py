"""Yardstick (a): a bare Flask application under the same server.

It checks a JWT, fetches one patient by primary key through SQLAlchemy's ORM, without committing, and answers
the bytes that the clinic answered to the same request. `BENCH_ANSWERS` is the directory that holds them.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import jwt
from flask import Flask, Response, request
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from models import Patient

PATIENTS = 1_000  # among whose ids one is fetched


def create_app() -> Flask:
    """The WSGI application, configured by the environment of the clinic it is compared with."""
    app = Flask(__name__, static_folder=None)
    url, key = os.environ["DATABASE_URI"], os.environ["JWT_SECRET_KEY"]
    local = {"check_same_thread": False} if url.startswith("sqlite") else {}
    engine = create_engine(url, pool_size=10, connect_args=local)
    folder = Path(os.environ["BENCH_ANSWERS"])

    @cache
    def answer(name: str) -> bytes:
        return (folder / name).read_bytes()

    @app.route("/health/live")
    def live() -> str:
        return "well"

    @app.route("/<name>/<int:number>", methods=["GET", "POST", "PATCH"])
    def serve(name: str, number: int) -> Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        jwt.decode(token, key, algorithms=["HS256"], audience="clinic")
        with Session(engine) as session:
            found = session.get(Patient, number % PATIENTS + 1)
            if found is None:
                raise LookupError
        return Response(answer(name), mimetype="application/json")

    return app
