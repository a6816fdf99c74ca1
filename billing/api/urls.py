"""Addresses of the API of billing."""

from django.urls import path

from billing.api import credit_urls
from billing.api.customers import Customers
from billing.api.margins import MarginsView
from billing.api.plans import Plans
from billing.api.provider_bills import ProviderBillsView
from billing.api.rating_preview import RatingPreviewView
from billing.api.reconciliations import Reconciliations, ReconciliationSettingsView
from billing.api.settings import BillingSettingsView
from billing.api.statements import Statements
from billing.api.subscriptions import Subscriptions
from tenants.api.resources import LIST, LIST_AND_CREATE, SHOW, SHOW_CHANGE_AND_REMOVE

urlpatterns = [
    *credit_urls.urlpatterns,
    path("billing-settings", BillingSettingsView.as_view()),
    path("customers", Customers.as_view(LIST_AND_CREATE)),
    path("customers/<str:customer_id>", Customers.as_view(SHOW_CHANGE_AND_REMOVE)),
    path("plans", Plans.as_view(LIST_AND_CREATE)),
    path("plans/<str:plan_id>", Plans.as_view(SHOW_CHANGE_AND_REMOVE)),
    path("plans/<str:plan_id>/versions", Plans.as_view({"post": "add_version"})),
    path("rating-preview", RatingPreviewView.as_view()),
    path("subscriptions", Subscriptions.as_view(LIST_AND_CREATE)),
    path("subscriptions/<int:subscription_id>", Subscriptions.as_view(SHOW_CHANGE_AND_REMOVE)),
    path("statements", Statements.as_view(LIST)),
    path("statements/<int:statement_id>", Statements.as_view(SHOW)),
    path("statements/<int:statement_id>.csv", Statements.as_view({"get": "csv"})),
    path("statements/<int:statement_id>.html", Statements.as_view({"get": "html"})),
    path("statements/<int:statement_id>/finalise", Statements.as_view({"post": "finalise"})),
    path("statements/<int:statement_id>/void", Statements.as_view({"post": "void"})),
    path("provider-bills", ProviderBillsView.as_view()),
    path("reconciliations", Reconciliations.as_view(LIST_AND_CREATE)),
    path("reconciliations/<int:reconciliation_id>", Reconciliations.as_view(SHOW)),
    path(
        "reconciliations/<int:reconciliation_id>/drifts",
        Reconciliations.as_view({"get": "drifts"}),
    ),
    path("reconciliations/<int:reconciliation_id>.csv", Reconciliations.as_view({"get": "csv"})),
    path("reconciliation-settings", ReconciliationSettingsView.as_view()),
    path("margins", MarginsView.as_view()),
]
