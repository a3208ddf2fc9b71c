"""The Flask extensions of the application, one instance each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask, current_app
from flask_bcrypt import Bcrypt
from flask_cors import CORS
from flask_jwt_extended import JWTManager
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session
from sqlalchemy import Connection, Engine

from database.engine import REPLICA, prepare_engine
from models import Base


class ClinicSession(Session):
    """Asks the clinic's database; for what is read within `reporting`, the replica where there is one."""

    def get_bind(self, *mapper: Any, **asked: Any) -> Engine | Connection:
        """The engine of the next statement."""
        return db.engines[REPLICA if self.info.get(REPLICA) else None]


db = SQLAlchemy(model_class=Base, session_options={"class_": ClinicSession})
migrate = Migrate(db=db)
jwt = JWTManager()
bcrypt = Bcrypt()
cors = CORS()


# --- Database ------------------------------------------------------------------------------------------


@contextmanager
def reporting() -> Iterator[None]:
    """What is read in here may be some moments old: it comes from the read replica, if there is one."""
    db.session.info[REPLICA] = REPLICA in db.engines
    try:
        yield
    finally:
        db.session.info[REPLICA] = False


def remembered(what: str) -> dict[Any, Any]:
    """What this process has read of the clinic's database, under a name; checked before it is relied on."""
    kept: dict[str, dict[Any, Any]] = current_app.extensions["remembered"]
    return kept.setdefault(what, {})


def forget() -> None:
    """Remember nothing, as a new process does."""
    current_app.extensions["remembered"].clear()


def init_app(app: Flask) -> None:
    """Bind everything here to `app`, whose config is set."""
    app.extensions["remembered"] = {}
    db.init_app(app)
    migrate.init_app(app, directory=os.path.join(app.root_path, "migrations"))
    jwt.init_app(app)
    bcrypt.init_app(app)
    with app.app_context():
        for engine in db.engines.values():
            prepare_engine(engine)
