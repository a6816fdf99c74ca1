"""Incidents go once they are resolved and old, with all that was told of them."""

from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings

from alerts.models import Anomaly, Delivery, Incident, IncidentEntry, MaintenanceWindow
from alerts.retention import remove_old_rows
from tests.alerts.examples import make_anomaly, make_incident
from tests.alerts.scene import make_channel
from tests.factories import Account

pytestmark = pytest.mark.django_db(transaction=True)


def test_resolved_incidents_go_with_their_entries_and_deliveries(account: Account) -> None:
    make_channel(account, name="growth")
    old = datetime.now(UTC) - settings.RETENTION_INCIDENTS - timedelta(days=1)
    resolved, lasting, young = (
        make_incident(account, title=title, cause=title) for title in ("old", "lasting", "young")
    )
    make_anomaly(account, resolved, dimension="team", value="growth")
    with account.scope():
        for each in (resolved, lasting):
            Incident.objects.filter(id=each.id).update(opened_at=old)
        Incident.objects.filter(id=resolved.id).update(resolved_at=old)
        Incident.objects.filter(id=young.id).update(resolved_at=datetime.now(UTC))
        assert Delivery.objects.filter(incident=resolved).exists()
        assert IncidentEntry.objects.filter(incident=resolved).exists()
    assert remove_old_rows(seconds=10) > 1
    with account.scope():
        assert set(Incident.objects.values_list("title", flat=True)) == {"lasting", "young"}
        assert not Delivery.objects.filter(incident_id=resolved.id).exists()
        assert not IncidentEntry.objects.filter(incident_id=resolved.id).exists()
        assert Anomaly.objects.get().incident_id is None
        assert Delivery.objects.filter(incident=young).exists()


def test_maintenance_windows_go_once_their_end_is_old(account: Account) -> None:
    now = datetime.now(UTC)
    old = now - settings.RETENTION_INCIDENTS - timedelta(days=1)
    with account.scope():
        for reason, ends_at in (("past", old), ("announced long before", now), ("made now", old)):
            window = MaintenanceWindow.objects.create(
                tenant=account.tenant,
                starts_at=old - timedelta(hours=1),
                ends_at=ends_at,
                reason=reason,
            )
            if reason != "made now":
                MaintenanceWindow.objects.filter(id=window.id).update(created_at=old)
    assert remove_old_rows(seconds=10) == 1
    with account.scope():
        kept = set(MaintenanceWindow.objects.values_list("reason", flat=True))
    assert kept == {"announced long before", "made now"}
