"""Chats that take messages at an incoming address: Slack, Microsoft Teams, Discord.

What a message looks like in each is apprise's business. The sending is ours: apprise only says
whether it went well, and a delivery needs the status, the time that a receiver asks for, an end
after fifteen seconds, and an address that may be that of a compatible server or a gateway.
"""

from collections.abc import Callable
from typing import Any, Final

from apprise import AppriseAsset, NotifyType

from alerts.channels.addresses import read_url, shown_url
from alerts.channels.http import post_json
from alerts.channels.kind import Field, Fields, Kind, Sent, Settings
from alerts.channels.wording import body_lines, cut, headline, inert, mark
from alerts.messages import Message
from alerts.models import Severity

TITLE_MAX_CHARACTERS: Final = 240
BODY_MAX_CHARACTERS: Final = 3500
TYPE_BY_SEVERITY: Final = {
    Severity.INFO: NotifyType.INFO,
    Severity.WARNING: NotifyType.WARNING,
    Severity.CRITICAL: NotifyType.FAILURE,
}


def chat_kind(words: str, help_text: str, payload: Callable[[Message, str], Any]) -> Kind:
    """A kind of chat whose messages `payload` writes."""

    def send(config: Fields, secrets: Fields, message: Message, reference: str) -> Sent:
        return post_json(secrets["url"], payload(message, reference))

    return Kind(
        words=words,
        fields=(Field("url", "Incoming webhook address", help_text, is_secret=True),),
        severities=(Severity.WARNING, Severity.CRITICAL),
        read=_read,
        send=send,
    )


def title_of(message: Message) -> str:
    """The headline, without meaning to a chat's markup."""
    return inert(cut(headline(message), TITLE_MAX_CHARACTERS))


def body_of(message: Message) -> str:
    """What stands below it, likewise."""
    return cut("\n".join(inert(line) for line in body_lines(message)), BODY_MAX_CHARACTERS)


def asset_of(message: Message, reference: str) -> AppriseAsset:
    """What apprise writes beneath or above a message: who it is from, and its reference."""
    return AppriseAsset(app_id=f"Spendgate {mark(message, reference)}", app_url="")


def color_of(message: Message) -> NotifyType:
    """apprise's word for how a message is coloured."""
    if message.event == "resolved":
        return NotifyType.SUCCESS
    return TYPE_BY_SEVERITY.get(Severity(message.severity), NotifyType.INFO)


def _read(given: Fields) -> Settings:
    url = read_url(given)
    # Whoever knows the path of such an address may post there.
    return Settings({"url": shown_url(url, with_path=False)}, {"url": url})
