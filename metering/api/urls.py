"""Addresses of the API."""

from django.urls import path, register_converter
from django.urls.converters import IntConverter

from metering.api import (
    calls,
    decisions,
    estimates,
    events,
    export,
    fast_views,
    forecast,
    halts,
    prices,
    reports,
    reservations,
    savings,
    sources,
    unit_counts,
    usage,
)
from metering.api.annotations import AnnotationRemoval, Annotations
from metering.api.attribute_mappings import AttributeMappingsView
from metering.api.breakers import Breakers
from metering.api.budgets import Budgets
from metering.api.jobs import Jobs
from metering.api.limit_increases import LimitIncreases, RaisesOfBudget
from metering.api.rate_limits import RateLimits
from metering.api.routes import Routes
from metering.api.simulations import Simulations
from tenants.api import settings
from tenants.api.audit import AuditLog
from tenants.api.keys import Keys
from tenants.api.resources import (
    LIST,
    LIST_AND_CREATE,
    REMOVE,
    SHOW,
    SHOW_AND_CHANGE,
    SHOW_AND_REMOVE,
    SHOW_CHANGE_AND_REMOVE,
)
from tenants.api.teams import Teams


class SignedConverter(IntConverter):
    """A whole number that may be below zero, as the ids of a tenant's own prices are."""

    regex = "-?[0-9]{1,18}"


register_converter(SignedConverter, "signed")

urlpatterns = [
    path("events", events.EventsView.as_view()),
    path("traces", fast_views.TracesView.as_view()),
    path("integrations/litellm", fast_views.LitellmView.as_view()),
    path("outcomes", reports.OutcomesView.as_view()),
    path("corrections", reports.CorrectionsView.as_view()),
    path("reservations", reservations.ReservationsView.as_view()),
    path("reservations/<uuid:reservation_id>", reservations.ReservationView.as_view()),
    path("reservations/<uuid:reservation_id>/settle", reservations.SettleView.as_view()),
    path("reservations/<uuid:reservation_id>/release", reservations.ReleaseView.as_view()),
    path("reservations/<uuid:reservation_id>/extend", reservations.ExtendView.as_view()),
    path("balances", reservations.BalancesView.as_view()),
    path("budgets", Budgets.as_view(LIST_AND_CREATE)),
    path("budgets/presets", Budgets.as_view({"get": "presets"})),
    path("budgets/<int:budget_id>", Budgets.as_view(SHOW_CHANGE_AND_REMOVE)),
    path("budgets/<int:budget_id>/windows", Budgets.as_view({"get": "windows"})),
    path("budgets/<int:budget_id>/raises", RaisesOfBudget.as_view(LIST_AND_CREATE)),
    path("budgets/<int:budget_id>/raises/<int:raise_id>", LimitIncreases.as_view(SHOW_AND_REMOVE)),
    path(
        "budgets/<int:budget_id>/raises/<int:raise_id>/approve",
        LimitIncreases.as_view({"post": "approve"}),
    ),
    path(
        "budgets/<int:budget_id>/raises/<int:raise_id>/refuse",
        LimitIncreases.as_view({"post": "refuse"}),
    ),
    path("raises", LimitIncreases.as_view(LIST)),
    path("routes", Routes.as_view(LIST_AND_CREATE)),
    path("routes/<int:route_id>", Routes.as_view(SHOW_CHANGE_AND_REMOVE)),
    path("halts", halts.Halts.as_view(LIST_AND_CREATE)),
    path("halts/<int:halt_id>", halts.HaltLifting.as_view(REMOVE)),
    path("rate-limits", RateLimits.as_view(LIST_AND_CREATE)),
    path("rate-limits/<int:rate_limit_id>", RateLimits.as_view(SHOW_CHANGE_AND_REMOVE)),
    path("breakers", Breakers.as_view(LIST_AND_CREATE)),
    path("breakers/<int:breaker_id>", Breakers.as_view(SHOW_CHANGE_AND_REMOVE)),
    path("breakers/<int:breaker_id>/close", Breakers.as_view({"post": "close"})),
    path("simulations", Simulations.as_view(LIST_AND_CREATE)),
    path("simulations/<int:simulation_id>", Simulations.as_view(SHOW)),
    path("prices", prices.PricesView.as_view()),
    path("prices/rerate", prices.RerateView.as_view()),
    path("prices/<signed:price_id>", prices.PriceView.as_view()),
    path("jobs", Jobs.as_view(LIST)),
    path("jobs/<int:job_id>", Jobs.as_view(SHOW)),
    path("keys", Keys.as_view(LIST_AND_CREATE)),
    path("keys/<int:key_id>", Keys.as_view(REMOVE)),
    path("teams", Teams.as_view(LIST_AND_CREATE)),
    path("teams/<int:team_id>", Teams.as_view(SHOW_AND_CHANGE)),
    path("settings", settings.SettingsView.as_view()),
    path("audit-log", AuditLog.as_view(LIST)),
    path("attribute-mappings", AttributeMappingsView.as_view()),
    path("sources", sources.SourcesView.as_view()),
    path("savings", savings.SavingsView.as_view()),
    path("what-if", savings.WhatIfView.as_view()),
    path("unit-counts", unit_counts.UnitCountsView.as_view()),
    path("annotations", Annotations.as_view(LIST_AND_CREATE)),
    path("annotations/<int:annotation_id>", AnnotationRemoval.as_view(REMOVE)),
    path("usage", usage.UsageView.as_view()),
    path("forecast", forecast.ForecastView.as_view()),
    path("traces/<path:trace>", calls.TraceView.as_view()),
    path("sessions/<path:session>", calls.SessionView.as_view()),
    path("decisions", decisions.DecisionsView.as_view()),
    path("estimates", estimates.EstimatesView.as_view()),
    path("export/focus.csv", export.FocusExportView.as_view()),
]
