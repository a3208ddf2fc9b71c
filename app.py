"""The application: `create_app()` and the whole URL map. `python app.py` serves development."""

from __future__ import annotations

from flask import Flask

import config
import extensions
from commands.verify import verify
from config import Settings
from resources import catalogue, gate, logs
from resources.base import PlainApi
from resources.inventory import InventoryAlerts, InventoryDetail, InventoryList, InventoryMovements
from resources.patient import PatientItem, PatientList, PatientSearch
from resources.root import Live, Metrics, OpenApi, Ready, Root
from services import audit


def create_app(settings: Settings | None = None) -> Flask:
    """The WSGI application, with checked settings; raises `config.SettingsError` naming what is wrong."""
    settings = settings or config.load()
    config.use(settings)
    app = Flask(__name__, static_folder=None)
    app.config.update(
        SQLALCHEMY_DATABASE_URI=settings.database_url,
        SQLALCHEMY_ENGINE_OPTIONS=extensions.engine_options(
            settings.database_url, echo=settings.sqlalchemy_echo
        ),
        JWT_SECRET_KEY=settings.jwt_secret_key,
        JWT_ALGORITHM="HS256",
        JWT_DECODE_ALGORITHMS=["HS256"],
        JWT_ENCODE_AUDIENCE="clinic",
        JWT_DECODE_AUDIENCE="clinic",
        JWT_TOKEN_LOCATION=["headers", "cookies"],
        JWT_COOKIE_CSRF_PROTECT=False,  # an allowed Origin is asked for instead
        JWT_COOKIE_SECURE=settings.production,
        JWT_COOKIE_SAMESITE="None" if settings.production else "Lax",
        JWT_SESSION_COOKIE=False,
        BCRYPT_HANDLE_LONG_PASSWORDS=True,  # hashes made without it never verify with it
        DEBUG=settings.flask_debug,
        PROPAGATE_EXCEPTIONS=False,
    )
    logs.configure(production=settings.production)
    extensions.init_app(app)
    extensions.redis_store.init(settings.redis_url)
    extensions.limits.init(enabled=settings.rate_limit_enabled, redis_url=settings.redis_url)
    audit.watch(extensions.db.session)
    gate.init_app(app)
    map_urls(PlainApi(app))
    register_commands(app)
    catalogue.entries(app)  # a route without declaration stops the start
    return app


def map_urls(api: PlainApi) -> None:
    """Every route of the clinic."""
    add = api.add_resource
    add(Root, "/")
    add(OpenApi, "/openapi.json")
    add(Live, "/health/live")
    add(Ready, "/health/ready")
    add(Metrics, "/metrics")
    add(PatientList, "/patients")
    add(PatientSearch, "/patients/search")
    add(PatientItem, "/patients/<int:patient_id>")
    add(InventoryList, "/inventory")
    add(InventoryAlerts, "/inventory/alerts")
    add(InventoryDetail, "/inventory/<int:item_id>")
    add(InventoryMovements, "/inventory/<int:item_id>/movements")


def register_commands(app: Flask) -> None:
    """Every `flask` command of the clinic."""
    app.cli.add_command(verify)


if __name__ == "__main__":
    application = create_app()
    chosen = config.settings()
    application.run(host=chosen.host, port=chosen.port, debug=chosen.flask_debug, threaded=True)
