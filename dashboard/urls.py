"""Addresses of the pages."""

from django.urls import path, register_converter
from django.urls.converters import StringConverter
from django.views.generic import RedirectView

from dashboard import (
    accounts,
    annotations_page,
    invitations,
    savings,
    search,
    styleguide,
    units,
)
from dashboard.billing import (
    customer,
    customer_forms,
    customers,
    plan_edit,
    plans,
    unassigned,
)
from dashboard.budgets import editing, previewing
from dashboard.budgets import one as one_budget
from dashboard.budgets import views as budget_list
from dashboard.enforcement import (
    decisions,
    estimates,
    halts,
    raise_form,
    raises,
    rule_forms,
    rules,
    unknown,
)
from dashboard.explore import calls, exports
from dashboard.explore import page as explore
from dashboard.incidents import actions, channel_forms, channels, deliveries, lists, one
from dashboard.overview import charts
from dashboard.overview import page as overview
from dashboard.reports import pages
from dashboard.sessions import addresses, call, trace
from dashboard.sessions import lists as session_lists
from dashboard.sessions import one as session
from dashboard.settings import (
    account,
    alerts,
    audit_log,
    keys,
    members,
    price_forms,
    prices,
    sources,
    teams,
    workspace,
)

app_name = "dashboard"


class KindConverter(StringConverter):
    """A kind of rule that has a form."""

    regex = "|".join(rule_forms.KINDS)


register_converter(KindConverter, "kind")
register_converter(addresses.AnyText, "text")
register_converter(addresses.Segment, "segment")

urlpatterns = [
    path("", overview.page, name="overview"),
    path("charts/spend.json", charts.spend_chart, name="spend_chart"),
    path("charts/spend.html", charts.spend_table, name="spend_table"),
    path("charts/spend.csv", charts.spend_csv, name="spend_csv"),
    path("charts/month.json", charts.month_chart, name="month_chart"),
    path("charts/month.html", charts.month_table, name="month_table"),
    path("charts/month.csv", charts.month_csv, name="month_csv"),
    path("home", pages.home, name="home"),
    path("explore", explore.page, name="explore"),
    path("explore/chart.json", explore.time_chart, name="explore_chart"),
    path("explore/chart.html", explore.time_table, name="explore_table"),
    path("explore/composition.json", explore.composition_chart, name="explore_composition"),
    path("explore/usage.csv", exports.usage_csv, name="explore_csv"),
    path("explore/focus.csv", exports.focus_csv, name="explore_focus"),
    path("calls", calls.page, name="calls"),
    path("reports", pages.page, name="reports"),
    path("reports/views/save", pages.save, name="save_view"),
    path("reports/views/<int:view_id>/rename", pages.rename, name="rename_view"),
    path("reports/views/<int:view_id>/delete", pages.delete, name="delete_view"),
    path("reports/views/<int:view_id>/pin", pages.pin, name="pin_view"),
    path("reports/views/unpin", pages.unpin, name="unpin_view"),
    path("reports/views/<int:view_id>/schedule", pages.schedule, name="schedule_report"),
    path("reports/<int:schedule_id>/delete", pages.unschedule, name="delete_report"),
    path("reports/<int:schedule_id>/test", pages.test, name="test_report"),
    path("budgets", budget_list.page, name="budgets"),
    path("budgets/new", editing.page, name="add_budget"),
    path("budgets/preview", previewing.preview, name="preview_budget"),
    path("budgets/previews/<int:simulation_id>", previewing.progress, name="preview_progress"),
    path("budgets/<int:budget_id>/edit", editing.page, name="edit_budget"),
    path("budgets/<int:budget_id>/preview", previewing.preview, name="preview_change"),
    path("budgets/<int:budget_id>", one_budget.page, name="budget"),
    path("budgets/<int:budget_id>/chart.json", one_budget.chart, name="budget_chart"),
    path("budgets/<int:budget_id>/chart.html", one_budget.table, name="budget_table"),
    path("budgets/<int:budget_id>/chart.csv", one_budget.csv, name="budget_csv"),
    path("budgets/<int:budget_id>/archive", one_budget.archive, name="archive_budget"),
    path("unit-economics", units.page, name="unit_economics"),
    path("unit-economics/chart.json", units.chart, name="units_chart"),
    path("unit-economics/units.csv", units.csv_file, name="units_csv"),
    path("unit-economics/all", units.every_unit, name="units_all"),
    path("unit-economics/agents", units.agents, name="units_agents"),
    path("customers", customers.page, name="customers"),
    path("customers/figures", customers.figures, name="customers_figures"),
    path("customers.csv", customers.csv_file, name="customers_csv"),
    path("customers/new", customer_forms.add, name="add_customer"),
    path("customers/unassigned", unassigned.page, name="unassigned"),
    path("customers/unassigned/assign", unassigned.assign, name="assign_usage"),
    path("customers/<int:customer_id>", customer.page, name="customer"),
    path("customers/<int:customer_id>/edit", customer_forms.change, name="change_customer"),
    path("customers/<int:customer_id>/archive", customer.archive, name="archive_customer"),
    path("customers/<int:customer_id>/plan", customer_forms.change_plan, name="change_plan"),
    path(
        "customers/<int:customer_id>/plan/preview",
        customer_forms.preview,
        name="preview_change_of_plan",
    ),
    path(
        "customers/<int:customer_id>/subscriptions/<int:subscription_id>/end",
        customer.end_subscription,
        name="end_subscription",
    ),
    path("customers/<int:customer_id>/links/new", customer_forms.add_link, name="add_link"),
    path("customers/<int:customer_id>/links/<int:link_id>/end", customer.end_link, name="end_link"),
    path("plans", plans.page, name="plans"),
    path("plans/figures", plans.figures, name="plans_figures"),
    path("plans/new", plan_edit.add, name="add_plan"),
    path("plans/preview", plan_edit.preview, name="preview_plan"),
    path("plans/<int:plan_id>", plans.plan, name="plan"),
    path("plans/<int:plan_id>/archive", plans.archive, name="archive_plan"),
    path("plans/<int:plan_id>/versions/new", plan_edit.new_version, name="new_version"),
    path("plans/<int:plan_id>/versions/preview", plan_edit.preview, name="preview_version"),
    path("savings", savings.page, name="savings"),
    path("savings/findings", savings.findings, name="savings_findings"),
    path("search", search.page, name="search"),
    path("search/results", search.results, name="search_results"),
    path("annotations", annotations_page.page, name="annotations"),
    path("enforcement", RedirectView.as_view(pattern_name="dashboard:requests")),
    path("enforcement/requests", raises.page, name="requests"),
    path("enforcement/requests/new", raise_form.page, name="add_raise"),
    path("enforcement/requests/<int:raise_id>/approve", raises.approve, name="approve_raise"),
    path("enforcement/requests/<int:raise_id>/refuse", raises.refuse, name="refuse_raise"),
    path("enforcement/requests/<int:raise_id>/end", raises.end, name="end_raise"),
    path("enforcement/halts", halts.page, name="halts"),
    path("enforcement/halts/confirm", halts.confirm, name="confirm_halt"),
    path("enforcement/halts/make", halts.make, name="make_halt"),
    path("enforcement/halts/<int:halt_id>/lift", halts.lift, name="lift_halt"),
    path("enforcement/breakers/<int:breaker_id>/close", halts.close, name="close_breaker"),
    path("enforcement/breakers", rules.page, name="breakers"),
    path("enforcement/<kind:kind>/new", rule_forms.page, name="add_rule"),
    path("enforcement/<kind:kind>/<int:rule_id>/edit", rule_forms.page, name="edit_rule"),
    path("enforcement/<kind:kind>/<int:rule_id>/remove", rule_forms.remove, name="remove_rule"),
    path("enforcement/decisions", decisions.page, name="decisions"),
    path("enforcement/estimates", estimates.page, name="estimates"),
    path("enforcement/unknown", unknown.page, name="unknown"),
    path("incidents", lists.page, name="incidents"),
    path("incidents/channels", channels.page, name="channels"),
    path("incidents/channels/new", channel_forms.add, name="add_channel"),
    path("incidents/channels/<int:channel_id>", channel_forms.change, name="change_channel"),
    path("incidents/channels/<int:channel_id>/remove", channel_forms.remove, name="remove_channel"),
    path("incidents/channels/<int:channel_id>/secret", channel_forms.new_secret, name="new_secret"),
    path("incidents/channels/<int:channel_id>/test", channels.test, name="test_channel"),
    path("incidents/channels/<int:channel_id>/pause", channels.pause, name="pause_channel"),
    path("incidents/channels/<int:channel_id>/resume", channels.resume, name="resume_channel"),
    path("incidents/deliveries", deliveries.page, name="deliveries"),
    path("incidents/deliveries/<int:delivery_id>/resend", deliveries.resend, name="resend"),
    path("incidents/deliveries/<int:delivery_id>/attempts", deliveries.attempts, name="attempts"),
    path("incidents/deliveries/<int:delivery_id>/test", channels.test_state, name="test_state"),
    path("incidents/<int:incident_id>", one.page, name="incident"),
    path("incidents/<int:incident_id>/chart.json", one.chart, name="incident_chart"),
    path("incidents/<int:incident_id>/chart.html", one.table, name="incident_table"),
    path("incidents/<int:incident_id>/spenders", one.spenders, name="incident_spenders"),
    path("incidents/<int:incident_id>/acknowledge", actions.acknowledge, name="acknowledge"),
    path("incidents/<int:incident_id>/take", actions.take, name="take"),
    path("incidents/<int:incident_id>/assign", actions.assign, name="assign"),
    path("incidents/<int:incident_id>/give-back", actions.give_back, name="give_back"),
    path("incidents/<int:incident_id>/snooze", actions.snooze, name="snooze"),
    path("incidents/<int:incident_id>/wake", actions.wake, name="wake"),
    path("incidents/<int:incident_id>/comment", actions.comment, name="comment"),
    path("incidents/<int:incident_id>/resolve", actions.resolve, name="resolve"),
    path("sessions", session_lists.page, name="sessions"),
    path("sessions/<text:session>", session.page, name="session"),
    path("traces/<text:trace>", trace.page, name="trace"),
    path("calls/<segment:source>/<segment:sent_id>", call.page, name="call"),
    path("calls/<segment:source>/<segment:sent_id>/facts", call.facts, name="call_facts"),
    path("settings", RedirectView.as_view(pattern_name="dashboard:members"), name="settings"),
    path("settings/members", members.page, name="members"),
    path("settings/members/<int:member_id>", members.member, name="member"),
    path("settings/members/<int:member_id>/remove", members.remove, name="remove_member"),
    path("settings/invitations/<int:invitation_id>/again", members.send_again, name="invite_again"),
    path(
        "settings/invitations/<int:invitation_id>/revoke", members.revoke, name="revoke_invitation"
    ),
    path("settings/teams", teams.page, name="teams"),
    path("settings/teams/<int:team_id>", teams.team, name="team"),
    path("settings/keys", keys.page, name="keys"),
    path("settings/keys/new", keys.add, name="add_key"),
    path("settings/keys/<int:key_id>/revoke", keys.revoke, name="revoke_key"),
    path("settings/prices", prices.page, name="prices"),
    path("settings/prices/new", price_forms.add_model, name="add_price"),
    path("settings/prices/new-tool", price_forms.add_tool, name="add_tool_price"),
    path("settings/prices/<str:kind>/<int:price_id>/end", prices.end, name="end_price"),
    path("settings/alerts", alerts.page, name="alerts"),
    path("settings/alerts/maintenance/new", alerts.add_maintenance, name="add_maintenance"),
    path(
        "settings/alerts/maintenance/<int:window_id>/end",
        alerts.end_maintenance,
        name="end_maintenance",
    ),
    path("settings/sources", sources.page, name="sources"),
    path("settings/workspace", workspace.page, name="workspace"),
    path("settings/audit-log", audit_log.page, name="audit_log"),
    path("settings/audit-log.csv", audit_log.download, name="audit_log_csv"),
    path("account", account.page, name="account"),
    path("account/sessions/end", account.end_sessions, name="end_sessions"),
    path("styleguide", styleguide.styleguide, name="styleguide"),
    path("login", accounts.LoginPage.as_view(), name="login"),
    path("logout", accounts.LogoutPage.as_view(), name="logout"),
    path("password", accounts.password, name="password"),
    path("password/forgotten", accounts.forgotten, name="forgotten"),
    path("password/new/<str:token>", accounts.new_password, name="new_password"),
    path("invitations/<str:token>", invitations.invitation, name="invitation"),
    path("tenant", accounts.switch_tenant, name="switch_tenant"),
]
