"""Addresses of the API."""

from django.urls import path, register_converter
from django.urls.converters import StringConverter

from metering.api import hot_views, reading, reports, reservations
from metering.api.management import (
    audit,
    breakers,
    budgets,
    halts,
    jobs,
    keys,
    prices,
    raises,
    rate_limits,
    routes,
    settings,
    simulations,
    teams,
)
from metering.api.reading.sources import SourcesView


class SignedConverter(StringConverter):
    """A whole number that may be below zero, as the ids of a tenant's own prices are."""

    regex = "-?[0-9]{1,18}"

    def to_python(self, value: str) -> int:  # type: ignore[override]
        return int(value)


register_converter(SignedConverter, "signed")

urlpatterns = [
    path("events", hot_views.EventsView.as_view()),
    path("traces", hot_views.TracesView.as_view()),
    path("integrations/litellm", hot_views.LitellmView.as_view()),
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
    path("budgets/<int:budget_id>/raises", raises.RaisesView.as_view()),
    path("budgets/<int:budget_id>/raises/<int:raise_id>", raises.RaiseView.as_view()),
    path("budgets/<int:budget_id>/raises/<int:raise_id>/approve", raises.ApproveView.as_view()),
    path("budgets/<int:budget_id>/raises/<int:raise_id>/refuse", raises.RefuseView.as_view()),
    path("raises", raises.AllRaisesView.as_view()),
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
    path("sources", SourcesView.as_view()),
    path("usage", reading.UsageView.as_view()),
    path("traces/<path:trace>", reading.TraceView.as_view()),
    path("sessions/<path:session>", reading.SessionView.as_view()),
    path("decisions", reading.DecisionsView.as_view()),
    path("estimates", reading.EstimatesView.as_view()),
    path("export/focus.csv", reading.FocusExportView.as_view()),
]
