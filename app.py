"""The application: the URL map, `create_app()` and the `flask` commands.

`python app.py` starts the development server.
"""

from __future__ import annotations

from typing import Any

from flask import Flask

import config
import extensions
from api import hooks, list_exports, logging
from api.docs import console, registry
from api.resource import ApiResource, PlainApi
from cache.attempts import attempts
from cache.rate_limits import limits
from cache.redis import redis_store
from commands.audit import audit as audit_commands
from commands.backup import backup
from commands.demo import demo
from commands.generate_demo import grow
from commands.imports import import_group
from commands.jobs import jobs
from commands.keys import keys
from commands.users import users
from commands.verify import verify
from config import Settings, SettingsError
from database import engine
from resources.analytics import Dashboard, DoctorPerformance, PatientStats, RevenueReport
from resources.appointment import (
    AppointmentCalendar,
    AppointmentCheckIn,
    AppointmentItem,
    AppointmentList,
    AppointmentSearch,
)
from resources.audit import AuditLogList
from resources.auth import (
    ChangePassword,
    CurrentUser,
    Login,
    Logout,
    RefreshToken,
    Register,
    ResetPassword,
    SessionItem,
    SessionList,
)
from resources.billings import (
    BillingItem,
    BillingList,
    BillingPaymentList,
    BillingRefundItem,
    BillingRefundList,
    BillingVoid,
    BillingWriteOff,
    ClaimItem,
    ClaimList,
)
from resources.calendar_feeds import CalendarDocument, CalendarFeedItem, CalendarFeedList
from resources.clinic import ClinicItem, ClinicLogo
from resources.doctor import DoctorItem, DoctorList, DoctorSearch
from resources.documents import (
    AccountStatementDocument,
    BillingDocument,
    MonthlyReport,
    PaymentReceipt,
    PrescriptionDocument,
    VisitDocument,
)
from resources.emergency_access import (
    EmergencyAccessItem,
    EmergencyAccessList,
    EmergencyAccessReview,
    PatientEmergencyAccess,
)
from resources.exports import ExportFile, ExportItem, ExportList
from resources.import_kinds import IMPORT_KINDS
from resources.imports import (
    ImportApply,
    ImportDryRun,
    ImportItem,
    ImportList,
    ImportReport,
    ImportRowList,
    ImportUndo,
)
from resources.inventory import (
    InventoryAlerts,
    InventoryExpiryCorrection,
    InventoryItemResource,
    InventoryList,
    InventoryMovementList,
)
from resources.jobs import JobItem, JobList, JobRetry
from resources.letter import LetterDocument, LetterItem, LetterList, LetterVoid, VisitLetterList
from resources.message import (
    AppointmentMessages,
    MessageCallback,
    MessageCancel,
    MessageItem,
    MessageList,
    PatientContactPreferences,
)
from resources.message_templates import (
    MessageSettingsItem,
    MessageTemplateItem,
    MessageTemplateList,
    MessageTemplatePreview,
)
from resources.patient import (
    AccountRefundItem,
    AccountRefundList,
    PatientAccessLog,
    PatientAccount,
    PatientItem,
    PatientList,
    PatientMedicalHistory,
    PatientSearch,
    PatientTimeline,
)
from resources.patient_link import AppointmentLink, UnsubscribeLink
from resources.prescription import (
    PrescriptionDispense,
    PrescriptionItem,
    PrescriptionList,
    PrescriptionStop,
)
from resources.price_list import PriceList, PriceListItemResource
from resources.root import (
    Console,
    ConsoleScript,
    ConsoleStyle,
    HealthLive,
    HealthReady,
    Metrics,
    OpenApiDocument,
    Root,
)
from resources.schedule import DoctorAvailability, DoctorSchedule, TimeOffItem, TimeOffList
from resources.second_factor import (
    LoginMfa,
    LoginMfaOptions,
    MfaStatus,
    PasskeyItem,
    PasskeyList,
    PasskeyOptions,
    RecoveryCodeList,
    StepUpOptions,
    StepUpProof,
    TotpConfirm,
    TotpItem,
)
from resources.treatments import TreatmentItem, TreatmentList
from resources.users import UserItem, UserList, UserMfaReset, UserPasswordReset
from resources.verification import VerificationPage
from resources.visit import VisitAddendumList, VisitItem, VisitList, VisitSign
from services.audit import audit_chain, audit_log
from services.exports import exports
from services.imports.kinds import KINDS
from services.jobs import registry as job_registry
from services.users import sessions
from services.users.blocked_attempts import blocked_attempts

# The URL map: one line per endpoint. The API documentation keeps this order.
ROUTES: list[tuple[type[ApiResource], str]] = [
    (Root, "/"),
    (OpenApiDocument, "/openapi.json"),
    (Console, "/docs"),
    (ConsoleScript, f"/docs/{console.SCRIPT}"),
    (ConsoleStyle, f"/docs/{console.STYLE}"),
    (HealthLive, "/health/live"),
    (HealthReady, "/health/ready"),
    (Metrics, "/metrics"),
    (Register, "/auth/register"),
    (Login, "/auth/login"),
    (RefreshToken, "/auth/refresh-token"),
    (Logout, "/auth/logout"),
    (CurrentUser, "/auth/me"),
    (ChangePassword, "/auth/change-password"),
    (ResetPassword, "/auth/reset-password"),
    (SessionList, "/auth/sessions"),
    (SessionItem, "/auth/sessions/<int:session_id>"),
    (MfaStatus, "/auth/mfa"),
    (TotpItem, "/auth/mfa/totp"),
    (TotpConfirm, "/auth/mfa/totp/confirm"),
    (StepUpProof, "/auth/step-up"),
    (RecoveryCodeList, "/auth/mfa/recovery-codes"),
    (PasskeyOptions, "/auth/mfa/passkeys/options"),
    (PasskeyList, "/auth/mfa/passkeys"),
    (StepUpOptions, "/auth/step-up/options"),
    (LoginMfaOptions, "/auth/login/mfa/options"),
    (LoginMfa, "/auth/login/mfa"),
    (PasskeyItem, "/auth/mfa/passkeys/<int:passkey_id>"),
    (UserList, "/users"),
    (UserItem, "/users/<int:user_id>"),
    (UserPasswordReset, "/users/<int:user_id>/password-reset"),
    (UserMfaReset, "/users/<int:user_id>/mfa-reset"),
    (ClinicItem, "/clinic"),
    (ClinicLogo, "/clinic/logo"),
    (PatientList, "/patients"),
    (PatientSearch, "/patients/search"),
    (PatientItem, "/patients/<int:patient_id>"),
    (PatientMedicalHistory, "/patients/<int:patient_id>/medical-history"),
    (PatientAccount, "/patients/<int:patient_id>/account"),
    (AccountStatementDocument, "/patients/<int:patient_id>/account/statement"),
    (AccountRefundList, "/patients/<int:patient_id>/account/refunds"),
    (AccountRefundItem, "/patients/<int:patient_id>/account/refunds/<int:refund_id>"),
    (PatientContactPreferences, "/patients/<int:patient_id>/contact-preferences"),
    (PatientTimeline, "/patients/<int:patient_id>/timeline"),
    (PatientAccessLog, "/patients/<int:patient_id>/access-log"),
    (PatientEmergencyAccess, "/patients/<int:patient_id>/emergency-access"),
    (AuditLogList, "/audit-logs"),
    (EmergencyAccessList, "/emergency-access"),
    (EmergencyAccessItem, "/emergency-access/<int:emergency_access_id>"),
    (EmergencyAccessReview, "/emergency-access/<int:emergency_access_id>/review"),
    (DoctorList, "/doctors"),
    (DoctorSearch, "/doctors/search"),
    (DoctorItem, "/doctors/<int:doctor_id>"),
    (DoctorSchedule, "/doctors/<int:doctor_id>/schedule"),
    (DoctorAvailability, "/doctors/<int:doctor_id>/availability"),
    (TimeOffList, "/doctors/<int:doctor_id>/time-off"),
    (TimeOffItem, "/doctors/<int:doctor_id>/time-off/<int:time_off_id>"),
    (CalendarFeedList, "/doctors/<int:doctor_id>/calendar-feeds"),
    (CalendarFeedItem, "/doctors/<int:doctor_id>/calendar-feeds/<int:calendar_feed_id>"),
    (CalendarDocument, "/calendar/<calendar_token>.ics"),
    (AppointmentList, "/appointments"),
    (AppointmentSearch, "/appointments/search"),
    (AppointmentItem, "/appointments/<int:appointment_id>"),
    (AppointmentCheckIn, "/appointments/<int:appointment_id>/check-in"),
    (AppointmentCalendar, "/appointments/<int:appointment_id>.ics"),
    (AppointmentMessages, "/appointments/<int:appointment_id>/messages"),
    (VisitList, "/visits"),
    (VisitItem, "/visits/<int:visit_id>"),
    (VisitSign, "/visits/<int:visit_id>/sign"),
    (VisitAddendumList, "/visits/<int:visit_id>/addenda"),
    (VisitDocument, "/visits/<int:visit_id>/document"),
    (VisitLetterList, "/visits/<int:visit_id>/letters"),
    (LetterList, "/letters"),
    (LetterItem, "/letters/<int:letter_id>"),
    (LetterVoid, "/letters/<int:letter_id>/void"),
    (LetterDocument, "/letters/<int:letter_id>/document"),
    (TreatmentList, "/treatments"),
    (TreatmentItem, "/treatments/<int:treatment_id>"),
    (PrescriptionList, "/prescriptions"),
    (PrescriptionItem, "/prescriptions/<int:prescription_id>"),
    (PrescriptionDispense, "/prescriptions/<int:prescription_id>/dispense"),
    (PrescriptionStop, "/prescriptions/<int:prescription_id>/stop"),
    (PrescriptionDocument, "/prescriptions/<int:prescription_id>/document"),
    (InventoryList, "/inventory"),
    (InventoryAlerts, "/inventory/alerts"),
    (InventoryItemResource, "/inventory/<int:item_id>"),
    (InventoryMovementList, "/inventory/<int:item_id>/movements"),
    (InventoryExpiryCorrection, "/inventory/<int:item_id>/correct-expiry"),
    (BillingList, "/billings"),
    (BillingItem, "/billings/<int:billing_id>"),
    (BillingPaymentList, "/billings/<int:billing_id>/payments"),
    (BillingRefundList, "/billings/<int:billing_id>/refunds"),
    (BillingRefundItem, "/billings/<int:billing_id>/refunds/<int:refund_id>"),
    (BillingWriteOff, "/billings/<int:billing_id>/write-off"),
    (BillingVoid, "/billings/<int:billing_id>/void"),
    (BillingDocument, "/billings/<int:billing_id>/document"),
    (PaymentReceipt, "/billings/<int:billing_id>/payments/<int:payment_id>/receipt"),
    (ClaimList, "/billings/<int:billing_id>/claims"),
    (ClaimItem, "/billings/<int:billing_id>/claims/<int:claim_id>"),
    (MessageSettingsItem, "/messages/settings"),
    (MessageTemplateList, "/messages/templates"),
    (MessageTemplateItem, "/messages/templates/<kind>/<channel>/<locale>"),
    (MessageTemplatePreview, "/messages/templates/<kind>/<channel>/<locale>/preview"),
    (PriceList, "/price-list"),
    (PriceListItemResource, "/price-list/<int:price_list_item_id>"),
    (RevenueReport, "/analytics/revenue"),
    (DoctorPerformance, "/analytics/doctor-performance"),
    (PatientStats, "/analytics/patient-stats"),
    (Dashboard, "/analytics/dashboard"),
    (MonthlyReport, "/analytics/report"),
    (ImportList, "/imports"),
    (ImportItem, "/imports/<int:import_id>"),
    (ImportRowList, "/imports/<int:import_id>/rows"),
    (ImportReport, "/imports/<int:import_id>/report.xlsx"),
    (ImportDryRun, "/imports/<int:import_id>/dry-run"),
    (ImportApply, "/imports/<int:import_id>/apply"),
    (ImportUndo, "/imports/<int:import_id>/undo"),
    (ExportList, "/exports"),
    (ExportItem, "/exports/<int:export_id>"),
    (ExportFile, "/exports/<int:export_id>/file"),
    (JobList, "/jobs"),
    (JobItem, "/jobs/<int:job_id>"),
    (JobRetry, "/jobs/<int:job_id>/retry"),
    (MessageList, "/messages"),
    (MessageItem, "/messages/<int:message_id>"),
    (MessageCancel, "/messages/<int:message_id>/cancel"),
    (MessageCallback, "/messages/callbacks/<provider>/<secret>"),
    (AppointmentLink, "/a/<token>"),
    (UnsubscribeLink, "/u/<token>"),
    (VerificationPage, "/v/<token>"),
]

# Handlers of jobs that need endpoints or schemas: kind of the job -> function.
JOB_HANDLERS: dict[str, job_registry.Handler] = {exports.WRITE: list_exports.write}


def create_app(settings: Settings | None = None) -> Flask:
    """Create the WSGI application. Without `settings`, read them from the environment.

    Raises `SettingsError` with every invalid setting.
    """
    settings = settings or config.load()
    config.use(settings)
    app = Flask(__name__, static_folder=None)
    app.url_map.strict_slashes = False  # a trailing slash is accepted on every path
    app.config.update(flask_settings(settings))
    logging.configure(production=settings.production)
    extensions.init_app(app)
    redis_store.init(settings.redis_url)
    limits.init(enabled=settings.rate_limit_enabled, redis_url=settings.redis_url)
    attempts.init(enabled=settings.rate_limit_enabled)
    blocked_attempts.clear()
    audit_log.register(extensions.db.session)
    sessions.register(extensions.db.session)
    KINDS.update(IMPORT_KINDS)
    hooks.init_app(app)
    app.before_request(audit_chain.ensure_export_thread)
    register_routes(PlainApi(app))
    job_registry.HANDLERS.update(JOB_HANDLERS)
    register_commands(app)
    registry.registered_endpoints(app)  # fail now if a route has no endpoint declaration
    return app


def flask_settings(settings: Settings) -> dict[str, Any]:
    """Return the configuration of Flask and its extensions."""
    return {
        "DEBUG": settings.flask_debug,
        "PROPAGATE_EXCEPTIONS": False,
        "SQLALCHEMY_DATABASE_URI": settings.database_url,
        "SQLALCHEMY_ENGINE_OPTIONS": engine.engine_options(
            settings.database_url, echo=settings.sqlalchemy_echo
        ),
        "SQLALCHEMY_BINDS": engine.replicas(settings.replica_url, echo=settings.sqlalchemy_echo),
        "JWT_ALGORITHM": "HS256",
        "JWT_DECODE_ALGORITHMS": ["HS256"],
        "JWT_ENCODE_AUDIENCE": "clinic",
        "JWT_DECODE_AUDIENCE": "clinic",
        "JWT_TOKEN_LOCATION": ["headers", "cookies"],
        "JWT_COOKIE_CSRF_PROTECT": False,  # cookies are accepted with an allowed Origin only
        "JWT_COOKIE_SECURE": settings.production,
        "JWT_COOKIE_SAMESITE": "None" if settings.production else "Lax",
        "JWT_SESSION_COOKIE": False,
        "BCRYPT_HANDLE_LONG_PASSWORDS": True,  # must never change: other hashes do not verify with it
    }


def register_routes(api: PlainApi) -> None:
    """Register every endpoint of `ROUTES`."""
    for resource, path in ROUTES:
        api.add_resource(resource, path)


def register_commands(app: Flask) -> None:
    """Register every `flask` command of the application."""
    demo.add_command(grow)
    for command in (users, demo, audit_commands, verify, backup, import_group, jobs, keys):
        app.cli.add_command(command)


if __name__ == "__main__":
    try:
        application = create_app()
    except SettingsError as error:
        raise SystemExit(f"The settings are wrong:\n{error}") from None
    server = config.settings()
    application.run(host=server.host, port=server.port, debug=server.flask_debug, threaded=True)
