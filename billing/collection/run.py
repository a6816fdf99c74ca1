"""A tenant's turn: what its key is good for is done, a bounded part at a time."""

import time
from datetime import timedelta
from typing import Final

import structlog
from django.utils import timezone

from billing.collection.accounts import judge_due
from billing.collection.claims import queue_statements
from billing.collection.credentials import rest_key, working_credentials
from billing.collection.events import process_event, sweep
from billing.collection.meter_values import send_value
from billing.collection.meters import read_next_meter
from billing.collection.steps import bring_on
from billing.models import StripeEvent, StripeSettings
from billing.stripe_gateway import KeyRejected, StripeFailure, StripeGateway
from tenants.old_rows import ChunkedRun
from tenants.runs import tenants_of
from tenants.scope import tenant_scope

log = structlog.get_logger(__name__)

# For each kind of work; other tenants wait for as long as all of them.
WORK_SECONDS: Final = 3.0
# Longer than Stripe lists events, so that none is stored twice.
EVENTS_KEPT: Final = timedelta(days=60)


def tenants_to_collect() -> list[int]:
    """Return the tenants that collect with Stripe."""
    return tenants_of(StripeSettings.objects.filter(collects=True))


def collect(*, tenant_id: int) -> int:
    """Do what is due for a tenant, for a while; return how much that was."""
    with tenant_scope(tenant_id):
        credentials = working_credentials(tenant_id)
    if credentials is None:
        return 0
    gateway = StripeGateway(credentials)
    try:
        _prepare(tenant_id, gateway)
        done = queue_statements(tenant_id=tenant_id, is_live=gateway.is_live)
        for work in (process_event, bring_on, send_value):
            ends_at = time.monotonic() + WORK_SECONDS
            while time.monotonic() < ends_at and work(tenant_id=tenant_id, gateway=gateway):
                done += 1
        return done + judge_due(tenant_id=tenant_id)
    except KeyRejected as error:
        with tenant_scope(tenant_id):
            rest_key(tenant_id, str(error))
        return 0


def _prepare(tenant_id: int, gateway: StripeGateway) -> None:
    """Look for lost events and read meters; where that fails, the next time does it."""
    for work in (sweep, read_next_meter):
        try:
            work(tenant_id=tenant_id, gateway=gateway)
        except KeyRejected:
            raise
        except StripeFailure as error:
            log.warning("Stripe failed", tenant_id=tenant_id, work=work.__name__, reason=str(error))


def remove_old_events(*, seconds: float) -> int:
    """Remove events that were processed long ago; return their number."""
    events = StripeEvent.objects.exclude(processed_at=None)
    run = ChunkedRun(seconds)
    return run.remove_by_id(events, at="processed_at", before=timezone.now() - EVENTS_KEPT)
