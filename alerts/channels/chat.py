"""Chats that take messages at an incoming webhook: Slack, Microsoft Teams, Discord."""

from collections.abc import Callable
from typing import Final

from alerts.channels.addresses import read_url, shown_url
from alerts.channels.http import post_json
from alerts.channels.kind import Field, Fields, Kind, Sent, Settings
from alerts.channels.wording import body_lines, cut, headline, inert, mark
from alerts.messages import Message
from alerts.models import Severity

TITLE_MAX_CHARACTERS: Final = 240
BODY_MAX_CHARACTERS: Final = 3500
RESOLVED_COLOR: Final = 0x3AA337
COLOR_BY_SEVERITY: Final = {
    Severity.INFO.value: 0x3AA3E3,
    Severity.WARNING.value: 0xCACF29,
    Severity.CRITICAL.value: 0xA32037,
}


def chat_kind(label: str, help_text: str, payload_of: Callable[[Message, str], object]) -> Kind:
    """Return a kind of chat whose messages `payload_of` builds from a message and a reference."""

    def send(config: Fields, secrets: Fields, message: Message, reference: str) -> Sent:
        return post_json(secrets["url"], payload_of(message, reference))

    return Kind(
        label=label,
        fields=(Field("url", "Incoming webhook address", help_text, is_secret=True),),
        severities=(Severity.WARNING, Severity.CRITICAL),
        read=_read,
        send=send,
    )


def title_of(message: Message) -> str:
    """Return the headline, without meaning to a chat's markup."""
    return inert(cut(headline(message), TITLE_MAX_CHARACTERS))


def body_of(message: Message) -> str:
    """Return the lines below the headline, likewise without meaning."""
    return cut("\n".join(inert(line) for line in body_lines(message)), BODY_MAX_CHARACTERS)


def signature_of(message: Message, reference: str) -> str:
    """Return who the message is from, and what people recognize a repeat by."""
    return f"Spendgate {mark(message, reference)}"


def color_of(message: Message) -> int:
    """Return the color of a message, as RGB."""
    return RESOLVED_COLOR if message.event == "resolved" else COLOR_BY_SEVERITY[message.severity]


def _read(given: Fields) -> Settings:
    url = read_url(given)
    # Anyone who knows the path of such an address may post there.
    return Settings({"url": shown_url(url, with_path=False)}, {"url": url})
