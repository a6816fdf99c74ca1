"""Django settings. Everything that differs between installations comes from the environment."""

from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO, cast

import structlog
from csp.constants import NONE, SELF

from config.data_folder import read_secret_key
from config.database import database_parameters
from config.environment import read_environment
from config.output import LogOutput


def package_folder(name: str) -> Path:
    """Return where a package is installed, without importing it."""
    spec = find_spec(name)
    assert spec is not None, "requirements/run.txt has it"
    assert spec.origin is not None, "a package has a file"
    return Path(spec.origin).parent


BASE_DIR = Path(__file__).resolve().parent.parent
ENVIRONMENT = read_environment()

SECRET_KEY = ENVIRONMENT.secret_key or read_secret_key(ENVIRONMENT.data_dir)
DEBUG = False
# Whether /styleguide shows every part of the pages.
HAS_STYLEGUIDE = ENVIRONMENT.styleguide
ALLOWED_HOSTS = ENVIRONMENT.allowed_hosts
CSRF_TRUSTED_ORIGINS = [ENVIRONMENT.public_url] if ENVIRONMENT.public_url else []

INSTALLED_APPS = [
    # Before unfold, whose base template it extends.
    "dashboard",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django.contrib.humanize",
    "django.forms",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_htmx",
    "csp",
    "tenants",
    "metering",
    "alerts",
    "billing",
    "config",
]

MIDDLEWARE = [
    "config.metrics.RequestMetrics",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    # Pads each answer by chance, and form tokens are masked again in each: what is compressed
    # together gives nothing away by its length (BREACH).
    "django.middleware.gzip.GZipMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    # Opens the tenant's transaction around everything below it, template rendering included.
    "tenants.middleware.TenantMiddleware",
    "dashboard.kept_input.KeptInputMiddleware",
]

ROOT_URLCONF = "config.urls"

TEMPLATES: list[dict[str, object]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "dashboard.stopped.stopped",
            ],
        },
    },
]

DATABASES = {"default": database_parameters(ENVIRONMENT)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "tenants.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
# Widgets have their templates where pages have theirs.
FORM_RENDERER = "django.forms.renderers.TemplatesSetting"
LOGIN_URL = "/login"
LOGIN_REDIRECT_URL = "/home"
LOGOUT_REDIRECT_URL = "/login"

# Proxies whose word on where a request comes from is believed.
TRUSTED_PROXIES = ENVIRONMENT.trusted_proxies

LANGUAGE_CODE = "en-us"
FORMAT_MODULE_PATH = "config.formats"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "/static/"
# Collected at the start (`config.static_files`); until then, and in tests, served straight from the
# installed packages and the app folders.
STATIC_ROOT = ENVIRONMENT.data_dir / "static"
STATICFILES_DIRS = [("plotly", package_folder("plotly") / "package_data")]
STORAGES: dict[str, object] = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "config.static_files.StaticFiles"},
}
WHITENOISE_KEEP_ONLY_HASHED_FILES = True
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

SESSION_ENGINE = "tenants.login_sessions"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = ENVIRONMENT.is_https
CSRF_COOKIE_SECURE = ENVIRONMENT.is_https
CSRF_FAILURE_VIEW = "dashboard.kept_input.csrf_failure"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if ENVIRONMENT.is_https else None
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if ENVIRONMENT.is_https else 0
SECURE_SSL_REDIRECT = ENVIRONMENT.is_https
# Health is asked from inside. A program that sends its key in the clear is refused (`config.edge`):
# where it follows a redirect it would do so every time.
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$", r"^v1/", r"^api/"]
X_FRAME_OPTIONS = "DENY"

# The style elements of packages. Another version may have others: the walk of all pages fails then,
# and Chromium's message has the hash.
STYLE_HASHES = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",  # plotly: empty, filled by script
    "'sha256-ji27qzEtxXZW+7dun6UwjHXJ18e6WAin1VvNtkzIE/o='",  # plotly: maps
    "'sha256-MMpT0iDxyjALd9PdfepImGX3DBfJPXZ4IlDWdPAgtn0='",  # drf-spectacular: /v1/docs
)
CONTENT_SECURITY_POLICY: dict[str, object] = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF, *STYLE_HASHES],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
        "manifest-src": [SELF],
    },
}

DATA_UPLOAD_MAX_MEMORY_SIZE = 10 * 1024 * 1024

REST_FRAMEWORK: dict[str, object] = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["tenants.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["tenants.authentication.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["common.api.rendering.JsonRenderer"],
    "DEFAULT_PARSER_CLASSES": ["common.api.parsing.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "common.api.schema.ContractSchema",
    "EXCEPTION_HANDLER": "common.api.problems.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "COERCE_DECIMAL_TO_STRING": True,
}

SPECTACULAR_SETTINGS: dict[str, object] = {
    "TITLE": "Spendgate",
    "DESCRIPTION": "Meters what AI agents spend, against budgets, exactly.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "SERVE_PERMISSIONS": [],
    "SERVE_AUTHENTICATION": [],
    "SCHEMA_PATH_PREFIX": "/v1",
    "OAS_VERSION": "3.1.0",
    "COMPONENT_SPLIT_REQUEST": True,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "POSTPROCESSING_HOOKS": ["metering.api.schema.add_components"],
}

# Limits of the HTTP contract for the time of an event.
EVENT_MAX_AGE = timedelta(days=ENVIRONMENT.event_max_age_days)
EVENT_MAX_AHEAD = timedelta(minutes=5)

# How long rows are kept; event keys and the answers kept for retries go by the contract instead.
RETENTION_EVENTS = timedelta(days=ENVIRONMENT.retention_events_days)
RETENTION_DECISIONS = timedelta(days=ENVIRONMENT.retention_decisions_days)
RETENTION_INCIDENTS = timedelta(days=ENVIRONMENT.retention_incidents_days)
RETENTION_HISTORY = timedelta(days=ENVIRONMENT.retention_history_days)

# The operator's mail server, and the private networks that tenants' channels may reach.
MAIL_URL = ENVIRONMENT.mail_url
CHANNEL_NETWORKS = ENVIRONMENT.channel_networks

# Stripe for tenants without a key of their own; another address than Stripe's is for tests.
STRIPE_API_KEY = ENVIRONMENT.stripe_api_key
STRIPE_WEBHOOK_SECRET = ENVIRONMENT.stripe_webhook_secret
STRIPE_API_BASE = ENVIRONMENT.stripe_api_base
STRIPE_FAKE_BASE = ENVIRONMENT.stripe_fake_base

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ],
    logger_factory=structlog.WriteLoggerFactory(cast(TextIO, LogOutput())),
)
LOGGING: dict[str, object] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}

UNFOLD: dict[str, object] = {
    "SITE_TITLE": "Spendgate",
    "SITE_HEADER": "Spendgate",
    "SITE_SYMBOL": "payments",
    "SHOW_HISTORY": True,
}
