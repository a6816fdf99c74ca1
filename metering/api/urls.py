"""Addresses of the API."""

from django.urls import path, register_converter
from django.urls.converters import StringConverter

from metering.api import (
    breakers,
    budgets,
    calls,
    decisions,
    estimates,
    export,
    fast_views,
    halts,
    jobs,
    limit_increases,
    prices,
    rate_limits,
    reports,
    reservations,
    routes,
    simulations,
    sources,
    usage,
)
from tenants.api import audit, keys, settings, teams


class SignedConverter(StringConverter):
    """A whole number that may be below zero, as the ids of a tenant's own prices are."""

    regex = "-?[0-9]{1,18}"

    def to_python(self, value: str) -> int:  # type: ignore[override]
        return int(value)


register_converter(SignedConverter, "signed")

urlpatterns = [
    path("events", fast_views.EventsView.as_view()),
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
    path("budgets", budgets.BudgetsView.as_view()),
    path("budgets/presets", budgets.PresetsView.as_view()),
    path("budgets/<int:budget_id>", budgets.BudgetView.as_view()),
    path("budgets/<int:budget_id>/windows", budgets.WindowsView.as_view()),
    path("budgets/<int:budget_id>/raises", limit_increases.RaisesView.as_view()),
    path("budgets/<int:budget_id>/raises/<int:raise_id>", limit_increases.RaiseView.as_view()),
    path(
        "budgets/<int:budget_id>/raises/<int:raise_id>/approve",
        limit_increases.ApproveView.as_view(),
    ),
    path(
        "budgets/<int:budget_id>/raises/<int:raise_id>/refuse", limit_increases.RefuseView.as_view()
    ),
    path("raises", limit_increases.AllRaisesView.as_view()),
    path("routes", routes.RoutesView.as_view()),
    path("routes/<int:route_id>", routes.RouteView.as_view()),
    path("halts", halts.HaltsView.as_view()),
    path("halts/<int:halt_id>", halts.HaltView.as_view()),
    path("rate-limits", rate_limits.RateLimitsView.as_view()),
    path("rate-limits/<int:rate_limit_id>", rate_limits.RateLimitView.as_view()),
    path("breakers", breakers.BreakersView.as_view()),
    path("breakers/<int:breaker_id>", breakers.BreakerView.as_view()),
    path("breakers/<int:breaker_id>/close", breakers.CloseView.as_view()),
    path("simulations", simulations.SimulationsView.as_view()),
    path("simulations/<int:simulation_id>", simulations.SimulationView.as_view()),
    path("prices", prices.PricesView.as_view()),
    path("prices/rerate", prices.RerateView.as_view()),
    path("prices/<signed:price_id>", prices.PriceView.as_view()),
    path("jobs", jobs.JobsView.as_view()),
    path("jobs/<int:job_id>", jobs.JobView.as_view()),
    path("keys", keys.KeysView.as_view()),
    path("keys/<int:key_id>", keys.KeyView.as_view()),
    path("teams", teams.TeamsView.as_view()),
    path("settings", settings.SettingsView.as_view()),
    path("audit-log", audit.AuditLogView.as_view()),
    path("sources", sources.SourcesView.as_view()),
    path("usage", usage.UsageView.as_view()),
    path("traces/<path:trace>", calls.TraceView.as_view()),
    path("sessions/<path:session>", calls.SessionView.as_view()),
    path("decisions", decisions.DecisionsView.as_view()),
    path("estimates", estimates.EstimatesView.as_view()),
    path("export/focus.csv", export.FocusExportView.as_view()),
]
