"""The navigation of the admin, and the color that it shares with the other pages."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from django.urls import reverse

from tenants.roles import SCOPES_BY_ROLE, Role, Scope

ACCENT: Final = {
    "50": "#eef4ff",
    "100": "#dbe6fe",
    "200": "#bfd3fe",
    "300": "#93b4fd",
    "400": "#6f9bf8",
    "500": "#4a7bee",
    "600": "#1f55c4",
    "700": "#1b469f",
    "800": "#1b3c82",
    "900": "#1b356b",
    "950": "#142144",
}


class Item(NamedTuple):
    """A line of the navigation: its words, its icon, and the model or the page that it leads to."""

    title: str
    icon: str
    target: str
    # What a person needs to look at it; None: to be a member.
    needs: Scope | None = None

    @property
    def link(self) -> str:
        """The address that it leads to."""
        if ":" in self.target:
            return reverse(self.target)
        return reverse(f"admin:{self.target.replace('.', '_')}_changelist")


NAVIGATION: Final = (
    (
        "Watch",
        (
            Item("Overview", "monitoring", "dashboard:overview"),
            Item("Increase requests", "trending_up", "dashboard:requests"),
            Item("Halts", "front_hand", "dashboard:halts"),
        ),
    ),
    (
        "Spending limits",
        (
            Item("Budgets", "savings", "metering.budget"),
            Item("Breakers", "electric_bolt", "metering.breaker"),
            Item("Rate limits", "speed", "metering.ratelimit"),
            Item("Routes", "alt_route", "metering.modelroute"),
        ),
    ),
    (
        "Alerts",
        (
            Item("Incidents", "crisis_alert", "dashboard:incidents"),
            Item("Channels", "campaign", "alerts.channel"),
            Item("Deliveries", "outbox", "dashboard:deliveries"),
            Item("Alerts", "notifications_paused", "alerts.alertsettings"),
            Item("Maintenance windows", "engineering", "alerts.maintenancewindow"),
        ),
    ),
    (
        "Prices",
        (
            Item("Model prices", "sell", "metering.tenantprice"),
            Item("Tool prices", "build", "metering.toolprice"),
            Item("Catalogue", "menu_book", "metering.catalogueprice"),
        ),
    ),
    (
        "Billing",
        (
            Item("Prepaid credit", "account_balance_wallet", "billing.creditgrant"),
            Item("Coupons", "local_offer", "billing.coupon"),
            Item("Customers", "groups_3", "billing.customer", Scope.BILLING),
            Item("Plans", "request_quote", "billing.plan", Scope.BILLING),
            Item("Subscriptions", "autorenew", "billing.subscription", Scope.BILLING),
            Item("Statements", "receipt_long", "billing.statement", Scope.BILLING),
        ),
    ),
    (
        "Access",
        (
            Item("Members", "group", "tenants.membership"),
            Item("Invitations", "mail", "tenants.invitation"),
            Item("Teams", "groups", "tenants.team"),
            Item("API keys", "key", "tenants.apikey"),
        ),
    ),
    (
        "Tenant",
        (
            Item("Workspace", "tune", "tenants.tenant"),
            Item("Jobs", "pending_actions", "metering.backgroundjob"),
            Item("Audit log", "history", "tenants.auditentry"),
        ),
    ),
)


def sidebar(path: str, role: Role | None) -> list[dict[str, object]]:
    """Return the navigation as the sidebar shows it on the page at this path, to this role."""
    return [
        {
            "title": title,
            "separator": False,
            "items": [
                {
                    "title": item.title,
                    "icon": item.icon,
                    "link": item.link,
                    "has_permission": item.needs is None
                    or (role is not None and item.needs in SCOPES_BY_ROLE[role]),
                    "active": len(item.link) > 1 and path.startswith(item.link),
                }
                for item in items
            ],
        }
        for title, items in NAVIGATION
    ]


def model_groups(apps: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the models of the admin's apps in the groups and words of the navigation."""
    models = {
        f"{app['app_label']}.{model['object_name'].lower()}": model
        for app in apps
        for model in app["models"]
    }
    groups = [
        {
            "name": title,
            "app_label": title,
            "app_url": None,
            "models": [
                {**models[item.target], "name": item.title}
                for item in items
                if item.target in models
            ],
        }
        for title, items in NAVIGATION
    ]
    return [group for group in groups if group["models"]]
