"""Addresses of the pages."""

from django.urls import path
from django.views.generic import RedirectView

from dashboard import accounts, views
from dashboard.enforcement import decisions, estimates, halts, raises

app_name = "dashboard"

urlpatterns = [
    path("", views.overview, name="overview"),
    path("charts/spend.json", views.spend_chart, name="spend_chart"),
    path("charts/spend.html", views.spend_table, name="spend_table"),
    path("charts/spend.csv", views.spend_csv, name="spend_csv"),
    path("budgets", views.budgets, name="budgets"),
    path("unpriced", views.unpriced, name="unpriced"),
    path("enforcement", RedirectView.as_view(pattern_name="dashboard:requests")),
    path("enforcement/requests", raises.page, name="requests"),
    path("enforcement/requests/<int:raise_id>/approve", raises.approve, name="approve_raise"),
    path("enforcement/requests/<int:raise_id>/refuse", raises.refuse, name="refuse_raise"),
    path("enforcement/requests/<int:raise_id>/end", raises.end, name="end_raise"),
    path("enforcement/halts", halts.page, name="halts"),
    path("enforcement/halts/confirm", halts.confirm, name="confirm_halt"),
    path("enforcement/halts/make", halts.make, name="make_halt"),
    path("enforcement/halts/<int:halt_id>/lift", halts.lift, name="lift_halt"),
    path("enforcement/breakers/<int:breaker_id>/close", halts.close, name="close_breaker"),
    path("enforcement/decisions", decisions.page, name="decisions"),
    path("enforcement/estimates", estimates.page, name="estimates"),
    # With the version in its address, it can be kept for ever.
    path("assets/plotly-<str:version>.min.js", views.plotly_script, name="plotly_script"),
    path("login", accounts.LoginPage.as_view(), name="login"),
    path("logout", accounts.LogoutPage.as_view(), name="logout"),
    path("password", accounts.PasswordPage.as_view(), name="password"),
    path("tenant", accounts.switch_tenant, name="switch_tenant"),
]
