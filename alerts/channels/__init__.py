"""The kinds of channels, one module for each."""

from collections.abc import Mapping
from typing import Final

from alerts.channels.discord import DISCORD
from alerts.channels.email import EMAIL
from alerts.channels.kind import Field, Kind, NotDelivered, Sent, Settings
from alerts.channels.pagerduty import PAGERDUTY
from alerts.channels.slack import SLACK
from alerts.channels.teams import TEAMS
from alerts.channels.webhook import WEBHOOK
from alerts.models import ChannelKind

KINDS: Final[Mapping[str, Kind]] = {
    ChannelKind.EMAIL: EMAIL,
    ChannelKind.SLACK: SLACK,
    ChannelKind.TEAMS: TEAMS,
    ChannelKind.DISCORD: DISCORD,
    ChannelKind.PAGERDUTY: PAGERDUTY,
    ChannelKind.WEBHOOK: WEBHOOK,
}

__all__ = ["KINDS", "Field", "Kind", "NotDelivered", "Sent", "Settings"]
