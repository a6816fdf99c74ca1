"""Addresses of the API."""

from django.urls import path, re_path

from metering.api import hot_views, reading, reports
from metering.api.management import audit, budgets, keys, prices, settings, teams

urlpatterns = [
    path("events", hot_views.EventsView.as_view()),
    path("traces", hot_views.TracesView.as_view()),
    path("integrations/litellm", hot_views.LitellmView.as_view()),
    path("outcomes", reports.OutcomesView.as_view()),
    path("corrections", reports.CorrectionsView.as_view()),
    path("budgets", budgets.BudgetsView.as_view()),
    path("budgets/<int:budget_id>", budgets.BudgetView.as_view()),
    path("budgets/<int:budget_id>/windows", budgets.WindowsView.as_view()),
    path("prices", prices.PricesView.as_view()),
    path("prices/rerate", prices.RerateView.as_view()),
    # Below zero are the tenant's own.
    re_path(r"^prices/(?P<price_id>-?[0-9]{1,18})$", prices.PriceView.as_view()),
    path("keys", keys.KeysView.as_view()),
    path("keys/<int:key_id>", keys.KeyView.as_view()),
    path("teams", teams.TeamsView.as_view()),
    path("settings", settings.SettingsView.as_view()),
    path("audit-log", audit.AuditLogView.as_view()),
    path("usage", reading.UsageView.as_view()),
    path("traces/<str:trace>", reading.TraceView.as_view()),
    path("sessions/<str:session>", reading.SessionView.as_view()),
    path("export/focus.csv", reading.FocusExportView.as_view()),
]
