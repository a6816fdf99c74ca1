"""What alerts refuse, as small exceptions. `common.api.problems` maps them to HTTP."""

from common.errors import Conflict, InvalidRequest, MeteringError, Throttled


class AlertError(MeteringError):
    """A request to alerts was refused. `detail` is a sentence for people."""


class IncidentResolved(AlertError, Conflict):
    """The incident is over: no one can act on it any more."""

    code = "incident_resolved"


class WrongChannel(AlertError, InvalidRequest):
    """A channel cannot have this setting. `field` names it; no secret is shown."""

    code = "invalid_request"

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(
            f"{field}: {detail}",
            errors=[{"pointer": f"/{field}", "code": "invalid", "detail": detail}],
        )
        self.field = field
        self.reason = detail


class ChannelUnavailable(AlertError, Conflict):
    """The channel is paused or was removed, so nothing can be sent over it."""

    code = "channel_unavailable"


class NotResendable(AlertError, Conflict):
    """The delivery has not ended yet, or was replaced by a newer one."""

    code = "not_resendable"


class SecretsUnreadable(AlertError, Conflict):
    """Secrets were encrypted with another SECRET_KEY."""

    code = "secrets_unreadable"


class AskedTooOften(AlertError, Throttled):
    """More tests than anyone reads were requested within a minute."""

    code = "asked_too_often"
