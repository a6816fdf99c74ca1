"""Every address of the service."""

from django.urls import include, path

from billing.webhooks import receive_webhook
from config import health
from config.documentation import DocumentationView, SchemaView
from dashboard.billing import customer_link
from metering.api.events import OpenMeterEventsView
from tenants.admin_site import site as admin_site

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", health.metrics),
    path("v1/schema", SchemaView.as_view(), name="schema"),
    path("v1/docs", DocumentationView.as_view(), name="docs"),
    path("v1/", include("metering.api.urls")),
    path("api/v1/events", OpenMeterEventsView.as_view()),
    path("v1/", include("alerts.api.urls")),
    path("v1/", include("billing.api.urls")),
    path("webhooks/stripe/<int:tenant_id>", receive_webhook),
    path("admin/", admin_site.urls),
    path("bill/<str:token>", customer_link.page, name="customer_bill"),
    path(
        "bill/<str:token>/<int:statement_id>.<str:kind>",
        customer_link.file,
        name="customer_bill_file",
    ),
    path("", include("dashboard.urls")),
]

handler400 = "config.error_pages.bad_request"
handler403 = "config.error_pages.forbidden"
handler404 = "config.error_pages.not_found"
handler500 = "config.error_pages.server_error"
