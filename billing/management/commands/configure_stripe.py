"""`manage.py configure_stripe TENANT`: how a tenant collects with Stripe."""

from argparse import ArgumentParser, BooleanOptionalAction
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing.collection.credentials import (
    configure_collection,
    credentials_of,
    set_collection_method,
    set_credentials,
)
from billing.collection.meters import meter_plan
from billing.models import CollectionMethod, Customer, Plan, StripeInvoice, StripeSettings
from billing.stripe_gateway import WrongKey
from common.errors import Conflict
from common.times import parse_timestamp_or_date
from tenants.models import Tenant
from tenants.scope import platform_scope, tenant_scope

ACTOR = "manage.py configure_stripe"


class Command(BaseCommand):
    """Set keys, switches, a customer's way of paying, and which plans Stripe meters; show them."""

    help = "Collect a tenant's final statements with Stripe. Without options: show how it is set."

    def add_arguments(self, parser: ArgumentParser) -> None:
        methods = list(CollectionMethod.values)
        switch = BooleanOptionalAction
        parser.add_argument("tenant", metavar="TENANT")
        parser.add_argument("--key-file", type=Path, help="holds the tenant's own secret key")
        parser.add_argument("--webhook-secret-file", type=Path, help="holds whsec_…")
        parser.add_argument("--collect", action=switch, help="final statements become invoices")
        parser.add_argument("--collect-from", metavar="TIME", help="also statements since then")
        parser.add_argument("--method", choices=methods)
        parser.add_argument("--halt-overdue", action=switch, help="stop those who do not pay")
        parser.add_argument("--customer", metavar="KEY", help="whom --customer-method is for")
        parser.add_argument("--customer-method", choices=methods)
        parser.add_argument("--meter-plan", metavar="NAME", help="have Stripe meter this plan")

    def handle(self, *args: object, **options: object) -> None:
        with platform_scope("find the tenant by its name"):
            tenant = Tenant.objects.filter(name=options["tenant"]).first()
        if tenant is None:
            raise CommandError(f"There is no tenant {options['tenant']!r}.")
        with tenant_scope(tenant.id):
            try:
                self._configure(tenant, options)
            except (WrongKey, Conflict, OSError, ValueError) as error:
                raise CommandError(str(error)) from error
            self._show(tenant)

    def _configure(self, tenant: Tenant, options: dict[str, Any]) -> None:
        if options["key_file"] is not None:
            if options["webhook_secret_file"] is None:
                raise CommandError("--key-file needs --webhook-secret-file, of the same account.")
            set_credentials(
                tenant=tenant,
                actor=ACTOR,
                api_key=options["key_file"].read_text().strip(),
                webhook_secret=options["webhook_secret_file"].read_text().strip(),
            )
        since = options["collect_from"]
        given = {
            "collects": options["collect"],
            "collects_from": None if since is None else parse_timestamp_or_date(since),
            "collection_method": options["method"],
            "halts_overdue": options["halt_overdue"],
        }
        changes = {name: value for name, value in given.items() if value is not None}
        if changes:
            configure_collection(tenant=tenant, actor=ACTOR, **changes)
        if options["customer"] is not None:
            self._set_method(tenant, options["customer"], options["customer_method"] or "")
        if options["meter_plan"] is not None:
            plan = Plan.objects.filter(tenant=tenant, name=options["meter_plan"]).first()
            if plan is None:
                raise CommandError(f"There is no plan {options['meter_plan']!r}.")
            meter_plan(plan=plan, actor=ACTOR, is_live=_is_live(tenant))

    def _set_method(self, tenant: Tenant, key: str, method: str) -> None:
        customer = Customer.objects.filter(tenant=tenant, key=key).first()
        if customer is None:
            raise CommandError(f"There is no customer {key!r}.")
        is_live = _is_live(tenant)
        set_collection_method(customer=customer, actor=ACTOR, method=method, is_live=is_live)

    def _show(self, tenant: Tenant) -> None:
        row = StripeSettings.objects.filter(tenant=tenant).first() or StripeSettings()
        credentials = credentials_of(row)
        key = "none"
        if credentials is not None:
            whose = "the tenant's own" if row.secrets is not None else "the installation's"
            key = f"{'live' if credentials.is_live else 'test'} mode, {whose}"
        self.stdout.write(f"Key         {key}")
        since = row.collects_from
        shown = f", statements since {since:%F %T}" if since is not None else ""
        self.stdout.write(f"Collects    {'yes' if row.collects else 'no'}{shown}")
        self.stdout.write(f"Method      {row.collection_method}")
        self.stdout.write(f"Halts       {'overdue customers' if row.halts_overdue else 'no one'}")
        self.stdout.write(f"Webhooks    POST /webhooks/stripe/{tenant.id}")
        if row.problem and row.paused_until is not None and row.paused_until > timezone.now():
            self.stdout.write(f"Problem     {row.problem}")
        for invoice in StripeInvoice.objects.exclude(problem="").select_related("statement")[:20]:
            self.stdout.write(f"Statement {invoice.statement.number}: {invoice.problem}")


def _is_live(tenant: Tenant) -> bool:
    """Return whether the tenant's present key is live."""
    credentials = credentials_of(StripeSettings.objects.filter(tenant=tenant).first())
    if credentials is None:
        raise CommandError("There is no key yet: give --key-file, or set STRIPE_API_KEY.")
    return credentials.is_live
