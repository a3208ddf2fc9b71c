"""A worker process that imports in small batches, so that a test can kill it between two of them."""

from __future__ import annotations

from flask.cli import FlaskGroup

from app import create_app
from services.imports import runs as import_runs


def main() -> None:
    """Run `flask jobs run`."""
    import_runs.BATCH = 20
    FlaskGroup(create_app=create_app).main(["jobs", "run"])


if __name__ == "__main__":
    main()
