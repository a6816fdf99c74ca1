"""Addresses of the pages."""

from django.urls import path

from dashboard import accounts, views

app_name = "dashboard"

urlpatterns = [
    path("", views.overview, name="overview"),
    path("charts/spend.json", views.spend_chart, name="spend_chart"),
    path("charts/spend.html", views.spend_table, name="spend_table"),
    path("charts/spend.csv", views.spend_csv, name="spend_csv"),
    path("budgets", views.budgets, name="budgets"),
    path("unpriced", views.unpriced, name="unpriced"),
    # With the version in its address, it can be kept for ever.
    path("assets/plotly-<str:version>.min.js", views.plotly_script, name="plotly_script"),
    path("login", accounts.LoginPage.as_view(), name="login"),
    path("logout", accounts.LogoutPage.as_view(), name="logout"),
    path("password", accounts.PasswordPage.as_view(), name="password"),
    path("tenant", accounts.switch_tenant, name="switch_tenant"),
]
