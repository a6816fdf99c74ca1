"""Channels: where alerts go, whether they arrive, and a way to try one out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from alerts.channel_settings import shown_fields, update_channel
from alerts.channels import KINDS
from alerts.delivery import test_channel
from alerts.models import Channel, Delivery, DeliveryEvent, DeliveryState, Digest
from dashboard.access import PageRequest, may_manage, member_page
from dashboard.amounts import listed
from dashboard.buttons import button_of
from dashboard.curl_lines import curl_context
from dashboard.findings import channels_headline
from dashboard.frame import filter_bar_of, frame
from dashboard.incidents.channel_forms import find_channel
from dashboard.incidents.filters import SEVERITIES
from tenants.admin_site import actor_of
from tenants.roles import Scope

# How long a page shows what became of a test.
TEST_SHOWN: Final = timedelta(minutes=10)
# While it is younger, the page asks again by itself; later something is wrong with the worker.
TEST_AWAITED: Final = timedelta(seconds=60)
DIGEST_WORDS: Final = {
    Digest.HOURLY: "everything else hourly",
    Digest.DAILY: "everything else daily",
    Digest.WEEKLY: "everything else weekly",
}


@dataclass(frozen=True)
class TestLine:
    """What became of a test of a channel."""

    row: Delivery
    now: datetime

    @property
    def is_pending(self) -> bool:
        """Whether the worker has yet to try it."""
        return self.row.state == DeliveryState.WAITING and not self.row.attempts

    @property
    def is_awaited(self) -> bool:
        return self.is_pending and self.now - self.row.created_at < TEST_AWAITED

    @property
    def has_arrived(self) -> bool:
        return self.row.state == DeliveryState.SENT


@dataclass(frozen=True)
class ChannelLine:
    """A channel as the page shows it."""

    row: Channel
    waiting: int
    dead: int
    test: TestLine | None

    @property
    def kind_words(self) -> str:
        return KINDS[self.row.kind].label

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Where it leads, as (words, text); what is secret is masked."""
        shown = shown_fields(self.row)
        return [
            (field.label, ", ".join(shown[field.name]) if field.is_list else shown[field.name])
            for field in KINDS[self.row.kind].fields
        ]

    @property
    def told(self) -> str:
        """What it tells, in words."""
        at_once = [SEVERITIES[name].lower() for name in SEVERITIES if name in self.row.severities]
        words = f"{listed(at_once)} immediately" if at_once else "nothing immediately"
        digest = DIGEST_WORDS.get(Digest(self.row.digest))
        return f"{words}, {digest}" if digest else words


@require_safe
@member_page
def page(request: PageRequest) -> HttpResponse:
    """Where do alerts go, and do they arrive?"""
    bar = filter_bar_of(request)
    lines = _lines(request.tenant.id, bar.now)
    failing = sum(line.row.is_failing for line in lines)
    context = frame(request, bar, page="channels") | {
        "headline": channels_headline(channels=len(lines), failing=failing),
        "lines": lines,
    }
    if not lines:
        context |= curl_context(request, Scope.MANAGE)
    return render(request, "dashboard/incidents/channels.html", context)


@require_safe
@member_page
def test_state(request: PageRequest, delivery_id: int) -> HttpResponse:
    """What became of a test by now: a part of the page that asks again while it is awaited."""
    tests = Delivery.objects.filter(tenant=request.tenant, event=DeliveryEvent.TEST)
    delivery = get_object_or_404(tests, id=delivery_id)
    context = {"test": TestLine(delivery, timezone.now())}
    return render(request, "dashboard/incidents/test_state.html", context)


@button_of("channels", may=may_manage)
def test(request: PageRequest, channel_id: int) -> str:
    """Send a message that says that it is a test."""
    channel = find_channel(request, channel_id)
    test_channel(channel=channel, actor=actor_of(request))
    return f"A test was queued for “{channel.name}”."


@button_of("channels", may=may_manage)
def pause(request: PageRequest, channel_id: int) -> str:
    """Tell nothing over a channel until it is resumed."""
    channel = find_channel(request, channel_id)
    update_channel(channel=channel, actor=actor_of(request), changes={"is_paused": True})
    return f"“{channel.name}” is paused. It sends no notifications until it is resumed."


@button_of("channels", may=may_manage)
def resume(request: PageRequest, channel_id: int) -> str:
    """Tell over a channel again."""
    channel = find_channel(request, channel_id)
    update_channel(channel=channel, actor=actor_of(request), changes={"is_paused": False})
    return f"“{channel.name}” sends notifications again."


def _lines(tenant_id: int, now: datetime) -> list[ChannelLine]:
    rows = list(Channel.objects.filter(tenant_id=tenant_id, removed_at=None).order_by("name", "id"))
    waiting = _counts(tenant_id, DeliveryState.WAITING)
    dead = _counts(tenant_id, DeliveryState.DEAD)
    tests = _tests(tenant_id, rows, now)
    return [
        ChannelLine(row, waiting.get(row.id, 0), dead.get(row.id, 0), tests.get(row.id))
        for row in rows
    ]


def _counts(tenant_id: int, state: DeliveryState) -> dict[int | None, int]:
    """How many deliveries of each channel are in a state."""
    rows = Delivery.objects.filter(tenant_id=tenant_id, state=state)
    return dict(rows.values_list("channel").annotate(Count("id")))


def _tests(tenant_id: int, rows: Sequence[Channel], now: datetime) -> dict[int | None, TestLine]:
    """The last test of each channel, where it was lately."""
    tests = Delivery.objects.filter(
        tenant_id=tenant_id,
        channel__in=rows,
        event=DeliveryEvent.TEST,
        created_at__gt=now - TEST_SHOWN,
    )
    return {row.channel_id: TestLine(row, now) for row in tests.order_by("id")}
