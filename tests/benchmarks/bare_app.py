"""Baseline (a), "bare": a minimal Flask application under the same server.

It verifies the JWT and reads one patient by primary key with the ORM of SQLAlchemy, without a commit. It
then sends a prepared response: the bytes that the measured application sent. `BENCH_RESPONSES` is the folder
of the responses.
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

PATIENTS = 1_000  # the ids 1 to 1,000 are read


def create_app() -> Flask:
    """Create the WSGI application. It reads the environment variables of the measured application."""
    app = Flask(__name__, static_folder=None)
    url, key = os.environ["DATABASE_URI"], os.environ["JWT_SECRET_KEY"]
    options = {"check_same_thread": False} if url.startswith("sqlite") else {}
    engine = create_engine(url, pool_size=10, connect_args=options)
    folder = Path(os.environ["BENCH_RESPONSES"])

    @cache
    def response_body(name: str) -> bytes:
        return (folder / name).read_bytes()

    @app.route("/health/live")
    def live() -> str:
        return "well"

    @app.route("/<name>/<int:number>", methods=["GET", "POST", "PATCH"])
    def serve(name: str, number: int) -> Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        jwt.decode(token, key, algorithms=["HS256"], audience="clinic")
        with Session(engine) as session:
            patient = session.get(Patient, number % PATIENTS + 1)
            if patient is None:
                raise LookupError
        return Response(response_body(name), mimetype="application/json")

    return app
