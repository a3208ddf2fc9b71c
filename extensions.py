"""The Flask extensions of the application, one instance each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask
from flask_bcrypt import Bcrypt
from flask_cors import CORS
from flask_jwt_extended import JWTManager
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session
from sqlalchemy import Connection, Engine

from database import pool_metrics
from database.engine import REPLICA, register
from models import Base


class ClinicSession(Session):
    """A session on the clinic's database, or on the read replica inside `read_replica()`."""

    use_replica = False

    def get_bind(self, *_mapper: Any, **_options: Any) -> Engine | Connection:
        """Return the engine of the next statement."""
        return db.engines[REPLICA if self.use_replica else None]


db = SQLAlchemy(model_class=Base, session_options={"class_": ClinicSession})
migrate = Migrate(db=db)
jwt = JWTManager()
bcrypt = Bcrypt()
cors = CORS()


@contextmanager
def read_replica() -> Iterator[None]:
    """Read from the replica, if there is one, inside the block. Its data may be some moments old."""
    session: Any = db.session()
    session.use_replica = REPLICA in db.engines
    try:
        yield
    finally:
        session.use_replica = False


def init_app(app: Flask) -> None:
    """Bind the extensions to the application, whose config is complete."""
    db.init_app(app)
    migrate.init_app(app, directory=os.path.join(app.root_path, "migrations"))
    jwt.init_app(app)
    bcrypt.init_app(app)
    with app.app_context():
        for name, engine in db.engines.items():
            register(engine)
            pool_metrics.observe(engine, name or "primary")
