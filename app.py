"""The application: `create_app()` and the whole URL map. `python app.py` serves development."""

from __future__ import annotations

from flask import Flask

import config
import extensions
from commands.audit import audit as audit_commands
from commands.demo import demo
from commands.users import users
from commands.verify import verify
from config import Settings
from resources import catalogue, gate, logs
from resources.analytics import Dashboard, DoctorPerformance, PatientStats, RevenueReport
from resources.appointment import (
    AppointmentCheckIn,
    AppointmentItem,
    AppointmentList,
    AppointmentSearch,
)
from resources.audit import AuditLogList
from resources.auth import (
    ChangePassword,
    Login,
    Logout,
    Me,
    RefreshToken,
    Register,
    ResetPassword,
    SessionItem,
    SessionList,
)
from resources.base import PlainApi
from resources.billings import (
    BillingDetail,
    BillingList,
    BillingPayments,
    BillingRefund,
    BillingRefunds,
    BillingVoid,
    BillingWriteOff,
    ClaimItem,
    ClaimList,
)
from resources.doctor import DoctorItem, DoctorList, DoctorSearch
from resources.inventory import InventoryAlerts, InventoryDetail, InventoryList, InventoryMovements
from resources.patient import (
    PatientAccessLog,
    PatientAccount,
    PatientHistory,
    PatientItem,
    PatientList,
    PatientSearch,
    PatientTimeline,
)
from resources.prescription import PrescriptionDispense, PrescriptionItem, PrescriptionList
from resources.root import Live, Metrics, OpenApi, Ready, Root
from resources.schedule import DoctorAvailability, DoctorSchedule, TimeOffItem, TimeOffList
from resources.treatments import TreatmentDetail, TreatmentList
from resources.users import UserItem, UserList, UserPasswordReset
from resources.visit import VisitAddenda, VisitItem, VisitList, VisitSignature
from services import audit, audit_chain


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
    app.before_request(audit_chain.keep_exporting)
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
    add(Register, "/auth/register")
    add(Login, "/auth/login")
    add(RefreshToken, "/auth/refresh-token")
    add(Logout, "/auth/logout")
    add(Me, "/auth/me")
    add(ChangePassword, "/auth/change-password")
    add(ResetPassword, "/auth/reset-password")
    add(SessionList, "/auth/sessions")
    add(SessionItem, "/auth/sessions/<int:session_id>")
    add(UserList, "/users")
    add(UserItem, "/users/<int:user_id>")
    add(UserPasswordReset, "/users/<int:user_id>/password-reset")
    add(PatientList, "/patients")
    add(PatientSearch, "/patients/search")
    add(PatientItem, "/patients/<int:patient_id>")
    add(PatientHistory, "/patients/<int:patient_id>/medical-history")
    add(PatientAccount, "/patients/<int:patient_id>/account")
    add(PatientTimeline, "/patients/<int:patient_id>/timeline")
    add(PatientAccessLog, "/patients/<int:patient_id>/access-log")
    add(AuditLogList, "/audit-logs")
    add(DoctorList, "/doctors")
    add(DoctorSearch, "/doctors/search")
    add(DoctorItem, "/doctors/<int:doctor_id>")
    add(DoctorSchedule, "/doctors/<int:doctor_id>/schedule")
    add(DoctorAvailability, "/doctors/<int:doctor_id>/availability")
    add(TimeOffList, "/doctors/<int:doctor_id>/time-off")
    add(TimeOffItem, "/doctors/<int:doctor_id>/time-off/<int:time_off_id>")
    add(AppointmentList, "/appointments")
    add(AppointmentSearch, "/appointments/search")
    add(AppointmentItem, "/appointments/<int:appointment_id>")
    add(AppointmentCheckIn, "/appointments/<int:appointment_id>/check-in")
    add(VisitList, "/visits")
    add(VisitItem, "/visits/<int:visit_id>")
    add(VisitSignature, "/visits/<int:visit_id>/sign")
    add(VisitAddenda, "/visits/<int:visit_id>/addenda")
    add(TreatmentList, "/treatments")
    add(TreatmentDetail, "/treatments/<int:treatment_id>")
    add(PrescriptionList, "/prescriptions")
    add(PrescriptionItem, "/prescriptions/<int:prescription_id>")
    add(PrescriptionDispense, "/prescriptions/<int:prescription_id>/dispense")
    add(InventoryList, "/inventory")
    add(InventoryAlerts, "/inventory/alerts")
    add(InventoryDetail, "/inventory/<int:item_id>")
    add(InventoryMovements, "/inventory/<int:item_id>/movements")
    add(BillingList, "/billings")
    add(BillingDetail, "/billings/<int:billing_id>")
    add(BillingPayments, "/billings/<int:billing_id>/payments")
    add(BillingRefunds, "/billings/<int:billing_id>/refunds")
    add(BillingRefund, "/billings/<int:billing_id>/refunds/<int:refund_id>")
    add(BillingWriteOff, "/billings/<int:billing_id>/write-off")
    add(BillingVoid, "/billings/<int:billing_id>/void")
    add(ClaimList, "/billings/<int:billing_id>/claims")
    add(ClaimItem, "/billings/<int:billing_id>/claims/<int:claim_id>")
    add(RevenueReport, "/analytics/revenue")
    add(DoctorPerformance, "/analytics/doctor-performance")
    add(PatientStats, "/analytics/patient-stats")
    add(Dashboard, "/analytics/dashboard")


def register_commands(app: Flask) -> None:
    """Every `flask` command of the clinic."""
    app.cli.add_command(users)
    app.cli.add_command(demo)
    app.cli.add_command(audit_commands)
    app.cli.add_command(verify)


if __name__ == "__main__":
    application = create_app()
    chosen = config.settings()
    application.run(host=chosen.host, port=chosen.port, debug=chosen.flask_debug, threaded=True)
