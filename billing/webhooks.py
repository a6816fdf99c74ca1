"""`POST /webhooks/stripe/{tenant}`: what Stripe says, stored before anything is done about it."""

import structlog
from celery import current_app
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from billing.collection.credentials import credentials_of
from billing.collection.events import store_events
from billing.models import StripeSettings
from billing.stripe_gateway import WrongSignature, verify_webhook
from common.sealing import Unreadable
from tenants.scope import platform_scope

log = structlog.get_logger(__name__)

# The largest id of a tenant.
TENANT_MAX = 2**31 - 1
# An answer that says nothing of which tenants there are.
REFUSED = "The signature does not fit."


@csrf_exempt
@require_POST
def receive_webhook(request: HttpRequest, tenant_id: int) -> HttpResponse:
    """Verify the signature over the body as it came, store the event, and answer.

    An event of the other mode than the key's is taken and left alone: a key of that mode is not
    there to read the object with.
    """
    if tenant_id > TENANT_MAX:
        return _refused()
    with platform_scope("find the secret that a webhook is verified with"):
        row = StripeSettings.objects.filter(tenant_id=tenant_id).first()
    try:
        credentials = credentials_of(row) if row is not None else None
    except Unreadable:
        log.warning("a webhook's secret cannot be read", tenant_id=tenant_id)
        credentials = None
    if credentials is None or not credentials.webhook_secret:
        return _refused()
    signature = request.headers.get("Stripe-Signature", "")
    try:
        event = verify_webhook(request.body, signature, secret=credentials.webhook_secret)
    except WrongSignature as error:
        log.info("a webhook was refused", tenant_id=tenant_id, reason=str(error))
        return _refused()
    if store_events(tenant_id=tenant_id, is_live=credentials.is_live, events=[event]):
        _ask_worker()
    return HttpResponse("stored", content_type="text/plain")


def _refused() -> HttpResponse:
    return HttpResponse(REFUSED, status=400, content_type="text/plain")


def _ask_worker() -> None:
    """Have the event looked at now; if the broker is away, the next beat does it."""
    try:
        current_app.send_task("billing.tasks.collect_statements", retry=False)
    except Exception:
        log.warning("the broker cannot be reached; the event waits for the next beat")
