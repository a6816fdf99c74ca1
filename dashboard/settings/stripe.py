"""The part of `/settings/billing` about Stripe: with which key, and how things stand there."""

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Max

from billing.collection.credentials import configure_collection, credentials_of, set_credentials
from billing.models import CollectionMethod, StripeInvoice, StripeSettings
from billing.stripe_gateway import WrongKey, is_live_key
from common.sealing import Unreadable
from dashboard.access import PageRequest
from dashboard.forms import sent_data
from tenants.admin_site import actor_of

SECRETS: Final = frozenset({"api_key", "webhook_secret"})
SIGNING_PREFIX: Final = "whsec_"
SECRET_CHARACTERS_MAX: Final = 300
PROBLEMS_SHOWN: Final = 5
# What Stripe has to send: `billing.collection.events` reads again what they are about.
EVENTS: Final = (
    *("invoice.finalized", "invoice.paid", "invoice.payment_failed"),
    *("invoice.payment_action_required", "invoice.overdue", "invoice.voided"),
    *("invoice.marked_uncollectible", "invoice.updated", "charge.failed", "charge.refunded"),
    *("charge.dispute.*", "credit_note.*", "refund.failed"),
)
UNREADABLE: Final = "The key was sealed with another SECRET_KEY. Enter it again."


class StripeStatus(NamedTuple):
    """How a tenant's connection with Stripe stands."""

    # "live" or "test"; empty: there is no key that can be used.
    mode: str
    is_own: bool
    collects: bool
    synced_at: datetime | None
    problem: str
    waiting: int


class StripeForm(forms.Form):
    """With which key the tenant collects, and how. Secrets are never shown again."""

    api_key = forms.CharField(
        label="Secret key",
        required=False,
        max_length=SECRET_CHARACTERS_MAX,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="sk_live_…, sk_test_…, rk_live_… or rk_test_…: the key says whether it is live. "
        "Empty: the key stays. It is stored sealed and never shown.",
    )
    webhook_secret = forms.CharField(
        label="Webhook signing secret",
        required=False,
        max_length=SECRET_CHARACTERS_MAX,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="whsec_…, of the same Stripe account. Give both or neither.",
    )
    collects = forms.BooleanField(
        label="Collect automatically",
        required=False,
        help_text="Statements that become final from now on get an invoice at Stripe.",
    )
    collection_method = forms.ChoiceField(label="How", choices=CollectionMethod.choices)
    halts_overdue = forms.BooleanField(
        label="Halt overdue customers",
        required=False,
        help_text="Their calls are refused until they pay.",
    )

    def __init__(self, request: PageRequest, stored: StripeSettings, *, is_sent: bool) -> None:
        names = ("collects", "collection_method", "halts_overdue")
        initial = {name: getattr(stored, name) for name in names}
        super().__init__(sent_data(request) if is_sent else None, initial=initial)
        self._stored = stored

    def clean_api_key(self) -> str:
        key = str(self.cleaned_data["api_key"]).strip()
        if key:
            try:
                is_live_key(key)
            except WrongKey as error:
                raise ValidationError(str(error)) from None
        return key

    def clean_webhook_secret(self) -> str:
        secret = str(self.cleaned_data["webhook_secret"]).strip()
        if secret and not secret.startswith(SIGNING_PREFIX):
            raise ValidationError(f"A signing secret begins with {SIGNING_PREFIX}.")
        return secret

    def clean(self) -> dict[str, object]:
        data = self.cleaned_data
        key, secret = data.get("api_key"), data.get("webhook_secret")
        if key and secret == "":
            self.add_error("webhook_secret", "Give the signing secret of the same account, too.")
        if secret and key == "":
            self.add_error("api_key", "Give the key of the same account, too.")
        if data.get("collects") and not key and not mode_of(self._stored):
            self.add_error("api_key", "Collecting needs a key.")
        return data

    def save(self, request: PageRequest) -> StripeSettings:
        """Keep the key, if one is given, and change how statements are collected."""
        changes = dict(self.cleaned_data)
        secrets = {name: changes.pop(name) for name in SECRETS}
        own: dict[str, Any] = {"tenant": request.tenant, "actor": actor_of(request)}
        if secrets["api_key"]:
            set_credentials(**own, **secrets)
        return configure_collection(**own, **changes)


def stripe_settings(tenant_id: int) -> StripeSettings:
    """Return how a tenant collects: what it set, or the defaults."""
    stored = StripeSettings.objects.filter(tenant_id=tenant_id).first()
    return stored or StripeSettings(tenant_id=tenant_id)


def mode_of(stored: StripeSettings) -> str:
    """Return the mode of the key that is used: "live", "test", or nothing."""
    try:
        credentials = credentials_of(stored)
    except Unreadable:
        return ""
    return "" if credentials is None else "live" if credentials.is_live else "test"


def status_of(stored: StripeSettings) -> StripeStatus:
    """Return how the connection stands: the last word from Stripe, and what is wrong."""
    try:
        credentials_of(stored)
        unreadable = ""
    except Unreadable:
        unreadable = UNREADABLE
    invoices = StripeInvoice.objects.filter(tenant_id=stored.tenant_id)
    read_at = invoices.aggregate(at=Max("read_at"))["at"]
    until = stored.events_stored_until
    swept_at = datetime.fromtimestamp(until, UTC) if until else None
    return StripeStatus(
        mode_of(stored),
        stored.secrets is not None,
        stored.collects,
        max((at for at in (read_at, swept_at) if at is not None), default=None),
        unreadable or stored.problem,
        invoices.exclude(problem="").count(),
    )


def stripe_context(request: PageRequest, *, is_locked: bool) -> dict[str, object]:
    """Return what the page shows of Stripe besides the form."""
    stored = stripe_settings(request.tenant.id)
    invoices = StripeInvoice.objects.filter(tenant=request.tenant).exclude(problem="")
    return {
        "stripe": status_of(stored),
        # They name customers, whom not all who see the page may see.
        "problems": ()
        if is_locked
        else invoices.select_related("statement").order_by("-id")[:PROBLEMS_SHOWN],
        "webhook": "" if is_locked else webhook_address(request),
        "events": " ".join(EVENTS),
    }


def webhook_address(request: PageRequest) -> str:
    """Return where Stripe sends its events to."""
    return request.build_absolute_uri(f"/webhooks/stripe/{request.tenant.id}")
