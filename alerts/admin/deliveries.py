"""Admin pages of deliveries: what waits, what could not be told, and sending it again."""

from typing import Any, Final

from django import forms
from django.contrib import messages
from django.contrib.admin import display, register
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.decorators import action
from unfold.decorators import display as labelled
from unfold.enums import ActionVariant

from alerts.admin.lines import lines, moment_words
from alerts.delivery import resend
from alerts.errors import AlertError
from alerts.models import Delivery, DeliveryState
from metering.fields.forms import MONEY_ROLES
from tenants.admin_questions import Question, ask, sent
from tenants.admin_site import ReadOnlyAdmin, actor_of, role_of, site, tenant_of

# The latest: what fails for three days is tried more often than anybody reads.
ATTEMPTS_MAX: Final = 100
RESENDABLE: Final = (DeliveryState.SENT, DeliveryState.DEAD)


@register(Delivery, site=site)
class DeliveryAdmin(ReadOnlyAdmin):
    """Messages and what became of them, newest first. Those given up are `dead`."""

    list_display = ("created", "told", "to", "event", "state_label", "due", "attempts", "error")
    list_display_links = ("told",)
    list_filter = ("state", "event", "severity", "channel")
    list_select_related = ("channel",)
    search_fields = ("message__title", "channel__name", "last_error")
    ordering = ("-id",)
    actions_detail = ("send_again",)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "told",
                    "summary",
                    "to",
                    "event",
                    "severity",
                    "reference",
                    "state_label",
                    "created",
                    "due",
                    "sent",
                    "last_error",
                )
            },
        ),
        ("Attempts", {"fields": ("tried",)}),
    )

    @display(description="Made", ordering="id")
    def created(self, obj: Delivery) -> str:
        return moment_words(obj.created_at)

    @display(description="Message")
    def told(self, obj: Delivery) -> str:
        return str(obj.message.get("title") or obj.get_event_display())

    @display(description="Says")
    def summary(self, obj: Delivery) -> str:
        return str(obj.message.get("summary") or "—")

    @display(description="To")
    def to(self, obj: Delivery) -> str:
        return str(obj.channel or ", ".join(obj.recipients))

    @labelled(  # type: ignore[untyped-decorator]
        description="State",
        ordering="state",
        label={"waiting": "info", "sent": "success", "dead": "danger", "superseded": "warning"},
    )
    def state_label(self, obj: Delivery) -> str:
        return obj.state

    @display(description="Next")
    def due(self, obj: Delivery) -> str:
        if obj.state != DeliveryState.WAITING:
            return "—"
        words = moment_words(obj.due_at)
        return f"{words} ({obj.held_by})" if obj.held_by else words

    @display(description="Sent")
    def sent(self, obj: Delivery) -> str:
        return moment_words(obj.sent_at)

    @display(description="Last error")
    def error(self, obj: Delivery) -> str:
        return obj.last_error if len(obj.last_error) <= 80 else f"{obj.last_error[:79]}…"

    @display(description="Attempts")
    def tried(self, obj: Delivery) -> str:
        return lines(
            (
                (
                    moment_words(one.started_at),
                    f"{one.duration_ms:,} ms",
                    "" if one.status is None else f"status {one.status}",
                ),
                "delivered" if one.is_success else one.error,
            )
            for one in obj.tried.order_by("-id")[:ATTEMPTS_MAX]
        )

    def has_resend_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Who may change channels, once it has ended."""
        ended = Delivery.objects.filter(
            tenant=tenant_of(request), id=object_id, state__in=RESENDABLE
        )
        return role_of(request) in MONEY_ROLES and ended.exists()

    @action(  # type: ignore[untyped-decorator]
        description="Send again",
        permissions=["resend"],
        icon="forward_to_inbox",
        variant=ActionVariant.PRIMARY,
    )
    def send_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask once more, then put it back into the queue."""
        delivery = self.get_queryset(request).select_related("channel").filter(id=object_id).first()
        if delivery is None:
            raise Http404
        back = reverse("admin:alerts_delivery_change", args=[delivery.id])
        form = forms.Form(sent(request))
        if form.is_valid():
            try:
                resend(delivery=delivery, actor=actor_of(request))
                messages.success(request, f"{self.told(delivery)}: it is sent again at once.")
            except AlertError as error:
                messages.error(request, error.detail)
            return HttpResponseRedirect(back)
        question = Question(
            title=f"Send “{self.told(delivery)}” again?",
            verb="Send again",
            consequence="It goes out with the same words and the same reference, so that a "
            "receiver that had it can tell.",
            facts=[("To", self.to(delivery)), ("State", delivery.state)],
            back=back,
        )
        return ask(self, request, question=question, form=form)
